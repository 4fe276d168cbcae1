//! Back-pressure: how much may be under way, decided before a body is read.
//!
//! Three bounds: requests in all, bytes of bodies in all, bytes of bodies per business; the last is what keeps one tenant
//! from starving another. A permit gives back what it took when it is dropped. A business's count is forgotten when
//! nothing of it is under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::AdmissionError;

/// How much may be under way at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests.
    pub requests_max: usize,
    /// Bytes of bodies.
    pub bytes_max: usize,
    /// Bytes of bodies of one business.
    pub business_bytes_max: usize,
}

#[derive(Default)]
struct Load {
    requests: usize,
    bytes: usize,
    by_business: HashMap<Arc<str>, usize>,
}

/// What is under way.
pub(super) struct Pressure {
    bounds: Bounds,
    load: Mutex<Load>,
}

/// Held while a request is under way.
pub struct Permit {
    pressure: Arc<Pressure>,
    business_id: Arc<str>,
    bytes: usize,
}

impl Pressure {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Pressure { bounds, load: Mutex::default() })
    }

    /// Takes room for a request with a body of at most so many bytes. A business that has nothing under way gets in with
    /// a body of any size that its route allows.
    pub(super) fn reserve(
        self: &Arc<Self>,
        business_id: &Arc<str>,
        bytes: usize,
    ) -> Result<Permit, AdmissionError> {
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        let of_business = load.by_business.get(business_id).copied().unwrap_or(0);
        let business_full = of_business > 0 && of_business + bytes > self.bounds.business_bytes_max;
        let full = load.requests >= self.bounds.requests_max || load.bytes + bytes > self.bounds.bytes_max;
        if business_full || full {
            return Err(AdmissionError::Overloaded);
        }
        load.requests += 1;
        load.bytes += bytes;
        // At least one, so that an entry stands for something under way.
        *load.by_business.entry(business_id.clone()).or_default() += bytes.max(1);
        Ok(Permit { pressure: self.clone(), business_id: business_id.clone(), bytes })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut load = self.pressure.load.lock().unwrap_or_else(PoisonError::into_inner);
        load.requests -= 1;
        load.bytes -= self.bytes;
        if let Some(bytes) = load.by_business.get_mut(&self.business_id) {
            *bytes -= self.bytes.max(1);
            if *bytes == 0 {
                load.by_business.remove(&self.business_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_business_cannot_take_the_room_of_another() {
        let pressure = Pressure::new(Bounds { requests_max: 10, bytes_max: 1_000, business_bytes_max: 100 });
        let (loud, quiet): (Arc<str>, Arc<str>) = ("loud".into(), "quiet".into());
        let first = pressure.reserve(&loud, 90).map_err(drop);
        assert!(pressure.reserve(&loud, 11).is_err());
        assert!(pressure.reserve(&quiet, 90).is_ok());
        drop(first);
        assert!(pressure.reserve(&loud, 11).is_ok(), "what was given back can be taken again");
        assert!(pressure.load.lock().map(|load| load.by_business.is_empty()).unwrap_or(false));
    }

    #[test]
    fn all_together_are_bounded() {
        let pressure = Pressure::new(Bounds { requests_max: 2, bytes_max: 1_000, business_bytes_max: 100 });
        let permits: Vec<_> = (0..3).map(|n| pressure.reserve(&n.to_string().into(), 1)).collect();
        assert!(permits[0].is_ok() && permits[1].is_ok() && permits[2].is_err());
    }
}
