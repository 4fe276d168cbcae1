//! Where a batch stopped because a part of it was not taken, and why. Parts are named by the place of their first item; those
//! in front and those behind may be heard of later.

use crate::admission::AdmissionError;

/// The first part that was not taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stop(Option<(u32, AdmissionError)>);

impl Stop {
    /// Whether a part was not taken.
    pub fn is_reached(&self) -> bool {
        self.0.is_some()
    }

    /// A part was not taken.
    pub fn fail(&mut self, first: u32, error: AdmissionError) {
        match &mut self.0 {
            Some((at, why)) if *at < first => {
                if error == AdmissionError::Unknown {
                    *why = error;
                }
            }
            _ => self.0 = Some((first, error)),
        }
    }

    /// A part was taken. Behind one that was not, nobody can go on from where that one failed.
    pub fn pass(&mut self, first: u32) {
        if let Some((at, why)) = &mut self.0
            && *at < first
        {
            *why = AdmissionError::Unknown;
        }
    }

    /// The place, which is how many items were taken, and why.
    pub fn take(&mut self) -> Option<(u32, AdmissionError)> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_stops_at_its_first_part_that_was_not_taken() {
        let mut stop = Stop::default();
        stop.pass(0);
        assert!(!stop.is_reached());
        stop.fail(20, AdmissionError::Overloaded);
        stop.pass(10);
        assert_eq!(stop, Stop(Some((20, AdmissionError::Overloaded))), "one in front was taken");
        stop.fail(15, AdmissionError::DiskFull);
        assert_eq!(stop.take(), Some((15, AdmissionError::DiskFull)));
    }

    #[test]
    fn what_was_perhaps_taken_behind_it_makes_the_outcome_unknown() {
        let later: [fn(&mut Stop); 2] = [|stop| stop.pass(20), |stop| stop.fail(20, AdmissionError::Unknown)];
        for later in later {
            let mut stop = Stop::default();
            stop.fail(10, AdmissionError::DiskFull);
            stop.fail(15, AdmissionError::DiskFull);
            assert_eq!(stop, Stop(Some((10, AdmissionError::DiskFull))));
            later(&mut stop);
            assert_eq!(stop.take(), Some((10, AdmissionError::Unknown)));
        }
    }
}
