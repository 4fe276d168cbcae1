//! What earlier versions wrote into snapshots, read into what is known today.
//!
//! | section | written by | differs |
//! |---|---|---|
//! | 4 | before cleanup took effect | `SeriesState` without cleanup: the definition says whether the series is cleaned, and its last update counts as arrived at the last time entry before the snapshot |

use dataflows::types::{
    Amount, Limit, LimitSource, MergeState, MetricType, Micros, Notify, Operation, PeriodState, SeriesId,
    SeriesSpec, SeriesState, Shape, Span, WindowState,
};
use serde::Deserialize;

/// `Shape` in section 4.
#[derive(Deserialize)]
struct ShapeWithoutCleanup {
    operation: Operation,
    metric_type: MetricType,
    flush: Span,
    reset: Span,
    initial_value: Amount,
    batch: Span,
    stored: bool,
    limit: Option<Limit>,
    max_event_age_secs: u32,
}

/// `SeriesState` in section 4.
#[derive(Deserialize)]
pub(super) struct WithoutCleanup {
    series: SeriesId,
    shape: ShapeWithoutCleanup,
    touched: bool,
    windows: Vec<WindowState>,
    periods: Vec<PeriodState>,
    cuts: Vec<Micros>,
    merges: Vec<MergeState>,
    switching: Option<(Span, Micros)>,
}

impl WithoutCleanup {
    /// The series.
    pub(super) fn series(&self) -> SeriesId {
        self.series
    }

    /// The state as of a snapshot whose last time entry was then.
    pub(super) fn read(self, spec: &SeriesSpec, last_time: Micros) -> SeriesState {
        let shape = Shape {
            operation: self.shape.operation,
            metric_type: self.shape.metric_type,
            flush: self.shape.flush,
            reset: self.shape.reset,
            initial_value: self.shape.initial_value,
            batch: self.shape.batch,
            stored: self.shape.stored,
            limit: self.shape.limit,
            limit_source: LimitSource::Series,
            notify: Notify::NONE,
            max_event_age_secs: self.shape.max_event_age_secs,
            cleanup_after_days: spec.cleanup_after_days,
        };
        let WithoutCleanup { series, touched, windows, periods, cuts, merges, switching, .. } = self;
        let quiet_since = touched.then_some(last_time);
        SeriesState {
            series,
            shape,
            touched,
            windows,
            periods,
            cuts,
            merges,
            switching,
            quiet_since,
            cleanup: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_of_section_4_is_quiet_since_the_snapshot() {
        let spec = SeriesSpec { cleanup_after_days: Some(7), ..SeriesSpec::default() };
        let shape = spec.shape(86_400);
        // The layout, field by field.
        let old_shape = (
            (shape.operation, shape.metric_type, shape.flush, shape.reset),
            (shape.initial_value, shape.batch, shape.stored, shape.limit, shape.max_event_age_secs),
        );
        let (windows, periods): (Vec<WindowState>, Vec<PeriodState>) = (Vec::new(), Vec::new());
        let (cuts, merges, switching) =
            (vec![Micros(5)], Vec::<MergeState>::new(), Some((Span::M1, Micros(9))));
        let old = (SeriesId(3), old_shape, true, &windows, &periods, &cuts, &merges, switching);
        let bytes = postcard::to_stdvec(&old).expect("written to memory");
        let (read, rest) = postcard::take_from_bytes::<WithoutCleanup>(&bytes).expect("readable");
        assert!(rest.is_empty());
        let last_time = Micros::from_seconds(77);
        let read = read.read(&spec, last_time);
        assert_eq!((read.series, read.shape, read.touched), (SeriesId(3), shape, true));
        assert_eq!((read.windows, read.periods, read.cuts), (windows, periods, cuts));
        assert_eq!((read.merges, read.switching), (merges, switching));
        assert_eq!((read.quiet_since, read.cleanup), (Some(last_time), None));
    }
}
