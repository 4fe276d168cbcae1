//! The workload: made before the clock starts, the same for all contestants.

use std::fmt;

use dataflows::types::{
    Action, Amount, Limit, LimitSource, MetricType, Micros, Notify, Operation, Operator, Shape, Span,
};

/// Updates in an epoch.
pub const EPOCH: usize = 65_536;
/// Where the hour begins: a whole hour.
pub const BEGAN_AT_SECS: i64 = 1_795_521_600;
/// How long it lasts.
const HOUR_MILLIS: u64 = 3_600_000;
/// One update in this many is late, by one to six minutes.
const LATE_ONE_IN: u64 = 100;

/// The size of the bench.
pub struct Settings {
    pub updates: usize,
    pub series: u32,
    pub rounds: usize,
    /// Of benches that leave it open.
    pub workers: usize,
    /// Only the workloads whose name contains this.
    pub only: String,
}

impl Settings {
    /// What the issue asks for, unless `name=value` says otherwise.
    pub fn from_arguments() -> Settings {
        let mut settings =
            Settings { updates: 20_000_000, series: 1_000_000, rounds: 5, workers: 2, only: String::new() };
        for argument in std::env::args().skip(1) {
            let Some((name, value)) = argument.split_once('=') else { continue };
            let number = || value.parse().expect("a number behind the equals sign");
            match name {
                "updates" => settings.updates = number(),
                "series" => settings.series = number() as u32,
                "rounds" => settings.rounds = number(),
                "workers" => settings.workers = number(),
                "only" => settings.only = value.to_string(),
                _ => println!("{name} is unknown"),
            }
        }
        settings
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { updates, series, rounds, .. } = self;
        write!(f, "{updates} updates, {series} series, epochs of {EPOCH}, 1 % late, medians of {rounds}")
    }
}

/// How updates are spread over series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The k-th most frequent has a share proportional to k^-1.05.
    Zipf,
    /// All alike.
    Uniform,
}

/// One update as it would come off the journal.
#[derive(Clone, Copy)]
pub struct Item {
    pub series: u32,
    /// Event time, from the beginning.
    pub event_millis: u32,
    pub amount_nanos: u64,
}

/// All updates, in order.
pub struct Input {
    pub items: Vec<Item>,
    pub series: u32,
}

impl Input {
    pub fn new(keys: Keys, settings: &Settings) -> Input {
        let mut random = Random(7);
        let spread = match keys {
            Keys::Zipf => Some(Alias::zipf(settings.series, 1.05, &mut random)),
            Keys::Uniform => None,
        };
        let item = |index: usize| {
            let arrival_millis = index as u64 * HOUR_MILLIS / settings.updates as u64;
            let late_millis = match random.below(LATE_ONE_IN) {
                0 => 60_000 + random.below(300_000),
                _ => 0,
            };
            Item {
                series: match &spread {
                    Some(alias) => alias.draw(&mut random),
                    None => random.below(u64::from(settings.series)) as u32,
                },
                event_millis: arrival_millis.saturating_sub(late_millis) as u32,
                amount_nanos: 1 + random.below(5_000_000_000),
            }
        };
        Input { items: (0..settings.updates).map(item).collect(), series: settings.series }
    }

    /// Arrival of an epoch: when the last of its updates has happened.
    pub fn stamp(&self, epoch: &[Item]) -> Micros {
        let last = epoch.iter().map(|item| item.event_millis).max().unwrap_or(0);
        Micros(BEGAN_AT_SECS * Micros::PER_SECOND + i64::from(last) * 1_000 + 999)
    }
}

/// The shapes, by name. Each window is due for the store when it ends: an hour of event time passes here in a second
/// or so, and at the default of 15s every update would be a row, as it never is in a service under load.
pub fn shapes() -> [(&'static str, Shape); 3] {
    let limit =
        Limit { value: Amount::from_units(1_000_000), operator: Operator::Gte, action: Action::Allow };
    let reset = Shape {
        operation: Operation::Sum,
        metric_type: MetricType::Reset,
        flush: Span::M1,
        reset: Span::M1,
        initial_value: Amount::ZERO,
        batch: Span::M1,
        stored: true,
        limit: Some(limit),
        limit_source: LimitSource::Series,
        notify: Notify::NONE,
        max_event_age_secs: 86_400,
        cleanup_after_days: None,
    };
    let checkpoint = Shape {
        metric_type: MetricType::Checkpoint,
        flush: Span::H1,
        reset: Span::H1,
        batch: Span::H1,
        ..reset
    };
    let watched = Shape { cleanup_after_days: Some(7), ..checkpoint };
    [("reset 1m", reset), ("checkpoint 1h", checkpoint), ("watched 1h", watched)]
}

/// splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators").
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Draws from a discrete distribution in constant time (Vose, "A Linear Algorithm For Generating Random Numbers With a
/// Given Distribution").
struct Alias {
    /// (probability of the column's own series, in 2^-32; own series; the other).
    columns: Vec<(u64, u32, u32)>,
}

impl Alias {
    fn zipf(series: u32, exponent: f64, random: &mut Random) -> Alias {
        let mut order: Vec<u32> = (0..series).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, random.below(index as u64 + 1) as usize);
        }
        let weights: Vec<f64> = (1..=series).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / total * f64::from(series)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..series as usize).partition(|&index| shares[index] < 1.0);
        let mut columns: Vec<_> = order.iter().map(|&series| (1 << 32, series, series)).collect();
        while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
            columns[less] = ((shares[less] * 4_294_967_296.0) as u64, order[less], order[more]);
            shares[more] -= 1.0 - shares[less];
            if shares[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Alias { columns }
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let (own_share, own, other) = self.columns[random.below(self.columns.len() as u64) as usize];
        if random.next() >> 32 < own_share { own } else { other }
    }
}
