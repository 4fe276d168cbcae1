//! `GET /api/v1/metrics/{metric_name}/history`: flush windows, newest first; the store with memory laid over it.
//!
//! | where a window is | its point |
//! |---|---|
//! | store only | the row |
//! | memory (resident) | memory's, which is absolute; `flushed_at` only if the row says exactly the same |
//! | store, and a difference waits in memory | the row with the difference merged in (semantics section 4), `flushed_at` null |
//! | a difference only | a point of its own, as the sink will insert it |
//! | store, and a cleanup that has yet to delete it waits in memory | none |
//!
//! A difference must not be added to a row that holds it already. Memory is asked between two looks at the progress of
//! the series' class in the store: unless that has moved, what waits in memory is not in the store. A cursor is the
//! start of the last window given, in microseconds.

use std::collections::BTreeMap;

use dataflows::types::{Amount, MergeState, Micros, Reading, SeriesState, Tally, WindowState};
use hyper::StatusCode;

use super::auth::{absent, series_key};
use super::error::{ApiError, Outcome};
use super::query::{LIMIT_DEFAULT, LIMIT_MAX, Query};
use super::reply::{Json, Reply};
use super::{Call, Rooms};
use crate::admission::parse::names::{SCOPES, word};
use crate::admission::parse::{Fault, names};
use crate::control::SeriesHandle;
use crate::store::{History, HistoryPage, HistoryQuery, HistoryRow, StoreError};

/// How often a page is read anew because the store moved on meanwhile; then the last reading must do.
const ATTEMPTS: usize = 4;

/// Which points a request asks for.
#[derive(Clone, Copy)]
struct Range {
    start: Option<Micros>,
    end: Option<Micros>,
    before: Option<Micros>,
    limit: usize,
}

impl Range {
    fn parse(query: &Query) -> Result<Self, Fault> {
        let moment = |name| query.get(name).map(|text| names::moment(name, text)).transpose();
        let before = query.get("cursor").map(|text| {
            let fault = || {
                Fault::malformed("cursor", "invalid_cursor", "the cursor is not one that this service gave")
            };
            text.parse().map(Micros).map_err(|_| fault())
        });
        let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
        Ok(Range { start: moment("start")?, end: moment("end")?, before: before.transpose()?, limit })
    }

    /// `start` is inclusive, `end` and the cursor are not.
    fn contains(&self, at: Micros) -> bool {
        self.start.is_none_or(|start| start <= at)
            && self.end.is_none_or(|end| at < end)
            && self.before.is_none_or(|before| at < before)
    }
}

/// `GET /api/v1/metrics/{metric_name}/history`.
pub(super) async fn history(rooms: &Rooms, call: &Call<'_>) -> Result<Reply, ApiError> {
    let key = series_key(call.caller(), &call.query, call.metric_name())?;
    let range = Range::parse(&call.query)?;
    let handle = rooms.control.resolve(&key).ok_or_else(|| absent(&rooms.control, &key))?;
    let (state, page) = consistent(rooms, &handle, &range).await?;
    let mut points = merged(&state, page, &range);
    let more = points.len() > range.limit;
    points.truncate(range.limit);
    let next_cursor = points.last().filter(|_| more).map(|point| point.window_start.0.to_string());
    let shown: Vec<Json> = points.iter().map(show).collect();
    let json = Json::object()
        .set("metric_name", &key.metric_name)
        .set("business_id", &key.business_id)
        .set_some("customer_id", key.customer_id.as_deref())
        .set("scope", word(&SCOPES, &key.scope()))
        .set("points", &shown[..])
        .set("count", shown.len() as u64)
        .set("next_cursor", next_cursor);
    Ok(Reply::json(StatusCode::OK, json))
}

/// Memory, and a page of the store that holds none of the differences, and of what is behind the cleanup, that wait in it.
async fn consistent(
    rooms: &Rooms,
    handle: &SeriesHandle,
    range: &Range,
) -> Result<(SeriesState, HistoryPage), ApiError> {
    let mut state = rooms.admission.windows(handle).await?.state;
    let mut page = stored(rooms, handle, range).await?;
    for _ in 1..ATTEMPTS {
        if state.merges.is_empty() && state.cleanup.is_none() {
            break;
        }
        let progress = page.progress;
        state = rooms.admission.windows(handle).await?.state;
        page = stored(rooms, handle, range).await?;
        if page.progress == progress {
            break;
        }
    }
    Ok((state, page))
}

async fn stored(rooms: &Rooms, handle: &SeriesHandle, range: &Range) -> Result<HistoryPage, ApiError> {
    let query = HistoryQuery {
        series: handle.series,
        start: range.start,
        end: range.end,
        before: range.before,
        // One more than wanted tells whether there is another page.
        limit: range.limit + 1,
    };
    let class = handle.record.spec.batch_interval;
    from_store(rooms, move |history| history.rows(&query, class)).await
}

/// What the store says. 503 if it does not answer.
pub(super) async fn from_store<T: Send + 'static>(
    rooms: &Rooms,
    read: impl FnOnce(&dyn History) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let history = rooms.history.clone();
    let read = tokio::task::spawn_blocking(move || read(&*history)).await;
    let stopped = |_| ApiError::internal("store_failed", "the store cannot be read", Outcome::Rejected);
    Ok(read.map_err(stopped)??)
}

/// The points of a range, newest first. As `rows` are the newest `limit + 1` of the range, the first `limit` points
/// are complete, and one more says that there are more.
fn merged(state: &SeriesState, page: HistoryPage, range: &Range) -> Vec<HistoryRow> {
    let reading = Reading { operation: state.shape.operation, initial_value: state.shape.initial_value };
    // A difference that the page's progress covers is in its row, and what a cleanup deletes is not in the page.
    let stored = |upper| page.progress.is_some_and(|done| done >= (upper, state.series));
    let cleanup = state.cleanup.filter(|cleanup| !cleanup.sent.is_some_and(|(_, upper)| stored(upper)));
    let is_cleaned = |row: &HistoryRow| cleanup.is_some_and(|cleanup| row.window_end <= cleanup.ended_by);
    let rows = page.rows.iter().filter(|row| !is_cleaned(row));
    let mut points: BTreeMap<Micros, HistoryRow> = rows.map(|row| (row.window_start, row.clone())).collect();
    for merge in
        state.merges.iter().filter(|merge| range.contains(merge.start) && !merge.upper.is_some_and(stored))
    {
        let MergeState { start, end, difference, .. } = *merge;
        let value = reading.value(&difference);
        let inserted =
            HistoryRow { window_start: start, window_end: end, tally: difference, value, flushed_at: None };
        points.entry(start).and_modify(|row| absorb(row, difference, state, &reading)).or_insert(inserted);
    }
    for window in state.windows.iter().filter(|window| !window.left && range.contains(window.start)) {
        let (tally, value) = (window.tally, row_value(state, window, &reading));
        let same = points.get(&window.start).filter(|row| row.tally == tally && row.value == value);
        let flushed_at = same.and_then(|row| row.flushed_at);
        let point =
            HistoryRow { window_start: window.start, window_end: window.end, tally, value, flushed_at };
        points.insert(window.start, point);
    }
    points.into_values().rev().collect()
}

fn absorb(row: &mut HistoryRow, difference: Tally, state: &SeriesState, reading: &Reading) {
    row.tally = row.tally.merge(difference);
    row.flushed_at = None;
    if state.shape.window_is_period() {
        row.value = reading.value(&row.tally);
    }
}

/// The value of a resident window's row: frozen, or the reading of the live period whose newest window it is.
fn row_value(state: &SeriesState, window: &WindowState, reading: &Reading) -> Amount {
    let follows = state.periods.iter().find(|period| period.newest == Some(window.start));
    window.value.unwrap_or_else(|| reading.value(follows.map_or(&window.tally, |period| &period.tally)))
}

fn show(point: &HistoryRow) -> Json {
    let tally = &point.tally;
    Json::object()
        .set("window_start", point.window_start)
        .set("window_end", point.window_end)
        .set("value", point.value)
        .set("sum", tally.sum)
        .set("count", tally.count)
        .set("min", tally.least())
        .set("max", tally.greatest())
        .set("avg", tally.mean())
        .set("flushed_at", point.flushed_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflows::types::{
        ClassSet, CleanupState, LimitSource, MetricType, Notify, Operation, PeriodState, SeriesId, Shape,
        Span,
    };

    const MINUTE: i64 = 60 * Micros::PER_SECOND;
    const ALL: Range = Range { start: None, end: None, before: None, limit: 10 };

    fn tally(amounts: &[i64]) -> Tally {
        amounts.iter().map(|&units| Tally::of(Amount::from_units(units))).fold(Tally::EMPTY, Tally::merge)
    }

    fn row(minute: i64, amounts: &[i64], value: i64) -> HistoryRow {
        HistoryRow {
            window_start: Micros(minute * MINUTE),
            window_end: Micros((minute + 1) * MINUTE),
            tally: tally(amounts),
            value: Amount::from_units(value),
            flushed_at: Some(Micros(1)),
        }
    }

    fn state(
        metric_type: MetricType,
        windows: &[(i64, &[i64], Option<i64>)],
        merges: &[(i64, &[i64])],
    ) -> SeriesState {
        let bounds = |minute: i64| (Micros(minute * MINUTE), Micros((minute + 1) * MINUTE));
        let (flush, operation) = (Span::M1, Operation::Sum);
        let shape = Shape {
            operation,
            metric_type,
            flush,
            reset: flush,
            initial_value: Amount::ZERO,
            batch: Span::S15,
            stored: true,
            limit: None,
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: 0,
            cleanup_after_days: None,
        };
        let window = |&(minute, amounts, value): &(i64, &[i64], Option<i64>)| {
            let (start, end) = bounds(minute);
            let value = value.map(Amount::from_units);
            let (frozen_by, before, dirty) = (None, Amount::ZERO, ClassSet::default());
            WindowState {
                start,
                end,
                tally: tally(amounts),
                value,
                frozen_by,
                opened: 0,
                before,
                left: false,
                dirty,
            }
        };
        let merge = |&(minute, amounts): &(i64, &[i64])| {
            let (start, end) = bounds(minute);
            MergeState { start, end, difference: tally(amounts), class: Span::S15, upper: Some(7) }
        };
        let newest = windows.last().map(|(minute, ..)| bounds(*minute).0);
        SeriesState {
            series: SeriesId(0),
            shape,
            touched: true,
            windows: windows.iter().map(window).collect(),
            periods: vec![PeriodState { start: None, end: None, tally: tally(&[100]), newest }],
            cuts: Vec::new(),
            merges: merges.iter().map(merge).collect(),
            switching: None,
            quiet_since: None,
            cleanup: None,
        }
    }

    fn page(rows: Vec<HistoryRow>, upper: u64) -> HistoryPage {
        HistoryPage { rows, progress: Some((upper, SeriesId(u32::MAX))) }
    }

    fn lines(points: &[HistoryRow]) -> Vec<(i64, Amount, u64, bool)> {
        let line = |point: &HistoryRow| {
            (point.window_start.0 / MINUTE, point.value, point.tally.count, point.flushed_at.is_some())
        };
        points.iter().map(line).collect()
    }

    #[test]
    fn memory_wins_over_a_row_that_says_something_else() {
        let state = state(MetricType::Checkpoint, &[(1, &[1], Some(1)), (2, &[5, 5], None)], &[]);
        let points = merged(&state, page(vec![row(2, &[5], 6), row(1, &[1], 1), row(0, &[7], 7)], 0), &ALL);
        let units = Amount::from_units;
        let expected = [(2, units(100), 2, false), (1, units(1), 1, true), (0, units(7), 1, true)];
        assert_eq!(lines(&points), expected);
    }

    #[test]
    fn a_waiting_difference_is_merged_as_the_sink_will_merge_it() {
        let units = Amount::from_units;
        for (metric_type, value) in [(MetricType::Checkpoint, 7), (MetricType::Reset, 10)] {
            let state = state(metric_type, &[], &[(0, &[3]), (1, &[4])]);
            let points = merged(&state, page(vec![row(0, &[7], 7)], 6), &ALL);
            assert_eq!(lines(&points), [(1, units(4), 1, false), (0, units(value), 2, false)]);
            let points = merged(&state, page(vec![row(0, &[7], 7)], 7), &ALL);
            assert_eq!(lines(&points), [(0, units(7), 1, true)], "the store has the differences already");
        }
    }

    #[test]
    fn what_a_cleanup_has_yet_to_delete_is_not_shown() {
        let minute = |minute: i64| Micros(minute * MINUTE);
        let rows = || vec![row(2, &[5], 6), row(1, &[1], 1), row(0, &[7], 7)];
        let shown = |sent: Option<u64>, progress: u64| {
            let (classes, sent) = (ClassSet::default(), sent.map(|upper| (Span::S15, upper)));
            let cleanup = Some(CleanupState { ended_by: minute(2), classes, sent });
            let state = SeriesState { cleanup, ..state(MetricType::Checkpoint, &[(3, &[1], None)], &[]) };
            let points = merged(&state, page(rows(), progress), &ALL);
            points.iter().map(|point| point.window_start.0 / MINUTE).collect::<Vec<_>>()
        };
        assert_eq!(shown(None, 9), [3, 2], "the row that ended at the bound is gone");
        assert_eq!(shown(Some(9), 8), [3, 2]);
        assert_eq!(
            shown(Some(9), 9),
            [3, 2, 1, 0],
            "the store has deleted what it had to: these came behind"
        );
    }

    #[test]
    fn a_page_ends_at_its_range() {
        let state =
            state(MetricType::Checkpoint, &[(1, &[1], Some(1)), (2, &[1], Some(2)), (3, &[1], Some(3))], &[]);
        let at = |minute: i64| Some(Micros(minute * MINUTE));
        let range = Range { start: at(1), end: at(3), before: at(2), limit: 10 };
        assert_eq!(lines(&merged(&state, page(Vec::new(), 0), &range)).len(), 1);
        assert!(range.contains(Micros(MINUTE)) && !range.contains(Micros(2 * MINUTE)));
    }
}
