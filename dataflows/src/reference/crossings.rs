//! Crossings in the oracle: what a series shows of its limit is looked at before and behind whatever changes it.
//!
//! | word | definition |
//! |---|---|
//! | breached | as in a reading |
//! | reached p | a hundred times the value has come to p times the limit: from below, with `lte` and `lt` from above |
//! | seen | both, for each percentage that a message was asked for; nothing in a live period that is not open |
//! | crossing | what is seen behind a change and was not before; and a breach that is seen no more |

use std::collections::BTreeSet;

use super::series::Series;
use crate::types::{Crossing, Edge, Limit, Micros, Operation, Operator, Shape};

/// What is seen of a limit.
pub(super) struct Seen {
    breached: bool,
    reached: BTreeSet<u16>,
    limit: Option<Limit>,
    is_open: bool,
}

impl Series {
    /// What is seen at a moment of the live period of an event.
    pub(super) fn seen(&self, event_at: Micros, arrival: Micros) -> Seen {
        let standing = self.standing(event_at);
        let sums = matches!(self.shape.operation, Operation::Sum | Operation::Count);
        let has_value = sums || standing.tally.count > 0;
        let has_reached = |percent: &u16| {
            self.shape.limit.is_some_and(|limit| {
                let value = standing.value.0.saturating_mul(100);
                let bound = limit.value.0.saturating_mul(i128::from(*percent));
                match limit.operator {
                    Operator::Lte | Operator::Lt => value <= bound,
                    Operator::Gte | Operator::Gt | Operator::Eq => value >= bound,
                }
            })
        };
        Seen {
            breached: standing.breached,
            reached: self.shape.notify.iter().filter(|percent| has_value && has_reached(percent)).collect(),
            limit: self.shape.limit,
            is_open: self.is_open(event_at, arrival),
        }
    }

    /// The crossings from what was seen to what is, for an update or for another limit.
    pub(super) fn crossings(
        &self,
        before: Seen,
        event_at: Micros,
        arrival: Micros,
        by_limit: bool,
    ) -> Vec<Crossing> {
        let (after, standing) = (self.seen(event_at, arrival), self.standing(event_at));
        if !before.is_open {
            return Vec::new();
        }
        let bound = |limit: Option<Limit>| limit.map(|limit| (limit.value, limit.operator));
        let mut edges: Vec<Edge> = Vec::new();
        // Under the same bound a percentage that is asked for now is no news: only the value can come to it.
        if !by_limit || bound(before.limit) != bound(after.limit) {
            edges.extend(after.reached.difference(&before.reached).copied().map(Edge::Reached));
        }
        match (before.breached, after.breached) {
            (false, true) => edges.push(Edge::Breached),
            (true, false) => edges.push(Edge::Recovered),
            _ => {}
        }
        let crossing = |edge| Crossing {
            series: self.id,
            period_start: standing.period_start,
            period_end: standing.period_end,
            count: standing.tally.count,
            edge,
            value: standing.value,
            limit: self.shape.limit,
            at: arrival,
        };
        edges.into_iter().map(crossing).collect()
    }

    /// Another limit; whether it is one.
    pub(super) fn limited(&mut self, shape: Shape, arrival: Micros) -> bool {
        let Shape { limit, limit_source, notify, .. } = shape;
        let shape = Shape { limit, limit_source, notify, ..self.shape };
        let is_other = shape != self.shape;
        let before = std::mem::replace(&mut self.shape, shape);
        self.want_cleanup(&before, arrival);
        is_other
    }
}
