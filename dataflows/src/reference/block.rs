//! `block` in the oracle: the rule of semantics, section 8, from the list of admitted updates.
//!
//! | word | definition |
//! |---|---|
//! | before | the reading of all counted updates of the event's live period |
//! | after | the reading of those and this one |
//! | towards breach | after lies nearer to breach than before, or there is no before (AVG, MIN, MAX without an update) |
//! | refused | towards breach, and after lies past the limit |
//! | too late | the live period of the event is no longer open, refused or not |

use super::series::Series;
use crate::types::{Action, Amount, Micros, Operation, Operator, Outcome, Refusal, Tally};

impl Series {
    /// What becomes of an update that is no duplicate.
    pub(super) fn judge(&self, arrival: Micros, event_at: Micros, amount: Amount) -> Outcome {
        let is_mean = self.shape.operation == Operation::Avg;
        if is_mean || self.shape.limit.is_none_or(|limit| limit.action != Action::Block) {
            Outcome::Admitted
        } else if !self.is_open(event_at, arrival) {
            Outcome::TooLate
        } else if self.passes(&self.standing(event_at).tally, amount) {
            Outcome::Refused
        } else {
            Outcome::Admitted
        }
    }

    fn passes(&self, tally: &Tally, amount: Amount) -> bool {
        let Some(limit) = self.shape.limit else { return false };
        let (before, after) = (self.reading(tally), self.reading(&tally.merge(Tally::of(amount))));
        let has_before = tally.count > 0 || matches!(self.shape.operation, Operation::Sum | Operation::Count);
        match limit.operator {
            Operator::Gte | Operator::Gt => after > limit.value && (!has_before || after > before),
            Operator::Lte | Operator::Lt => after < limit.value && (!has_before || after < before),
            Operator::Eq => false,
        }
    }

    /// What is said of a refused update.
    pub(super) fn refusal(&self, arrival: Micros, event_at: Micros, amount: Amount) -> Option<Refusal> {
        let standing = self.standing(event_at);
        Some(Refusal {
            value: standing.value,
            limit: self.shape.limit?.value,
            resets_at: standing.period_end.filter(|end| *end > arrival),
            fits_anew: !self.passes(&Tally::EMPTY, amount),
        })
    }
}
