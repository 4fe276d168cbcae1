//! What is used, and what goes wrong with it: in: chance. Out: calls of the service, with the model beside it.

use std::time::Duration;

use super::super::support::api::{Outcome, flag};
use super::super::support::stripe::Fault;
use super::super::support::until;
use super::model::{AHEAD, DRAFT, HOUR, LATE, MINUTE, SECOND, Series};
use super::world::{METER_EVENTS, rfc3339};
use super::{Action, NANOS, Quarter, amount};

impl Quarter {
    /// How long until a call that is to be killed is.
    pub fn kill(&mut self) -> Option<Duration> {
        std::mem::take(&mut self.kill_next).then(|| Duration::from_micros(self.random.below(12_000) as u64))
    }

    /// Usage of some series: now, a little or much before, a little ahead.
    pub fn burst(&mut self) {
        self.trouble();
        for _ in 0..3 + self.random.below(5) {
            let series = self.random.below(self.model.series.len());
            if self.model.series[series].limit.is_some() {
                self.use_seats(series);
                continue;
            }
            let now = self.now();
            let at = match self.random.below(20) {
                0..7 => None,
                7..12 => Some(now - self.random.below(600_000_000) as i64),
                12..17 => Some(now - self.random.below((LATE - 10 * MINUTE) as usize) as i64),
                _ => Some(now + self.random.below((AHEAD - 10 * SECOND) as usize) as i64),
            };
            let at = at.filter(|at| *at >= self.begun_at && self.is_clear(series, *at));
            self.add(series, at);
        }
    }

    /// Whether what happens then is plainly in time for its period's invoice, or plainly late: not where only the moment of the
    /// next slice decides. And not what is ahead of an event that may end its period: it is of the one before, and its window,
    /// opened ahead, of the one behind.
    pub fn is_clear(&self, series: usize, at: i64) -> bool {
        let series = &self.model.series[series];
        let is_delivery = |action: &Action| matches!(action, Action::Deliver(_));
        let until = self.queue.range(..(at + SECOND, 0)).filter(|_| at > self.now());
        let is_ahead = until.map(|(_, action)| action).any(is_delivery);
        let end = series.end_of(series.period_at(at));
        !is_ahead && end.is_none_or(|end| end > self.now() || self.now() > end + DRAFT + MINUTE)
    }

    pub fn behind(&mut self, series: usize, start: i64) {
        let end = self.model.series[series].end_of(start).expect("it has ended");
        if self.now() > end + 10 * MINUTE {
            return;
        }
        for before in [1, 40 * SECOND, 3 * HOUR] {
            let at = end - before - self.random.below(1_000_000) as i64;
            if self.model.series[series].period_at(at) == start {
                self.add(series, Some(at));
            }
        }
        // And what has begun already.
        self.add(series, Some(end));
    }

    /// On both sides of an end whose windows have left the memory long ago.
    pub fn last(&mut self, series: usize, start: i64) {
        let end = self.model.series[series].end_of(start).expect("it has ended");
        let near = self.random.below((10 * SECOND) as usize) as i64;
        for at in [end - 1 - near, end + near, end - 20 * MINUTE, end + 20 * MINUTE] {
            if self.now() - at < LATE {
                self.add(series, Some(at));
            }
        }
    }

    /// One update of a series that is billed; some are sent twice.
    pub fn add(&mut self, series: usize, at: Option<i64>) {
        let up_to = 3 * NANOS as usize;
        let some = 1 + self.random.below(up_to) as i128;
        let amount = if self.random.one_in(12) { -some / 9 } else { some };
        self.add_some(series, amount, at);
    }

    pub fn add_some(&mut self, series: usize, nanos: i128, at: Option<i64>) {
        self.updates += 1;
        let id = format!("u{}", self.updates);
        let timestamp = at.map_or(String::new(), |at| format!(r#", "timestamp": "{}""#, rfc3339(at)));
        let body = format!(r#"{{"value": {}, "id": "{id}"{timestamp}}}"#, amount(nanos));
        let path = self.path(series);
        let kill = self.kill();
        self.world.sent(kill, |client| client.put(&path, &body)).body();
        let at = at.unwrap_or(self.now());
        self.model.series[series].add(at, nanos);
        if self.random.one_in(15) {
            let again = self.world.sent(None, |client| client.put(&path, &body)).body();
            assert!(flag(&again, "duplicate"), "{again}");
        }
    }

    /// What the plan limits: as much as it allows, and nothing beyond.
    pub fn use_seats(&mut self, series: usize) {
        let wanted = (1 + self.random.below(4)) as i128 * NANOS / 2;
        let is_allowed = self.model.series[series].allows(self.now(), wanted);
        self.updates += 1;
        let body = format!(r#"{{"value": {}, "id": "u{}"}}"#, amount(wanted), self.updates);
        let path = self.path(series);
        let kill = self.kill();
        let seen = || format!("at {}: {:?}", rfc3339(self.now()), self.model.series[series].periods);
        let said = seen();
        match self.world.sent(kill, |client| client.put(&path, &body)) {
            Outcome::Durable(body) => assert!(is_allowed, "beyond the limit, and yet {body} {said}"),
            Outcome::Rejected(429, body) => assert!(!is_allowed, "within the limit, and yet {body} {said}"),
            other => panic!("{other:?}"),
        }
        if is_allowed {
            let now = self.now();
            self.model.series[series].add(now, wanted);
        } else {
            self.refused += 1;
        }
    }

    pub fn path(&self, series: usize) -> String {
        let Series { customer, metric, .. } = &self.model.series[series];
        format!("/api/v1/metrics/{metric}?scope=customer&customer_id={customer}")
    }

    /// What the next calls to Stripe meet, if they meet anything.
    pub fn trouble(&mut self) {
        if self.world.stripe.faults_left() > 3 || !self.random.one_in(3) {
            return;
        }
        let retry_after = 1 + self.random.below(900) as u64;
        let faults = [
            Fault::LoseAnswer,
            Fault::FailAfter(500),
            Fault::FailBefore(503),
            Fault::too_many(retry_after),
            Fault::DropBefore,
            Fault::Says(409, vec![], r#"{"error": {"code": "lock_timeout"}}"#.into()),
            Fault::Delay(Duration::from_millis(30)),
        ];
        let fault = faults[self.random.below(faults.len())].clone();
        self.world.stripe.fault(METER_EVENTS, fault);
    }

    /// The clock reaches an hour with much to send, and the service dies of it, perhaps for longer than Stripe knows names.
    pub fn kill_while_sending(&mut self, away: i64) {
        for series in 0..self.model.series.len() {
            if self.model.series[series].price.is_some() {
                (0..5).for_each(|_| self.add(series, None));
            }
        }
        let mark = (self.now().div_euclid(HOUR) + 1) * HOUR;
        // A moment that the schedule has something for is left to it.
        let next = self.queue.first_key_value().map_or(i64::MAX, |((at, _), _)| *at);
        self.pass(mark.min(next));
        let after = self.random.millis(0, 120);
        self.world.kill_while_sending(after, away);
        self.model.pass(self.now());
        self.foresee();
    }

    /// Stripe takes something of every series and does not say so.
    pub fn leave_unanswered(&mut self) {
        for series in 0..self.model.series.len() {
            if self.model.series[series].price.is_some() {
                (0..12).for_each(|_| self.add(series, None));
            }
        }
        let before = self.world.stripe.faults_left();
        (0..4).for_each(|_| self.world.stripe.fault(METER_EVENTS, Fault::LoseAnswer));
        let mark = (self.now().div_euclid(HOUR) + 1) * HOUR;
        self.pass(mark);
        let is_taken = || if self.world.stripe.faults_left() <= before { Ok(()) } else { Err(()) };
        // Pauses may keep it from being all four.
        let _ = until(Duration::from_millis(500), is_taken);
    }
}
