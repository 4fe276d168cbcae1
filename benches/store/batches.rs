//! Batches as the history sink sends them, and what they take.

use std::time::{Duration, Instant};

use dataflows::types::{
    Amount, Definition, Epoch, LiveState, Micros, Row, RowKind, SeriesId, SeriesKey, SeriesRecord,
    SeriesSpec, Span, Tally,
};
use tracktags::store::{ALL_SERIES, Part, PartRows, Store, StoreError};

pub const SERIES: u32 = 100_000;
pub const PART_ROWS: usize = 50_000;
pub const ROUNDS: u64 = 5;
const T0: i64 = 1_795_500_000;

/// The embedded store works on the caller's thread: only there `busy` says something.
#[allow(dead_code)]
pub struct Taken {
    pub wall: Duration,
    pub busy: Duration,
}

pub struct Begun(Instant, Duration);

impl Begun {
    pub fn now() -> Begun {
        Begun(Instant::now(), busy())
    }

    pub fn elapsed(&self) -> Taken {
        Taken { wall: self.0.elapsed(), busy: busy() - self.1 }
    }
}

/// Time of this thread on a processor so far.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// Commits one batch as the sink does; gives the time taken.
pub fn batch(store: &mut dyn Store, upper: Epoch, rows: Vec<Row>, states: u32) -> Result<Taken, StoreError> {
    let states: Vec<LiveState> = rows
        .iter()
        .take(states as usize)
        .map(|row| LiveState { series: row.series, period_start: None, tally: row.tally, value: row.value })
        .collect();
    let begun = Begun::now();
    for (index, part) in rows.chunks(PART_ROWS).enumerate() {
        let first = index * PART_ROWS;
        let last = first + part.len() == rows.len();
        let rows = PartRows {
            class: Span::S15,
            upper,
            flushed_at: Micros::from_seconds(T0 + upper as i64),
            rows: part,
            states: states.get(first..first + part.len()).unwrap_or_default(),
            cleaned: &[],
            through: if last { ALL_SERIES } else { part[part.len() - 1].series },
        };
        store.commit(&Part { journal_id: "bench", definitions: &[], rows: Some(rows) })?;
    }
    Ok(begun.elapsed())
}

pub fn rows(window: i64, turn: i64, kind: RowKind) -> Vec<Row> {
    let start = T0 + window * 60;
    let row = |series: u32| {
        let units = i64::from(series) * 37 % 1_000 + turn;
        let tally = Tally {
            sum: Amount(i128::from(units) * 12_345_678_900),
            count: units as u64 + 1,
            min: Amount(500_000_000),
            max: Amount::from_units(units),
        };
        let (window_start, window_end) = (Micros::from_seconds(start), Micros::from_seconds(start + 60));
        Row { series: SeriesId(series), window_start, window_end, tally, value: tally.sum, kind }
    };
    (0..SERIES).map(row).collect()
}

/// Defines all series.
pub fn define(store: &mut dyn Store) -> Result<Taken, StoreError> {
    let begun = Begun::now();
    for (index, first) in (0..SERIES).step_by(PART_ROWS).enumerate() {
        let epoch = index as Epoch + 1;
        let part: Vec<_> =
            (first..first + PART_ROWS as u32).map(|series| (epoch, definition(series))).collect();
        store.commit(&Part { journal_id: "bench", definitions: &part, rows: None })?;
    }
    Ok(begun.elapsed())
}

fn definition(series: u32) -> Definition {
    let key = SeriesKey {
        business_id: format!("biz_{}", series % 100),
        customer_id: Some(format!("cust_{}", series / 4)),
        metric_name: ["api_calls", "storage_bytes", "seats", "requests_per_minute"][series as usize % 4]
            .into(),
    };
    let spec = SeriesSpec { flush_interval: Span::M1, ..SeriesSpec::default() };
    let created_at = Micros::from_seconds(T0);
    Definition::SeriesCreated(SeriesRecord { series: SeriesId(series), key, spec, created_at })
}
