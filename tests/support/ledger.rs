//! What one client knows of its series: the updates that were acknowledged, each exactly once. That is the model; the
//! engine and the store must agree with it.
//!
//! The k-th update of an audit series is 4^k, so every base-4 digit of its sum says how often that update was counted.

use dataflows::types::{Amount, Operation, Reading, Tally};

use super::Random;
use super::history::{Name, Stored};

/// Updates of one audit series: 4^24 is below the greatest amount.
pub const DIGITS: usize = 25;
/// How many acknowledged updates of a series are kept to be sent again.
const REPEATS_MAX: usize = 64;

/// What a series is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SUM, one power of four after another.
    Audit,
    /// Any amounts, some of them with an event time in the past.
    Mixed(Operation),
}

/// How an update is made recognisable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `Idempotency-Key` header.
    Key(String),
    /// `id` in the body.
    Event(String),
}

/// One update on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The amount.
    pub amount: Amount,
    /// Its identity.
    pub identity: Identity,
    /// The body as it is sent, each time.
    pub body: String,
}

/// One series.
#[derive(Clone, Debug)]
pub struct Track {
    /// Metric name.
    pub name: String,
    /// Whether it belongs to `cust_123`.
    pub of_customer: bool,
    /// What it is for.
    pub kind: Kind,
    /// `batch_interval`.
    pub batch: &'static str,
    /// Whether its creation was acknowledged.
    pub created: bool,
    /// Of the acknowledged updates.
    pub tally: Tally,
    /// Acknowledged updates that may be sent again.
    pub repeats: Vec<Update>,
}

impl Track {
    /// The query that names the scope.
    pub fn query(&self) -> &'static str {
        if self.of_customer { "?scope=customer&customer_id=cust_123" } else { "" }
    }

    /// The resource.
    pub fn path(&self) -> String {
        format!("/api/v1/metrics/{}{}", self.name, self.query())
    }

    fn operation(&self) -> Operation {
        match self.kind {
            Kind::Audit => Operation::Sum,
            Kind::Mixed(operation) => operation,
        }
    }

    /// The body that creates it.
    pub fn definition(&self) -> String {
        let operation = match self.operation() {
            Operation::Sum => "SUM",
            Operation::Count => "COUNT",
            Operation::Avg => "AVG",
            Operation::Max => "MAX",
            Operation::Min => "MIN",
        };
        let flush = if self.kind == Kind::Audit { "5s" } else { "1s" };
        let (name, batch) = (&self.name, self.batch);
        format!(
            r#"{{"metric_name": "{name}", "operation": "{operation}", "flush_interval": "{flush}",
                "metadata": {{"integrations": {{"supabase": {{"batch_interval": "{batch}"}}}}}}}}"#
        )
    }

    /// Whether an audit series has had all its updates.
    pub fn is_full(&self) -> bool {
        self.kind == Kind::Audit && self.tally.count as usize == DIGITS
    }

    /// The next update; `number` is unique in the run.
    pub fn next_update(&self, number: usize, random: &mut Random) -> Update {
        let identity = match random.below(3) {
            0 => Identity::Event(format!("e-{number}-{}", self.name)),
            _ => Identity::Key(format!("k-{number}-{}", self.name)),
        };
        let amount = match self.kind {
            Kind::Audit => Amount::from_units(1 << (2 * self.tally.count)),
            Kind::Mixed(_) => Amount(random.below(2_000_000_000_000) as i128 - 500_000_000_000),
        };
        let mut body = format!(r#"{{"value": {amount}"#);
        if let Identity::Event(id) = &identity {
            body.push_str(&format!(r#", "id": "{id}""#));
        }
        if matches!(self.kind, Kind::Mixed(_)) && random.one_in(10) {
            let ago = jiff::SignedDuration::from_secs(random.below(40) as i64);
            body.push_str(&format!(r#", "timestamp": "{}""#, jiff::Timestamp::now() - ago));
        }
        body.push('}');
        Update { amount, identity, body }
    }

    /// An update has been acknowledged for the first time.
    pub fn acknowledge(&mut self, update: Update, random: &mut Random) {
        self.tally = self.tally.merge(Tally::of(update.amount));
        if self.repeats.len() < REPEATS_MAX {
            self.repeats.push(update);
        } else {
            self.repeats[random.below(REPEATS_MAX)] = update;
        }
    }

    /// What a reader must see.
    pub fn value(&self) -> Amount {
        Reading { operation: self.operation(), initial_value: Amount::ZERO }.value(&self.tally)
    }

    /// Compares an answer's value, and its count if it has one, with the model.
    pub fn judge(&self, who: &str, value: Option<Amount>, count: Option<u64>) -> Option<String> {
        let same = value == Some(self.value()) && count.is_none_or(|count| count == self.tally.count);
        let finding = || {
            let (name, expected, updates) = (&self.name, self.value(), self.tally.count);
            let value = value.map_or("nothing".to_owned(), |value| value.to_string());
            let counts = format!("count {count:?} instead of {updates}");
            let digits = if self.kind == Kind::Audit { self.miscounted(&value) } else { String::new() };
            format!("{name}: {who} has {value} instead of {expected}, {counts}{digits}")
        };
        (!same).then(finding)
    }

    /// Compares the store's rows with the model.
    pub fn judge_stored(&self, stored: Option<&Stored>) -> Option<String> {
        let Some(stored) = stored else {
            return (self.tally.count > 0).then(|| format!("{}: no row in the store", self.name));
        };
        // A late update may be a merge row, which leaves the values of other rows alone.
        if self.kind == Kind::Audit && stored.newest_value != self.value() {
            let (name, newest, expected) = (&self.name, stored.newest_value, self.value());
            return Some(format!("{name}: the newest row's value is {newest} instead of {expected}"));
        }
        let same = stored.tally == self.tally;
        (!same).then(|| {
            let sum = stored.tally.sum.to_string();
            let digits = if self.kind == Kind::Audit { self.miscounted(&sum) } else { String::new() };
            format!(
                "{}: the rows add up to {:?} instead of {:?}{digits}",
                self.name, stored.tally, self.tally
            )
        })
    }

    /// The name that its rows carry.
    pub fn stored_name(&self) -> Name {
        (self.of_customer.then(|| "cust_123".to_owned()), self.name.clone())
    }

    /// Which updates of an audit series were not counted exactly once, from the digits of its sum.
    fn miscounted(&self, sum: &str) -> String {
        let Ok(mut rest) = sum.trim_end_matches(".0").parse::<u64>() else { return String::new() };
        let mut said = String::new();
        for update in 0..DIGITS {
            let (times, expected) = (rest % 4, u64::from(update < self.tally.count as usize));
            if times != expected {
                said.push_str(&format!("; update {update} counted {times} times instead of {expected}"));
            }
            rest /= 4;
        }
        said
    }
}
