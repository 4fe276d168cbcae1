//! How many exchanges each business has in flight. In: a business. Out: a `Slot` that is given back when it is dropped, or
//! none if all are taken. A business with none in flight costs nothing: it is not remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The slots of all businesses. Clones share them.
#[derive(Clone)]
pub struct Slots {
    max: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// One exchange in flight.
pub struct Slot {
    business_id: String,
    of: Slots,
}

impl Slots {
    /// `max` slots for each business.
    pub fn new(max: usize) -> Slots {
        Slots { max, taken: Arc::default() }
    }

    /// A slot, if the business has one left.
    pub fn take(&self, business_id: &str) -> Option<Slot> {
        let mut taken = self.taken();
        let count = taken.get(business_id).copied().unwrap_or(0);
        if count >= self.max {
            return None;
        }
        taken.insert(business_id.to_owned(), count + 1);
        Some(Slot { business_id: business_id.to_owned(), of: self.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        let Some(count) = taken.get_mut(&self.business_id) else { return };
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.business_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_business_has_so_many_slots_and_is_forgotten_with_the_last() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take("a"), slots.take("a"));
        assert!(first.is_some() && second.is_some());
        assert!(slots.take("a").is_none());
        let other = slots.take("b");
        assert!(other.is_some());
        drop(first);
        assert!(slots.take("a").is_some());
        drop((second, other));
        assert!(slots.taken().is_empty());
    }
}
