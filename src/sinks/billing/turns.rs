//! A turn of the exporter: has slices cut, takes them over into lanes, and begins what the first of each lane waits for. What
//! comes of the calls is in `outcomes`.

use std::time::Duration;

use dataflows::types::{Micros, Slice, SliceState};

use super::lanes::LaneKey;
use super::outcomes::{minute, moved};
use super::{
    ACCOUNT_PAUSE, GATHER, HELD_MAX, LOOK_AGAIN, METER_KEPT, METER_PAUSE, NoAccount, NotNow, OWNED_FOR,
    Price, SAME_NAME_FOR, Said, TURN_MAX, UNDER_WAY_MAX, WAITING_MAX, Worker,
};
use crate::stripe::{Counted, Meter, Usage};

impl Worker {
    /// Cuts, takes over, sends; how long nothing is to do.
    pub(super) fn turn(&mut self) -> Result<Duration, NotNow> {
        self.tell()?;
        self.cut()?;
        while self.lanes.held() < HELD_MAX {
            let (waiting, next) = self.books.waiting(self.from, WAITING_MAX);
            self.from = next;
            if waiting.is_empty() {
                break;
            }
            waiting.into_iter().for_each(|waiting| self.lanes.push(waiting));
        }
        let now = self.clock.monotonic();
        self.ask_for_reports(now);
        let ready = self.lanes.ready(now, TURN_MAX.min(UNDER_WAY_MAX.saturating_sub(self.under_way)));
        for key in ready {
            self.decide(key, now);
        }
        self.tell()?;
        for (key, account, usage) in std::mem::take(&mut self.calls) {
            let (inbox, lane) = (self.inbox.clone(), key);
            self.biller.send(
                account,
                usage,
                Box::new(move |outcome| drop(inbox.send(Said::Sent(lane, outcome)))),
            );
        }
        if self.cutting.is_some() {
            return Ok(Duration::ZERO);
        }
        let due = self.lanes.due_in(self.clock.monotonic()).unwrap_or(LOOK_AGAIN);
        Ok(due.clamp(GATHER, LOOK_AGAIN))
    }

    /// Writes down what has become of slices, and what was reported of them.
    pub(super) fn tell(&mut self) -> Result<(), NotNow> {
        if !self.untold.is_empty() {
            self.books.moved(self.untold.clone())?;
            self.untold.clear();
        }
        while let Some(report) = self.untold_reports.last() {
            self.books.reported(report.clone())?;
            self.untold_reports.pop();
        }
        Ok(())
    }

    /// Has slices cut: of all series at each interval, some at a time, and of those whose period has ended.
    fn cut(&mut self) -> Result<(), NotNow> {
        self.books.cut_ended()?;
        let now = self.clock.wall();
        if self.cutting.is_none() && now >= self.cut_at {
            self.cutting = Some(None);
        }
        if let Some(after) = self.cutting {
            let next = self.books.cut(after)?;
            self.cutting = next.map(Some);
            if next.is_none() {
                let passed = now.0.rem_euclid(self.interval_micros);
                self.cut_at = Micros(now.0.saturating_add(self.interval_micros - passed));
            }
        }
        Ok(())
    }

    /// What is done about the first slice of a lane: ask for its price, ask what was counted, or send it.
    fn decide(&mut self, key: LaneKey, now: Duration) {
        let account = match self.books.account(&key.business_id) {
            Ok(account) => account,
            Err(NoAccount::Gone) => return self.lanes.abandon(&key),
            Err(NoAccount::Unusable(reason)) => {
                self.remarks.set(&key.business_id, "", Some(reason));
                return self.lanes.hold(&key, now + ACCOUNT_PAUSE);
            }
        };
        let price = (key.business_id.clone(), key.price_id.clone());
        let meter = match self.meters.get(&price) {
            Some(Price::Known(meter, at)) if now.saturating_sub(*at) < METER_KEPT => meter.clone(),
            Some(Price::Asked) => return self.lanes.hold(&key, now + LOOK_AGAIN),
            Some(Price::Not(until)) if now < *until => {
                let until = *until;
                return self.lanes.hold(&key, until);
            }
            _ => {
                self.meters.insert(price.clone(), Price::Asked);
                self.under_way += 1;
                self.lanes.hold(&key, now + LOOK_AGAIN);
                let (inbox, price_id) = (self.inbox.clone(), price.1.clone());
                let done = move |answer| drop(inbox.send(Said::Metered(price, answer)));
                return self.biller.meter(account, price_id, Box::new(done));
            }
        };
        let wall = self.clock.wall();
        let Some(item) = self.lanes.first_mut(&key) else { return };
        let slice = item.slice.clone();
        let may_have_arrived = item.may_have_arrived;
        let is_old = item.sent_at.is_some_and(|at| wall.0 - at.0 > SAME_NAME_FOR.as_micros() as i64);
        if !self.owns(&slice, &meter, now) {
            let reason = "another metric of this customer is billed by the same meter";
            self.remarks.set(&key.business_id, &key.price_id, Some(reason.to_owned()));
            return self.lanes.hold(&key, now + METER_PAUSE);
        }
        self.under_way += 1;
        self.lanes.begin(&key);
        if may_have_arrived && is_old {
            let (from, until) = minute(&slice);
            let of = Counted { meter_id: meter.id, customer: slice.stripe_customer_id.clone(), from, until };
            let inbox = self.inbox.clone();
            let done = move |total| drop(inbox.send(Said::Counted(key, total)));
            return self.biller.total(account, of, Box::new(done));
        }
        let Some(item) = self.lanes.first_mut(&key) else { return };
        if item.state == SliceState::New {
            (item.state, item.sent_at) = (SliceState::Sending, Some(wall));
            self.untold.push(moved(&slice, SliceState::Sending, wall, None));
        }
        let usage = Usage {
            event_name: meter.event_name,
            customer_key: meter.customer_key,
            value_key: meter.value_key,
            customer: slice.stripe_customer_id.clone(),
            value: slice.quantity,
            at: slice.dated_at,
            identifier: slice.identifier.clone(),
            failures: item.failures,
        };
        self.calls.push((key, account, usage));
    }

    /// Whether a customer's meter is this metric's: two on one could not be told apart.
    fn owns(&mut self, slice: &Slice, meter: &Meter, now: Duration) -> bool {
        let key = (slice.business_id.clone(), slice.customer_id.clone(), meter.id.clone());
        let (owner, since) = self.owners.entry(key).or_insert_with(|| (slice.metric_name.clone(), now));
        let is_free = now.saturating_sub(*since) > OWNED_FOR;
        if *owner == slice.metric_name || is_free {
            (*owner, *since) = (slice.metric_name.clone(), now);
        }
        *owner == slice.metric_name
    }
}
