//! When a value is past its limit (semantics, section 8). Total and pure: replay, reads and the live path call this.
//!
//! Enforcement (`block`) is not here yet: it comes with the limits graph.

use crate::types::{Amount, Limit, Operation, Operator, Shape, Tally};

impl Limit {
    /// Whether a value counts as breached.
    pub fn is_breached(&self, value: Amount) -> bool {
        match self.operator {
            Operator::Gte => value >= self.value,
            Operator::Gt => value > self.value,
            Operator::Lte => value <= self.value,
            Operator::Lt => value < self.value,
            Operator::Eq => value == self.value,
        }
    }
}

impl Shape {
    /// The value of a live period's tally.
    pub fn value(&self, tally: &Tally) -> Amount {
        crate::tally::Reading { operation: self.operation, initial_value: self.initial_value }.value(tally)
    }

    /// Whether a live period with this tally is past the limit. Without an update AVG, MIN and MAX never are.
    pub fn is_breached(&self, tally: &Tally) -> bool {
        let has_value = tally.count > 0 || matches!(self.operation, Operation::Sum | Operation::Count);
        has_value && self.limit.is_some_and(|limit| limit.is_breached(self.value(tally)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Action;

    #[test]
    fn each_operator_is_breached_on_its_side_of_the_limit() {
        for (operator, below, at, above) in [
            (Operator::Gte, false, true, true),
            (Operator::Gt, false, false, true),
            (Operator::Lte, true, true, false),
            (Operator::Lt, true, false, false),
            (Operator::Eq, false, true, false),
        ] {
            let limit = Limit { value: Amount(10), operator, action: Action::Allow };
            let seen = [9, 10, 11].map(|nanos| limit.is_breached(Amount(nanos)));
            assert_eq!(seen, [below, at, above], "{operator:?}");
        }
    }
}
