//! What a limit says about a value and about an update (semantics, section 8). Total and pure: replay, reads and the
//! live path call this.
//!
//! `block` is strict: no admitted update moves a value over its limit, whatever order updates come in, because each is
//! judged by the value that those before it have led to.

use crate::types::{Action, Amount, Limit, Operation, Operator, Shape, Tally};

impl Action {
    /// Whether check and proxy refuse past the limit.
    pub fn refuses(self) -> bool {
        matches!(self, Action::Deny | Action::Block)
    }
}

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

    /// Whether an update that would move the value from `before` to `after` may be recorded. One that does not move it
    /// towards breach always may; else up to and including the limit, so that a limit of 1000 admits 1000 units. (`eq`
    /// has no side to stay on: a definition cannot join it with `block`.)
    pub fn admits(&self, before: Amount, after: Amount) -> bool {
        self.action != Action::Block || self.keeps(after) || !self.is_towards(before, after)
    }

    /// Whether a value moves towards breach.
    fn is_towards(&self, before: Amount, after: Amount) -> bool {
        match self.operator {
            Operator::Gte | Operator::Gt => after > before,
            Operator::Lte | Operator::Lt => after < before,
            Operator::Eq => true,
        }
    }

    /// Whether a value is no further than the limit.
    fn keeps(&self, value: Amount) -> bool {
        match self.operator {
            Operator::Gte | Operator::Gt => value <= self.value,
            Operator::Lte | Operator::Lt => value >= self.value,
            Operator::Eq => true,
        }
    }

    /// How far a value may still go; 0 past the limit, none where the limit has no side (`eq`).
    pub fn remaining(&self, value: Amount) -> Option<Amount> {
        let distance = match self.operator {
            Operator::Gte | Operator::Gt => self.value - value,
            Operator::Lte | Operator::Lt => value - self.value,
            Operator::Eq => return None,
        };
        Some(distance.max(Amount::ZERO))
    }
}

impl Shape {
    /// The value of a live period's tally.
    pub fn value(&self, tally: &Tally) -> Amount {
        crate::tally::Reading { operation: self.operation, initial_value: self.initial_value }.value(tally)
    }

    /// Whether the tally has a value of its own: AVG, MIN and MAX have none before the first update.
    pub fn has_value(&self, tally: &Tally) -> bool {
        tally.count > 0 || matches!(self.operation, Operation::Sum | Operation::Count)
    }

    /// Whether a live period with this tally is past the limit. Without an update AVG, MIN and MAX never are.
    pub fn is_breached(&self, tally: &Tally) -> bool {
        self.has_value(tally) && self.limit.is_some_and(|limit| limit.is_breached(self.value(tally)))
    }

    /// Whether updates past the limit are refused. A mean has no side to stay on: a plan's `block` limit, which may meet
    /// a series of any operation, is a `deny` limit there.
    pub fn blocks(&self) -> bool {
        self.operation != Operation::Avg && self.limit.is_some_and(|limit| limit.action == Action::Block)
    }

    /// Whether an update of this amount may be recorded in a live period with this tally. Where there is no value yet
    /// there is none to move away from: an `initial_value` past the limit lets no MAX past it.
    pub fn admits(&self, tally: &Tally, amount: Amount) -> bool {
        !self.blocks() || self.keeps(tally, amount)
    }

    /// Whether check lets a use of this amount begin in a live period with this tally: what `block` would admit, for
    /// `deny` as well; with `eq`, which has no side to stay on, whatever is not breached.
    pub fn allows(&self, tally: &Tally, amount: Amount) -> bool {
        let Some(limit) = self.limit.filter(|limit| limit.action.refuses()) else { return true };
        match limit.operator {
            Operator::Eq => !self.is_breached(tally),
            _ => self.keeps(tally, amount),
        }
    }

    /// Whether the limit holds with the amount added, or the amount does not move the value towards it.
    fn keeps(&self, tally: &Tally, amount: Amount) -> bool {
        let Some(limit) = self.limit else { return true };
        let after = self.value(&tally.merge(Tally::of(amount)));
        if !self.has_value(tally) {
            return limit.keeps(after);
        }
        limit.keeps(after) || !limit.is_towards(self.value(tally), after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LimitSource, MetricType, Notify, Span};
    use proptest::prelude::*;

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

    #[test]
    fn a_blocking_limit_admits_up_to_and_including_itself() {
        for (operator, from, below, at, above) in [
            (Operator::Gte, 5, true, true, false),
            (Operator::Gt, 5, true, true, false),
            (Operator::Lte, 15, false, true, true),
            (Operator::Lt, 15, false, true, true),
        ] {
            let limit = Limit { value: Amount(10), operator, action: Action::Block };
            let seen = [9, 10, 11].map(|nanos| limit.admits(Amount(from), Amount(nanos)));
            assert_eq!(seen, [below, at, above], "{operator:?}");
            let left = [9, 10, 11].map(|nanos| limit.remaining(Amount(nanos)).map_or(-1, |left| left.0));
            assert_eq!(left, if from == 5 { [1, 0, 0] } else { [0, 0, 1] }, "{operator:?}");
        }
    }

    fn shape(operation: Operation, initial_value: Amount, limit: Limit) -> Shape {
        Shape {
            operation,
            metric_type: MetricType::Checkpoint,
            flush: Span::H1,
            reset: Span::H1,
            initial_value,
            batch: Span::S15,
            stored: true,
            limit: Some(limit),
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: 60,
            cleanup_after_days: None,
        }
    }

    #[test]
    fn the_first_update_of_a_maximum_is_judged_by_itself() {
        let limit = Limit { value: Amount(10), operator: Operator::Gte, action: Action::Block };
        let shape = shape(Operation::Max, Amount(50), limit);
        assert!(!shape.admits(&Tally::EMPTY, Amount(30)), "below the placeholder, and past the limit");
        assert!(shape.admits(&Tally::EMPTY, Amount(10)));
        assert!(shape.admits(&Tally::of(Amount(50)), Amount(30)), "it does not move the value");
    }

    fn operations() -> impl Strategy<Value = Operation> {
        let all = [Operation::Sum, Operation::Count, Operation::Max, Operation::Min];
        proptest::sample::select(all.to_vec())
    }

    fn operators() -> impl Strategy<Value = Operator> {
        proptest::sample::select(vec![Operator::Gte, Operator::Gt, Operator::Lte, Operator::Lt])
    }

    #[test]
    fn a_mean_is_never_held() {
        let limit = Limit { value: Amount(10), operator: Operator::Gte, action: Action::Block };
        let shape = shape(Operation::Avg, Amount::ZERO, limit);
        assert!(!shape.blocks() && shape.admits(&Tally::of(Amount(9)), Amount(100)));
    }

    proptest! {
        #[test]
        fn what_is_admitted_never_passes_the_limit_from_within_it(
            operation in operations(),
            operator in operators(),
            (bound, initial) in (-30i128..30, -30i128..30),
            amounts in proptest::collection::vec(-20i128..20, 0..40),
        ) {
            let limit = Limit { value: Amount(bound * Amount::UNIT), operator, action: Action::Block };
            let shape = shape(operation, Amount(initial * Amount::UNIT), limit);
            let mut tally = Tally::EMPTY;
            for units in amounts {
                let amount = Amount(units * Amount::UNIT);
                let was_within = !shape.has_value(&tally) || limit.keeps(shape.value(&tally));
                if shape.admits(&tally, amount) {
                    tally = tally.merge(Tally::of(amount));
                    prop_assert!(!was_within || limit.keeps(shape.value(&tally)));
                }
            }
        }

        #[test]
        fn what_moves_away_from_the_limit_is_always_admitted(
            operator in operators(),
            (bound, before, step) in (-30i128..30, -90i128..90, 0i128..90),
        ) {
            let limit = Limit { value: Amount(bound), operator, action: Action::Block };
            let away = if matches!(operator, Operator::Gte | Operator::Gt) { -step } else { step };
            prop_assert!(limit.admits(Amount(before), Amount(before + away)));
        }

        #[test]
        fn what_is_refused_would_have_moved_the_value_past_the_limit(
            operation in operations(),
            operator in operators(),
            bound in -30i128..30,
            amounts in proptest::collection::vec(-20i128..20, 1..12),
        ) {
            let limit = Limit { value: Amount(bound * Amount::UNIT), operator, action: Action::Block };
            let shape = shape(operation, Amount::ZERO, limit);
            let mut tally = Tally::EMPTY;
            for units in amounts {
                let after = tally.merge(Tally::of(Amount(units * Amount::UNIT)));
                if !shape.admits(&tally, Amount(units * Amount::UNIT)) {
                    prop_assert!(limit.is_breached(shape.value(&after)));
                    prop_assert!(!shape.has_value(&tally) || shape.value(&after) != shape.value(&tally));
                }
                tally = after;
            }
        }

        #[test]
        fn no_other_action_refuses(
            operator in operators(),
            action in proptest::sample::select(vec![
                Action::Allow, Action::AllowOverage, Action::Deny, Action::Webhook,
            ]),
            (before, after) in (-30i128..30, -30i128..30),
        ) {
            let limit = Limit { value: Amount(0), operator, action };
            prop_assert!(limit.admits(Amount(before), Amount(after)));
        }
    }
}
