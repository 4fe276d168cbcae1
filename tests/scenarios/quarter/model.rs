//! What must come out, told from the specs alone (semantics section 4, Stripe): every series with the moments that end its
//! billing periods and what was accepted between them. In: what happened, as it happened. Nothing of the product is called.

use std::collections::BTreeMap;

use super::schedule::{Told, What};

pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// How far ahead of its arrival an event may be: so long before a known end usage is told apart by it.
pub const AHEAD: i64 = 5 * MINUTE;
/// How late an event may be.
pub const LATE: i64 = DAY;
/// How long an invoice takes late usage.
pub const DRAFT: i64 = HOUR;
/// Where the first period of a series begins.
pub const FIRST: i64 = i64::MIN;

/// A billing period. Its key is its first moment, its end the key of the next one.
#[derive(Clone, Debug, Default)]
pub struct Period {
    /// Sum of what was accepted, in nano-units.
    pub sum: i128,
    /// How many updates that were.
    pub count: i64,
    /// Whether its end was known before it passed.
    pub is_known: bool,
    /// What its invoice must say, in units: what had been accepted when its last slice was cut in time.
    pub settled: Option<i128>,
}

/// A series that is billed, or limited in its billing period.
#[derive(Debug)]
pub struct Series {
    pub customer: &'static str,
    pub metric: &'static str,
    pub price: Option<&'static str>,
    /// Nano-units of one unit.
    pub scale: i128,
    pub counts: bool,
    /// No update may bring a period's sum above this.
    pub limit: Option<i128>,
    /// By their first moment.
    pub periods: BTreeMap<i64, Period>,
    /// What was accepted: event times and amounts.
    pub updates: Vec<(i64, i128)>,
    /// The end that is known and has not been cut.
    upcoming: Option<i64>,
    /// The last boundary of Stripe's at which a period has ended.
    last_end: i64,
    /// The last known end that was cut, or was past when it became known.
    settled: i64,
}

/// A subscription as the last event about it says.
struct Known {
    said_at: i64,
    price: &'static str,
    customer: &'static str,
}

#[derive(Default)]
pub struct Model {
    pub series: Vec<Series>,
    subscriptions: BTreeMap<&'static str, Known>,
    /// Ids of events that were read.
    read: Vec<String>,
}

/// What an event must have done.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// It was read before.
    Again,
    /// An invoice that ended so many periods.
    Ended(usize),
    /// Something else.
    Other,
}

impl Series {
    pub fn new(
        customer: &'static str,
        metric: &'static str,
        price: Option<&'static str>,
        scale: i128,
    ) -> Series {
        Series {
            customer,
            metric,
            price,
            scale,
            counts: false,
            limit: None,
            periods: BTreeMap::from([(FIRST, Period::default())]),
            updates: Vec::new(),
            upcoming: None,
            last_end: i64::MIN,
            settled: i64::MIN,
        }
    }

    pub fn counting(self) -> Series {
        Series { counts: true, ..self }
    }

    pub fn limited(self, limit: i128) -> Series {
        Series { limit: Some(limit), ..self }
    }

    /// The period that an event of that time belongs to if it is accepted now: its first moment.
    pub fn period_at(&self, at: i64) -> i64 {
        *self.periods.range(..=at).next_back().expect("the first begins before everything").0
    }

    pub fn end_of(&self, start: i64) -> Option<i64> {
        self.periods.range(start + 1..).next().map(|(end, _)| *end)
    }

    /// First moment and end of each period, with what it has.
    pub fn all(&self) -> impl Iterator<Item = (i64, Option<i64>, &Period)> {
        self.periods.iter().map(|(start, period)| (*start, self.end_of(*start), period))
    }

    /// Accepts an update.
    pub fn add(&mut self, at: i64, amount: i128) {
        let start = self.period_at(at);
        let period = self.periods.get_mut(&start).expect("it is there");
        period.sum += amount;
        period.count += 1;
        self.updates.push((at, amount));
    }

    /// What a period bills, in nano-units, before anything is carried.
    pub fn usage(&self, period: &Period) -> i128 {
        if self.counts { i128::from(period.count) * 1_000_000_000 } else { period.sum }
    }

    /// Whether an update of now may be recorded.
    pub fn allows(&self, now: i64, amount: i128) -> bool {
        self.limit.is_none_or(|limit| self.periods[&self.period_at(now)].sum + amount <= limit)
    }

    fn cut(&mut self, at: i64, is_known: bool) {
        let before = self.period_at(at);
        if self.periods.contains_key(&at) {
            return;
        }
        self.periods.insert(at, Period::default());
        self.periods.get_mut(&before).expect("it is there").is_known = is_known;
    }

    fn told(&mut self, boundary: i64, now: i64) {
        self.cut(now, false);
        self.last_end = self.last_end.max(boundary);
    }

    fn pass(&mut self, now: i64) {
        let Some(end) = self.upcoming.filter(|end| end - AHEAD <= now) else { return };
        self.upcoming = None;
        self.settled = end;
        if self.last_end < end {
            self.cut(end, true);
            self.last_end = end;
        }
    }
}

impl Model {
    pub fn of(series: Vec<Series>) -> Model {
        Model { series, ..Model::default() }
    }

    /// It is that time now.
    pub fn pass(&mut self, now: i64) {
        self.series.iter_mut().for_each(|series| series.pass(now));
    }

    /// The subscription that a series follows: none of the test's customers has two with one price.
    fn followed(&self, series: &Series) -> Option<&'static str> {
        let is_it = |known: &Known| {
            known.customer == series.customer && series.price.is_none_or(|price| price == known.price)
        };
        self.subscriptions.iter().find(|(_, known)| is_it(known)).map(|(id, _)| *id)
    }

    /// An event was read for the first time, or once more. `applied` is what the answer says: where a subscription's making
    /// comes behind a change of it, that alone tells whether a period has begun.
    pub fn read(&mut self, told: &Told, now: i64, applied: bool) -> Done {
        if self.read.contains(&told.id) {
            return Done::Again;
        }
        self.read.push(told.id.clone());
        match told.what {
            What::Subscription { id, price, start, end, is_new } => {
                let known = Known { said_at: told.at, price, customer: told.customer };
                let is_overtaken = self.subscriptions.get(id).is_some_and(|known| known.said_at > told.at);
                if !is_overtaken {
                    self.subscriptions.insert(id, known);
                }
                for index in 0..self.series.len() {
                    if self.series[index].customer != told.customer
                        || self.followed(&self.series[index]) != Some(id)
                    {
                        continue;
                    }
                    let series = &mut self.series[index];
                    if !is_overtaken && end > series.settled {
                        // Time counts in whole seconds.
                        let is_ahead = end > now.div_euclid(SECOND) * SECOND;
                        series.upcoming = is_ahead.then_some(end);
                        if !is_ahead {
                            series.settled = end;
                        }
                    }
                    if is_new && (!is_overtaken || applied) && series.last_end < start {
                        series.told(start, now);
                    }
                }
                self.pass(now);
                Done::Other
            }
            What::Invoice { id, boundary } => {
                let mut ended = 0;
                for index in 0..self.series.len() {
                    let series = &self.series[index];
                    let followed = self.followed(series);
                    // One of a subscription that nobody told ends all that follows none.
                    let is_its = match followed {
                        Some(followed) => followed == id,
                        None => !self.subscriptions.contains_key(id),
                    };
                    let is_known = series.last_end >= boundary || series.upcoming == Some(boundary);
                    if series.customer == told.customer && is_its && !is_known {
                        self.series[index].told(boundary, now);
                        ended += 1;
                    }
                }
                Done::Ended(ended)
            }
        }
    }
}
