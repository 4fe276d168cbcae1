//! Changes that read a description, change it and write it: of a business one at a time, or one would undo another. A fixed
//! number of locks, which businesses share by their hash: two that share one wait for each other, and most do not.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard};

/// How many locks there are: 40 bytes each. Of so many tenants that change something at one moment few share one.
const LOCKS: usize = 256;

/// See the header.
pub struct Patching {
    locks: Box<[Mutex<()>]>,
    /// What is about businesses themselves, whatever their number.
    businesses: Mutex<()>,
}

impl Default for Patching {
    fn default() -> Self {
        Patching { locks: (0..LOCKS).map(|_| Mutex::default()).collect(), businesses: Mutex::default() }
    }
}

impl Patching {
    /// Waits for the changes of what belongs to a business.
    pub async fn of(&self, business_id: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        business_id.hash(&mut hasher);
        self.locks[hasher.finish() as usize % LOCKS].lock().await
    }

    /// Waits for the changes of businesses themselves, which are the admin's.
    pub async fn lock(&self) -> MutexGuard<'_, ()> {
        self.businesses.lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn changes_of_one_business_wait_for_each_other_and_for_no_other_business() {
        let patching = Patching::default();
        let now =
            async |of: &str| tokio::time::timeout(Duration::from_millis(5), patching.of(of)).await.is_ok();
        let held = patching.of("biz_a").await;
        assert!(!now("biz_a").await);
        // The hash is the same each time: these share no lock with it.
        for other in ["biz_b", "biz_c", "biz_d"] {
            assert!(now(other).await, "{other}");
        }
        drop(held);
        assert!(now("biz_a").await);
    }
}
