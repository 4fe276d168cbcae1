//! A client that knows what every answer must be: between two batches its model is exact. A batch whose outcome is unknown is
//! written anew, with the same identities, and sent until it is definite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

use dataflows::types::Amount;
use serde_json::Value;
use serde_json::value::RawValue;

use super::written::{self, Format, Identity, Item, Series};
use super::{MADE, OWN};
use crate::support::Random;

/// Batches that may be sent again.
const KEPT: usize = 12;
/// Customers of each business.
const CUSTOMERS: usize = 12;
/// What the places of an answer's counts say of an item.
const ACCEPTED: usize = 0;
const DUPLICATE: usize = 1;
const REJECTED: usize = 3;

/// Items that are sent together.
#[derive(Clone)]
struct Batch {
    items: Vec<Item>,
    are_events: bool,
    key: Option<String>,
}

/// See the header.
pub struct Sender {
    /// Of its business.
    key: String,
    number: usize,
    random: Random,
    kept: Vec<Batch>,
    /// What has counted.
    identities: BTreeSet<(Series, Identity)>,
    series: BTreeMap<Series, (Amount, u64)>,
    pub batches: usize,
    pub items: usize,
    pub unknown: usize,
}

/// By key of a business and series: sum and count.
pub fn expected(senders: &[Sender]) -> BTreeMap<String, BTreeMap<Series, (Amount, u64)>> {
    let mut expected: BTreeMap<String, BTreeMap<Series, (Amount, u64)>> = BTreeMap::new();
    for sender in senders {
        let all = expected.entry(sender.key.clone()).or_default();
        for (series, (sum, count)) in &sender.series {
            let (sums, counts) = all.entry(series.clone()).or_insert((Amount::ZERO, 0));
            (sums.0, *counts) = (sums.0 + sum.0, *counts + count);
        }
    }
    expected
}

/// A number of an answer as it is written there.
pub fn number(body: &str, name: &str) -> String {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(body).expect("JSON");
    members[name].get().to_owned()
}

impl Sender {
    pub fn new(key: String, number: usize, random: Random) -> Self {
        let (kept, identities, series) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        Sender { key, number, random, kept, identities, series, batches: 0, items: 0, unknown: 0 }
    }

    /// Sends batches until it is over.
    pub fn work(&mut self, base: &Mutex<String>, is_over: &Mutex<bool>) {
        while !*is_over.lock().expect("no panic") {
            let again = !self.kept.is_empty() && self.random.one_in(6);
            let batch = if again { self.chosen() } else { self.next() };
            self.deliver(&batch, || base.lock().expect("no panic").clone());
            if self.kept.len() < KEPT {
                self.kept.push(batch);
            } else {
                let place = self.random.below(KEPT);
                self.kept[place] = batch;
            }
        }
    }

    /// Sends again what has been sent.
    pub fn repeat(&mut self, base: &str) {
        let before = self.identities.len();
        for batch in self.kept.clone() {
            self.deliver(&batch, || base.to_owned());
        }
        assert_eq!(self.identities.len(), before, "all of them had counted");
    }

    fn chosen(&mut self) -> Batch {
        self.kept[self.random.below(self.kept.len())].clone()
    }

    /// A batch that was not sent before, though some of its items may have been.
    fn next(&mut self) -> Batch {
        self.batches += 1;
        let are_events = self.random.one_in(3);
        let key = self.random.one_in(3).then(|| format!("k-{}-{}", self.number, self.batches));
        let length = match self.random.below(20) {
            0 => 4_000 + self.random.below(6_000),
            1..=5 => 1,
            _ => 1 + self.random.below(60),
        };
        let items = (0..length).map(|place| self.item(place, are_events, key.as_deref())).collect();
        Batch { items, are_events, key }
    }

    fn item(&mut self, place: usize, are_events: bool, key: Option<&str>) -> Item {
        let series = match self.random.below(40) {
            0 => ("absent".to_owned(), None),
            1..=15 => (OWN[self.random.below(OWN.len())].to_owned(), None),
            _ => (MADE.to_owned(), Some(format!("c{}", self.random.below(CUSTOMERS)))),
        };
        // One of few numbers now and then, so that it is a repeat of one in this or another batch.
        let number = match self.random.one_in(8) {
            true => format!("{}-{}", self.number, self.random.below(200)),
            false => format!("{}-{}-{place}", self.number, self.batches),
        };
        let identity = match (are_events, key) {
            (true, _) => Identity::Event(format!("/s/{}", self.random.below(2)), number),
            (false, Some(key)) if self.random.one_in(2) => Identity::Place(key.to_owned(), place),
            (false, _) => Identity::Plain(number),
        };
        let timestamp = self.random.one_in(5).then(|| {
            let ago = jiff::SignedDuration::from_secs(self.random.below(600) as i64);
            (jiff::Timestamp::now() - ago).to_string()
        });
        let amount = Amount(self.random.below(2_000_000_000_000) as i128 - 500_000_000_000);
        Item { series, amount, timestamp, identity }
    }

    /// Sends until the outcome is definite, and checks the answer.
    fn deliver(&mut self, batch: &Batch, base: impl Fn() -> String) {
        let predicted = self.predict(batch);
        let mut perhaps = false;
        loop {
            let (format, written) = written::write(&batch.items, batch.are_events, &mut self.random);
            let mut headers = written.headers;
            headers.push(format!("authorization: Bearer {}", self.key));
            headers.extend(batch.key.iter().map(|key| format!("idempotency-key: \"{key}\"")));
            match written::send(&base(), &headers, &written.body, &mut self.random) {
                Some((status @ (200 | 204 | 404), json)) => {
                    check(format, status, &json, predicted, perhaps);
                    break;
                }
                Some((503, json)) if json["outcome"] == "rejected" => {}
                Some((500..=599, _)) | None => {
                    (perhaps, self.unknown) = (true, self.unknown + 1);
                }
                Some((status, json)) => panic!("{format:?}: {status} {json}"),
            }
            sleep(Duration::from_millis(10));
        }
        self.items += batch.items.len();
    }

    /// The counts of the answer; from now on what is new has counted.
    fn predict(&mut self, batch: &Batch) -> [u64; 4] {
        let mut counts = [0; 4];
        for item in &batch.items {
            if item.series.0 == "absent" {
                counts[REJECTED] += 1;
            } else if self.identities.insert((item.series.clone(), item.identity.clone())) {
                counts[ACCEPTED] += 1;
                let (sum, count) = self.series.entry(item.series.clone()).or_insert((Amount::ZERO, 0));
                (sum.0, *count) = (sum.0 + item.amount.0, *count + 1);
            } else {
                counts[DUPLICATE] += 1;
            }
        }
        counts
    }
}

/// `perhaps`: whether some of it may have counted before.
fn check(format: Format, status: u16, json: &Value, predicted: [u64; 4], perhaps: bool) {
    if matches!(format, Format::Event | Format::Binary) {
        let expected = if predicted[REJECTED] > 0 { 404 } else { 204 };
        assert_eq!(status, expected, "{format:?}: {json}");
        return;
    }
    assert_eq!(status, 200, "{format:?}: {json}");
    let mut counts = ["accepted", "duplicates", "refused", "rejected"]
        .map(|name| json[name].as_u64().unwrap_or_else(|| panic!("{name}: {json}")));
    if perhaps {
        let counted_before = predicted[ACCEPTED].checked_sub(counts[ACCEPTED]);
        let counted_before = counted_before.unwrap_or_else(|| panic!("{predicted:?}: {json}"));
        counts[ACCEPTED] += counted_before;
        counts[DUPLICATE] = counts[DUPLICATE].checked_sub(counted_before).expect("each is counted");
    }
    assert_eq!(counts, predicted, "{format:?}: {json}");
}
