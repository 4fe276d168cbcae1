//! Edges: what a change of a value does to its limit, and how far a value may rise before it does anything. Total and pure,
//! so that a replay finds the same edges.

use crate::types::{Amount, Edge, Operation, Operator, Shape, Tally};

impl Shape {
    /// What happens to the limit when the tally of a live period becomes another: percentages first, rising.
    pub fn edges(&self, before: &Tally, after: &Tally) -> impl Iterator<Item = Edge> {
        let (was, is) = (self.is_breached(before), self.is_breached(after));
        let reached =
            |percent: &u16| !self.has_reached(before, *percent) && self.has_reached(after, *percent);
        let reached: Vec<u16> = self.notify.iter().filter(reached).collect();
        let edge = match (was, is) {
            (false, true) => Some(Edge::Breached),
            (true, false) => Some(Edge::Recovered),
            _ => None,
        };
        reached.into_iter().map(Edge::Reached).chain(edge)
    }

    /// What another limit (`self`) does at once, where `before` was in force. Percentages of the same bound are no news.
    pub fn edges_of_limit(&self, before: &Shape, tally: &Tally) -> impl Iterator<Item = Edge> {
        let bound = |shape: &Shape| shape.limit.map(|limit| (limit.value, limit.operator));
        let is_other = bound(self) != bound(before);
        let knew = |percent: u16| {
            before.notify.iter().any(|known| known == percent) && before.has_reached(tally, percent)
        };
        let reached = |percent: &u16| is_other && self.has_reached(tally, *percent) && !knew(*percent);
        let reached: Vec<u16> = self.notify.iter().filter(reached).collect();
        let edge = match (before.is_breached(tally), self.is_breached(tally)) {
            (false, true) => Some(Edge::Breached),
            (true, false) => Some(Edge::Recovered),
            _ => None,
        };
        reached.into_iter().map(Edge::Reached).chain(edge)
    }

    /// Whether a value has come so far: up to the percentage of the limit, with `lte` and `lt` down to it.
    fn has_reached(&self, tally: &Tally, percent: u16) -> bool {
        let Some(limit) = self.limit.filter(|_| self.has_value(tally)) else { return false };
        let (value, bound) = (scaled(self.value(tally), 100), scaled(limit.value, percent));
        match limit.operator {
            Operator::Gte | Operator::Gt | Operator::Eq => value >= bound,
            Operator::Lte | Operator::Lt => value <= bound,
        }
    }

    /// How far the value of a tally may rise without an edge, in nano-units: any rise by less is none; the greatest if there is none ahead. 0 where that cannot
    /// be told so simply; a sum that falls may always be one.
    pub fn quiet_rise(&self, tally: &Tally) -> i64 {
        let Some(limit) = self.limit else { return i64::MAX };
        let rises = matches!(limit.operator, Operator::Gte | Operator::Gt);
        if !rises || !matches!(self.operation, Operation::Sum | Operation::Count) {
            return 0;
        }
        let value = self.value(tally);
        let breach = if self.is_breached(tally) {
            None
        } else {
            // `gt` is breached by the least there is beyond the limit.
            Some(limit.value.0 + i128::from(limit.operator == Operator::Gt))
        };
        let ahead = self.notify.iter().filter(|percent| !self.has_reached(tally, *percent));
        let ahead = ahead.map(|percent| {
            let bound = scaled(limit.value, percent);
            bound.div_euclid(100) + i128::from(bound.rem_euclid(100) != 0)
        });
        let next = ahead.chain(breach).map(|edge| edge - value.0).min();
        next.map_or(i64::MAX, |rise| i64::try_from(rise).unwrap_or(i64::MAX).min(i64::MAX - 1))
    }
}

/// An amount times a small factor; what is beyond 128 bits is as far as they go.
fn scaled(amount: Amount, factor: u16) -> i128 {
    amount.0.saturating_mul(i128::from(factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Action, Limit, LimitSource, MetricType, Notify, Span};
    use proptest::prelude::*;

    fn shape(operation: Operation, operator: Operator, bound: i128, notify: &[u16]) -> Shape {
        Shape {
            operation,
            metric_type: MetricType::Checkpoint,
            flush: Span::H1,
            reset: Span::H1,
            initial_value: Amount::ZERO,
            batch: Span::S15,
            stored: true,
            limit: Some(Limit { value: Amount(bound), operator, action: Action::Deny }),
            limit_source: LimitSource::Series,
            notify: Notify::new(notify),
            max_event_age_secs: 60,
            cleanup_after_days: None,
        }
    }

    fn tally(sum: i128) -> Tally {
        Tally::of(Amount(sum))
    }

    #[test]
    fn each_percentage_and_the_limit_are_crossed_once_on_the_way() {
        let shape = shape(Operation::Sum, Operator::Gte, 1_000, &[100, 80]);
        let edges = |before, after| shape.edges(&tally(before), &tally(after)).collect::<Vec<_>>();
        assert_eq!(edges(0, 799), []);
        assert_eq!(edges(799, 800), [Edge::Reached(80)]);
        assert_eq!(edges(800, 999), []);
        assert_eq!(edges(999, 1_000), [Edge::Reached(100), Edge::Breached]);
        assert_eq!(edges(1_000, 5_000), []);
        assert_eq!(edges(5_000, 900), [Edge::Recovered]);
        assert_eq!(edges(0, 5_000), [Edge::Reached(80), Edge::Reached(100), Edge::Breached]);
    }

    #[test]
    fn another_limit_is_news_where_it_changes_something() {
        let old = shape(Operation::Sum, Operator::Gte, 1_000, &[80]);
        let edges = |new: &Shape, value| new.edges_of_limit(&old, &tally(value)).collect::<Vec<_>>();
        let lower = shape(Operation::Sum, Operator::Gte, 500, &[50, 80]);
        assert_eq!(edges(&lower, 400), [Edge::Reached(50), Edge::Reached(80)]);
        assert_eq!(edges(&lower, 900), [Edge::Reached(50), Edge::Breached], "80 was known");
        assert_eq!(edges(&lower, 1_000), [Edge::Reached(50)], "it was breached, and is");
        assert_eq!(edges(&Shape { limit: None, ..old }, 1_000), [Edge::Recovered]);
        let more_messages = Shape { notify: Notify::new(&[50, 80]), ..old };
        assert_eq!(edges(&more_messages, 900), [], "the same bound");
    }

    proptest! {
        #[test]
        fn a_rise_that_is_quiet_crosses_nothing_and_the_next_does(
            operation in proptest::sample::select(vec![Operation::Sum, Operation::Max]),
            operator in proptest::sample::select(vec![Operator::Gte, Operator::Gt, Operator::Lte, Operator::Eq]),
            (bound, value, rise) in (-300i128..300, -400i128..400, 0i128..500),
            notify in proptest::collection::vec(1u16..150, 0..4),
        ) {
            let shape = shape(operation, operator, bound, &notify);
            let (before, after) = (tally(value), tally(value + rise));
            let quiet = i128::from(shape.quiet_rise(&before));
            let edges = shape.edges(&before, &after).count();
            if rise < quiet {
                prop_assert_eq!(edges, 0);
            } else if quiet > 0 && quiet < i128::from(i64::MAX) {
                prop_assert!(edges > 0, "at {} something happens", quiet);
            }
        }
    }
}
