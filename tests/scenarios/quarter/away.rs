//! A day without Stripe: nothing of it is felt but by what waits, and that goes out in order when the day is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::support::Random;
use super::super::support::api::flag;
use super::super::support::stripe::Fault;
use super::super::support::until;
use super::model::{FIRST, HOUR, MINUTE, SECOND};
use super::world::{ACCOUNT, LIMIT};
use super::{NANOS, Quarter};

/// How long an update may take in real time: nobody waits for Stripe, whose calls are given up after much longer.
const UPDATE_LIMIT: Duration = Duration::from_secs(3);
const HALVES: usize = 48;

/// Slices that wait, by identifier: customer and number.
type Outbox = BTreeMap<String, (&'static str, u64)>;

impl Quarter {
    /// Customers and metrics that are billed.
    fn names(&self) -> Vec<(usize, &'static str, &'static str)> {
        let series = self.model.series.iter().enumerate().filter(|(_, series)| series.price.is_some());
        series.map(|(index, series)| (index, series.customer, series.metric)).collect()
    }

    /// What waits; whole units of all usage are in slices by now, as far as slices of an open period may wait.
    fn outbox(&self) -> (Outbox, i128) {
        let (mut outbox, mut exported) = (Outbox::new(), 0);
        for (index, customer, metric) in self.names() {
            let series = &self.model.series[index];
            let wanted = series.usage(&series.periods[&FIRST]).div_euclid(series.scale);
            let is_cut = || {
                let billed = self.world.billed_of(customer, metric);
                let is_full = billed.slices.len() >= 24;
                let units = billed.periods.first().map_or(0, |period| period.units());
                if units == wanted || is_full { Ok(billed) } else { Err((units, wanted)) }
            };
            let billed = until(LIMIT, is_cut)
                .unwrap_or_else(|(units, wanted)| panic!("{customer} {metric}: {units}, not {wanted} units"));
            exported += billed.periods.iter().map(|period| period.exported).sum::<i128>();
            outbox.extend(billed.slices.into_iter().map(|slice| {
                assert!(slice.state != "dead" && slice.quantity > 0, "{slice:?}");
                (slice.identifier, (customer, slice.number))
            }));
        }
        (outbox, exported)
    }

    /// Usage of every series, which nobody may notice Stripe by, and a limit that holds.
    fn use_all(&mut self) {
        for (index, ..) in self.names() {
            let begun = Instant::now();
            let nanos = NANOS + self.random.below(3 * NANOS as usize) as i128;
            self.add_some(index, nanos, None);
            assert!(begun.elapsed() < UPDATE_LIMIT, "an update took {:?}", begun.elapsed());
        }
        let seats = self.model.series.iter().position(|series| series.limit.is_some()).expect("there is one");
        self.use_seats(seats);
        let may = self.model.series[seats].allows(self.now(), NANOS);
        let question = json!({"metric_name": "seats", "customer_id": "one", "value": 1}).to_string();
        let answer = self.world.client().post("/api/v1/check", &question).body();
        assert_eq!(flag(&answer, "allowed"), may, "{answer}");
    }
}

#[test]
fn a_day_without_stripe_is_felt_by_nobody_and_goes_out_in_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut quarter = Quarter::begin(folder.path(), Random::seeded("away"));
    let mark = |quarter: &Quarter| (quarter.now().div_euclid(HOUR) + 1) * HOUR + SECOND;
    quarter.use_all();
    let at = mark(&quarter);
    quarter.pass(at);
    until(LIMIT, || if quarter.outbox().0.is_empty() { Ok(()) } else { Err(()) }).expect("Stripe is there");
    let (sent, all) = (quarter.outbox().1, |quarter: &Quarter| quarter.world.stripe.events(ACCOUNT));
    let before = all(&quarter).len();

    let (mut outbox, mut waited, begun_at) = (Outbox::new(), 0, quarter.now());
    quarter.world.stripe.outage(Some(Fault::DropBefore));
    for half in 0..HALVES {
        quarter.use_all();
        if half == HALVES / 2 {
            quarter.world.stripe.outage(Some(Fault::FailBefore(500)));
        }
        if half % 11 == 10 {
            quarter.world.kill(0);
        }
        let at = if half % 2 == 0 { quarter.now() + 29 * MINUTE } else { mark(&quarter) };
        quarter.pass(at);
        if half % 2 == 1 {
            let (waiting, exported) = quarter.outbox();
            assert!(waiting.len() >= waited, "{} slices wait, {waited} did", waiting.len());
            assert_eq!(exported, sent, "nothing can have been sent");
            waited = waiting.len();
            outbox.extend(waiting);
        }
    }
    assert!(quarter.now() - begun_at >= 24 * HOUR - MINUTE, "a day is over");
    assert!(waited > quarter.names().len() * 10, "{waited} slices wait");
    assert_eq!(all(&quarter).len(), before);
    assert!(quarter.refused > 0, "the limit was never reached");
    let ready = quarter.world.client().get("/readyz").body();
    println!("{waited} slices wait; {ready}");

    quarter.world.stripe.outage(None);
    let is_sent = |quarter: &Quarter| {
        let mut names = quarter.names().into_iter();
        names.all(|(_, customer, metric)| quarter.world.billed_of(customer, metric).slices.is_empty())
    };
    for _ in 0..120 {
        if is_sent(&quarter) {
            break;
        }
        let now = quarter.now();
        quarter.pass(now + MINUTE);
        std::thread::sleep(Duration::from_millis(30));
    }
    assert!(is_sent(&quarter), "something still waits");
    let events = all(&quarter).split_off(before);
    let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
    for event in &events {
        assert_eq!(quarter.world.stripe.times(ACCOUNT, &event.identifier), 1, "{event:?}");
        let Some((customer, number)) = outbox.remove(&event.identifier) else { continue };
        assert_eq!(event.customer, format!("cus_{customer}"));
        let lane = (event.customer.clone(), event.event_name.clone());
        let before = last.insert(lane, number);
        assert!(before.is_none_or(|before| before < number), "{before:?} before {number}: {event:?}");
    }
    assert!(outbox.is_empty(), "never sent: {outbox:?}");
    // The hour behind it has the rest, which did not fit into slices that waited.
    quarter.use_all();
    let at = mark(&quarter);
    quarter.pass(at);
    let is_all_sent = || if quarter.outbox().0.is_empty() { Ok(()) } else { Err(()) };
    until(LIMIT, is_all_sent).expect("the rest is sent");
    for (index, customer, metric) in quarter.names() {
        let series = &quarter.model.series[index];
        let units = series.usage(&series.periods[&FIRST]).div_euclid(series.scale);
        let billed = quarter.world.billed_of(customer, metric);
        assert_eq!(quarter.stripe_total(series, 0, i64::MAX), units, "{customer} {metric}");
        assert_eq!(billed.periods.iter().map(|period| period.exported).sum::<i128>(), units);
    }
}
