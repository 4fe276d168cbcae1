//! Plans and their limits, as a tenant defines them (API, section 5). Fields are only ever added at the end, and only by a
//! variant of `Definition` of their own: the encoding is postcard.

use serde::{Deserialize, Serialize};

use super::{EffectiveLimit, Limit, LimitSource, MetricType, Micros, Notify, Operation, SeriesSpec, Span};

/// What customers subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Whose.
    pub business_id: String,
    /// `plan_...`.
    pub plan_id: String,
    /// Display name.
    pub plan_name: String,
    /// The price that puts a customer on it; the plan without one is the free plan. One plan a price and business.
    pub stripe_price_id: Option<String>,
    /// When it was defined.
    pub created_at: Micros,
}

/// `limit_period`: what a limit counts over, in the series that it creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitPeriod {
    /// `1m`.
    Minute,
    /// `1h`, `hourly`.
    Hour,
    /// `1d`, `daily`.
    Day,
    /// `1w`, `weekly`.
    Week,
    /// `1mo`, `monthly`.
    #[default]
    Month,
    /// `billing`: the billing period.
    Billing,
    /// `lifetime`, `realtime`: since creation.
    Lifetime,
}

impl LimitPeriod {
    /// Every period with its names, the first of which answers show.
    pub const ALL: [(LimitPeriod, &'static [&'static str]); 7] = [
        (LimitPeriod::Minute, &["1m"]),
        (LimitPeriod::Hour, &["1h", "hourly"]),
        (LimitPeriod::Day, &["1d", "daily"]),
        (LimitPeriod::Week, &["1w", "weekly"]),
        (LimitPeriod::Month, &["1mo", "monthly"]),
        (LimitPeriod::Billing, &["billing"]),
        (LimitPeriod::Lifetime, &["lifetime", "realtime"]),
    ];

    /// Its name in answers and tables.
    pub fn text(self) -> &'static str {
        LimitPeriod::ALL[self as usize].1[0]
    }

    /// The period of any of its names.
    pub fn read(name: &str) -> Option<LimitPeriod> {
        LimitPeriod::ALL.iter().find(|(_, names)| names.contains(&name)).map(|(period, _)| *period)
    }

    /// Its window; none for a period that has no calendar.
    fn window(self) -> Option<Span> {
        match self {
            LimitPeriod::Minute => Some(Span::M1),
            LimitPeriod::Hour => Some(Span::H1),
            LimitPeriod::Day => Some(Span::D1),
            LimitPeriod::Week => Some(Span::W1),
            LimitPeriod::Month => Some(Span::Mo1),
            LimitPeriod::Billing | LimitPeriod::Lifetime => None,
        }
    }
}

/// A limit for a metric of customers: of those on a plan, or of all that have no more specific one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLimit {
    /// Whose.
    pub business_id: String,
    /// `lim_...`.
    pub limit_id: String,
    /// The plan; none is the business's default.
    pub plan_id: Option<String>,
    /// The metric. One limit a plan and metric, and one default a metric.
    pub metric_name: String,
    /// The limit.
    pub limit: Limit,
    /// `notify_at`, percentages.
    pub notify_at: Vec<u16>,
    /// `webhook_url`.
    pub webhook_url: Option<String>,
    /// `limit_period`.
    pub period: LimitPeriod,
    /// `metric_type`, if one was given: it wins over what the period says.
    pub metric_type: Option<MetricType>,
    /// `operation` of the series that it creates.
    pub operation: Operation,
    /// When it was defined.
    pub created_at: Micros,
}

impl PlanLimit {
    /// The limit of a series that it applies to.
    pub fn effective(&self) -> EffectiveLimit {
        let source = if self.plan_id.is_some() { LimitSource::Plan } else { LimitSource::Default };
        EffectiveLimit { limit: self.limit, source, notify: Notify::new(&self.notify_at) }
    }

    /// The series that it creates: a window of the period with at most an hour as its grain; without a calendar the type
    /// that counts that long. A given type wins, and `reset` then needs a window.
    pub fn spec(&self) -> SeriesSpec {
        let by_period = match self.period {
            LimitPeriod::Billing => MetricType::StripeBilling,
            LimitPeriod::Lifetime => MetricType::Checkpoint,
            _ => MetricType::Reset,
        };
        let metric_type = self.metric_type.unwrap_or(by_period);
        let window = self.period.window().unwrap_or(Span::Mo1);
        SeriesSpec {
            metric_type,
            operation: self.operation,
            flush_interval: window.min(Span::H1),
            reset_interval: (metric_type == MetricType::Reset).then_some(window),
            ..SeriesSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(period: LimitPeriod, metric_type: Option<MetricType>) -> (MetricType, Span, Option<Span>) {
        let limit = Limit {
            value: super::super::Amount(0),
            operator: Default::default(),
            action: Default::default(),
        };
        let spec = PlanLimit {
            business_id: "biz_1".to_owned(),
            limit_id: "lim_1".to_owned(),
            plan_id: None,
            metric_name: "calls".to_owned(),
            limit,
            notify_at: Vec::new(),
            webhook_url: None,
            period,
            metric_type,
            operation: Operation::Sum,
            created_at: Micros(0),
        }
        .spec();
        (spec.metric_type, spec.flush_interval, spec.reset_interval)
    }

    #[test]
    fn a_period_shapes_the_series_that_its_limit_creates() {
        use MetricType::{Checkpoint, Reset, StripeBilling};
        assert_eq!(spec(LimitPeriod::Minute, None), (Reset, Span::M1, Some(Span::M1)));
        assert_eq!(spec(LimitPeriod::Hour, None), (Reset, Span::H1, Some(Span::H1)));
        assert_eq!(spec(LimitPeriod::Month, None), (Reset, Span::H1, Some(Span::Mo1)));
        assert_eq!(spec(LimitPeriod::Billing, None), (StripeBilling, Span::H1, None));
        assert_eq!(spec(LimitPeriod::Lifetime, None), (Checkpoint, Span::H1, None));
        assert_eq!(spec(LimitPeriod::Minute, Some(Checkpoint)), (Checkpoint, Span::M1, None));
        for period in [LimitPeriod::Billing, LimitPeriod::Lifetime] {
            assert_eq!(spec(period, Some(Reset)), (Reset, Span::H1, Some(Span::Mo1)));
        }
    }

    #[test]
    fn every_name_reads_as_its_period() {
        for (period, names) in LimitPeriod::ALL {
            assert_eq!(period.text(), names[0]);
            assert!(names.iter().all(|name| LimitPeriod::read(name) == Some(period)));
        }
        assert_eq!(LimitPeriod::read("yearly"), None);
    }
}
