//! What calls have brought: what becomes of a slice, and what is known of a price.

use dataflows::types::{Micros, Slice, SliceMove, SliceState};

use super::lanes::{LaneKey, jitter};
use super::{LOOK_AGAIN, METER_PAUSE, MINUTE_MICROS, Price, Worker};
use crate::stripe::{CallError, Meter, Outcome};

impl Worker {
    /// What a call has brought.
    pub(super) fn sent(&mut self, key: &LaneKey, outcome: Outcome) {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        self.under_way = self.under_way.saturating_sub(1);
        let Some(item) = self.lanes.first_mut(key) else { return };
        let slice = item.slice.clone();
        match outcome {
            Outcome::Delivered => self.settle(key, SliceState::Acked, None),
            Outcome::Duplicate if item.may_have_arrived => {
                self.settle(key, SliceState::Acked, Some("it had arrived before".to_owned()));
            }
            Outcome::Duplicate => {
                let reason = "Stripe has an event of this name that was not sent from here";
                self.settle(key, SliceState::Dead, Some(reason.to_owned()));
            }
            // The credential is at fault, not the slice.
            Outcome::Dead { status: Some(401 | 403), reason } => {
                self.remarks.set(&key.business_id, "", Some(reason));
                self.lanes.failed(key, now, None);
            }
            Outcome::Dead { reason, .. } => self.settle(key, SliceState::Dead, Some(reason)),
            Outcome::Again { after, .. } => self.lanes.failed(key, now, after),
            Outcome::Unknown { after, is_answered, reason } => {
                item.may_have_arrived = true;
                item.failures += u32::from(is_answered);
                if item.state != SliceState::Unknown {
                    item.state = SliceState::Unknown;
                    self.untold.push(moved(&slice, SliceState::Unknown, wall, Some(reason)));
                }
                self.lanes.failed(key, now, after);
            }
        }
    }

    /// What the biller has counted in the minute of a slice that may have arrived long ago.
    pub(super) fn counted(&mut self, key: &LaneKey, total: Result<i128, CallError>) {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        self.under_way = self.under_way.saturating_sub(1);
        let Some(slice) = self.lanes.first_mut(key).map(|item| item.slice.clone()) else { return };
        let total = match total {
            Ok(total) => total,
            Err(CallError::Again { after, .. }) => return self.lanes.failed(key, now, after),
            Err(CallError::Refused { reason, .. }) => {
                self.remarks.set(&key.business_id, &key.price_id, Some(reason));
                return self.lanes.failed(key, now, Some(METER_PAUSE));
            }
        };
        let (from, until) = minute(&slice);
        let without = self.books.acked_between(&slice, from, until);
        if total == without + i128::from(slice.quantity) {
            return self.settle(key, SliceState::Acked, Some("found in what Stripe has counted".to_owned()));
        }
        if total != without {
            let reason = format!(
                "Stripe counts {total} in its minute, {without} without it: whether it is in cannot be told"
            );
            return self.settle(key, SliceState::Dead, Some(reason));
        }
        self.untold.push(moved(&slice, SliceState::New, wall, Some("Stripe has not counted it".to_owned())));
        if let Some(item) = self.lanes.first_mut(key) {
            (item.state, item.sent_at, item.may_have_arrived) = (SliceState::New, None, false);
        }
        self.lanes.answered(key, now);
    }

    /// Nothing more happens to the first slice of a lane.
    fn settle(&mut self, key: &LaneKey, state: SliceState, reason: Option<String>) {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        if let Some(slice) = self.lanes.settle(key, now) {
            if state == SliceState::Dead {
                let (identifier, reason) = (&slice.identifier, reason.as_deref().unwrap_or_default());
                tracing::warn!(identifier, reason, "a slice of usage cannot be billed");
            } else {
                self.remarks.set(&key.business_id, "", None);
            }
            self.untold.push(moved(&slice, state, wall, reason));
        }
    }

    /// What a price is billed by.
    pub(super) fn metered(&mut self, price: (String, String), answer: Result<Meter, CallError>) {
        let now = self.clock.monotonic();
        self.under_way = self.under_way.saturating_sub(1);
        let (known, remark) = match answer {
            Ok(meter) => match meter.unfit() {
                None => (Price::Known(meter, now), None),
                Some(why) => (Price::Not(now + METER_PAUSE), Some(why.to_owned())),
            },
            Err(CallError::Refused { reason, .. }) => (Price::Not(now + METER_PAUSE), Some(reason)),
            Err(CallError::Again { after, reason }) => {
                let pause = after.unwrap_or_default().max(jitter(LOOK_AGAIN * 2));
                (Price::Not(now + pause), Some(reason))
            }
        };
        if let Price::Known(..) = known {
            self.lanes.release(&price.0, &price.1, now);
        }
        self.remarks.set(&price.0, &price.1, remark);
        self.meters.insert(price, known);
    }
}

pub(super) fn moved(slice: &Slice, state: SliceState, at: Micros, reason: Option<String>) -> SliceMove {
    SliceMove { identifier: slice.identifier.clone(), state, at, reason }
}

/// The minute that a slice is dated in: what the biller tells apart.
pub(super) fn minute(slice: &Slice) -> (Micros, Micros) {
    let from = slice.dated_at.0.div_euclid(MINUTE_MICROS) * MINUTE_MICROS;
    (Micros(from), Micros(from + MINUTE_MICROS))
}
