//! How many series each business has of the `series_max` that it may have. In: series that come and go. Out: room for more,
//! and how many businesses are short of it.
//!
//! What is there already is never taken away: a limit that is lowered below it refuses new series and no more. The changes
//! of one epoch share what room there is (`Taken`), since the registry shows none of them before all are journaled.

use std::collections::HashMap;

use dataflows::types::Definition;

use super::{ControlError, Registry};

/// Series that a business may have where nobody says otherwise.
pub const SERIES_MAX_DEFAULT: usize = 1_000_000;
/// From so many hundredths of `series_max` on a business is short of room, which the log and the telemetry say.
pub const SHORT_PERCENT: usize = 80;

/// See the header.
pub struct Quota {
    series_max: usize,
    series: HashMap<String, usize>,
    short: usize,
}

impl Quota {
    pub(super) fn new(series_max: usize) -> Self {
        Quota { series_max, series: HashMap::new(), short: 0 }
    }

    pub(super) fn with_series_max(self, series_max: usize) -> Self {
        let quota = Quota { series_max, ..self };
        let short = quota.series.values().filter(|count| quota.is_short(**count)).count();
        Quota { short, ..quota }
    }

    /// A series of the business begins.
    pub(super) fn begin(&mut self, business_id: &str) {
        let count = match self.series.get_mut(business_id) {
            Some(count) => count,
            None => self.series.entry(business_id.to_owned()).or_default(),
        };
        *count += 1;
        let count = *count;
        self.short += usize::from(self.is_short(count) && !self.is_short(count - 1));
    }

    /// A series of the business, which had begun, ends.
    pub(super) fn end(&mut self, business_id: &str) {
        let Some(count) = self.series.get_mut(business_id) else { return };
        *count -= 1;
        let count = *count;
        if count == 0 {
            self.series.remove(business_id);
        }
        self.short -= usize::from(self.is_short(count + 1) && !self.is_short(count));
    }

    /// Series that a business may have.
    pub fn series_max(&self) -> usize {
        self.series_max
    }

    /// Live series of the business.
    pub fn series(&self, business_id: &str) -> usize {
        self.series.get(business_id).copied().unwrap_or(0)
    }

    /// Series that the business may still begin.
    pub fn left(&self, business_id: &str) -> usize {
        self.series_max.saturating_sub(self.series(business_id))
    }

    /// Businesses that have `SHORT_PERCENT` of `series_max`, or more.
    pub fn short(&self) -> usize {
        self.short
    }

    fn is_short(&self, series: usize) -> bool {
        series.saturating_mul(100) >= self.series_max.saturating_mul(SHORT_PERCENT)
    }
}

/// What the changes of one epoch take of the room, by business.
#[derive(Default)]
pub(super) struct Taken(HashMap<String, usize>);

impl Taken {
    /// How many series of the business begin.
    pub fn of(&self, business_id: &str) -> usize {
        self.0.get(business_id).copied().unwrap_or(0)
    }

    /// Takes room for what a change has decided. Without enough of it nothing is taken, unless the change `must` be made.
    pub fn take(&mut self, quota: &Quota, decided: &[Definition], must: bool) -> Result<(), ControlError> {
        let mut begun: HashMap<&str, usize> = HashMap::new();
        for definition in decided {
            if let Definition::SeriesCreated(record) = definition {
                *begun.entry(&record.key.business_id).or_default() += 1;
            }
        }
        let fits =
            |(business_id, count): (&&str, &usize)| self.of(business_id) + count <= quota.left(business_id);
        if !must && !begun.iter().all(fits) {
            return Err(ControlError::SeriesLimit { max: quota.series_max });
        }
        begun.into_iter().for_each(|(business_id, count)| {
            *self.0.entry(business_id.to_owned()).or_default() += count;
        });
        Ok(())
    }

    /// Says which businesses have come to be short of room. Behind the epoch.
    pub fn warn(&self, registry: &Registry) {
        let quota = registry.quota();
        for (business_id, begun) in &self.0 {
            let (series, series_max) = (quota.series(business_id), quota.series_max);
            if quota.is_short(series) && !quota.is_short(series.saturating_sub(*begun)) {
                tracing::warn!(
                    business_id,
                    series,
                    series_max,
                    "a business has {SHORT_PERCENT} % of the series that it may have: beyond --series-max new ones are refused"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflows::types::{Micros, SeriesId, SeriesKey, SeriesRecord, SeriesSpec};

    fn begun(business_id: &str, count: usize) -> Vec<Definition> {
        let record = |_| {
            let key =
                SeriesKey { business_id: business_id.to_owned(), customer_id: None, metric_name: "m".into() };
            let (series, spec) = (SeriesId(1), SeriesSpec::default());
            Definition::SeriesCreated(SeriesRecord { series, key, spec, created_at: Micros(0) })
        };
        (0..count).map(record).collect()
    }

    #[test]
    fn a_business_is_short_from_four_fifths_on_until_it_is_below_them_again() {
        let mut quota = Quota::new(10);
        for count in 1..=9 {
            quota.begin("biz_1");
            assert_eq!(quota.short(), usize::from(count >= 8), "{count}");
        }
        quota.begin("biz_2");
        assert_eq!((quota.left("biz_1"), quota.left("biz_2"), quota.left("biz_3")), (1, 9, 10));
        quota.end("biz_1");
        assert_eq!(quota.short(), 1);
        quota.end("biz_1");
        assert_eq!((quota.short(), quota.series("biz_1")), (0, 7));
    }

    #[test]
    fn the_changes_of_an_epoch_share_the_room() {
        let (mut quota, mut taken) = (Quota::new(5), Taken::default());
        quota.begin("biz_1");
        assert_eq!(taken.take(&quota, &begun("biz_1", 3), false), Ok(()));
        assert_eq!(taken.take(&quota, &begun("biz_2", 5), false), Ok(()), "another business's");
        let refused = Err(ControlError::SeriesLimit { max: 5 });
        assert_eq!(taken.take(&quota, &begun("biz_1", 2), false), refused, "all or none");
        assert_eq!(taken.take(&quota, &begun("biz_1", 1), false), Ok(()));
        assert_eq!(taken.take(&quota, &begun("biz_1", 1), false), refused);
        assert_eq!(taken.take(&quota, &[], false), Ok(()));
        assert_eq!(taken.take(&quota, &begun("biz_1", 2), true), Ok(()), "what must be");
        assert_eq!(taken.of("biz_1"), 6);
    }
}
