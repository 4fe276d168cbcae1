//! Rows of `series`: a name and a description.

use dataflows::types::{
    Amount, Definition, Limit, SeriesId, SeriesKey, SeriesRecord, SeriesSpec, Span, StripeIntegration,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{optional, read_word, word};
use crate::store::text::{read_amount, read_time, time};

/// A row of `series`, without `custom`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct NamedSpecRow {
    #[serde(flatten)]
    name: NameRow,
    #[serde(flatten)]
    pub spec: SpecRow,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NameRow {
    business_id: String,
    scope: String,
    customer_id: Option<String>,
    metric_name: String,
    created_at: String,
}

/// The columns of `series` that describe one, without `custom`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct SpecRow {
    series_id: u32,
    #[serde(flatten)]
    description: DescriptionRow,
}

/// A description, without `custom`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct DescriptionRow {
    metric_type: Value,
    operation: Value,
    flush_interval: String,
    reset_interval: Option<String>,
    batch_interval: String,
    initial_value: String,
    max_event_age_secs: Option<u32>,
    cleanup_after_days: Option<u16>,
    tags: std::collections::BTreeMap<String, String>,
    limit_value: Option<String>,
    limit_operator: Option<Value>,
    breach_action: Option<Value>,
    notify_at: Vec<u16>,
    webhook_url: Option<String>,
    stored: bool,
    restore_on_startup: bool,
    stripe: Option<StripeRow>,
}

/// `series.stripe`, by the API's field names.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StripeRow {
    enabled: bool,
    price_id: Option<String>,
    export: String,
    overage_threshold: Option<String>,
    scale: Option<String>,
}

impl From<&SeriesRecord> for NameRow {
    fn from(record: &SeriesRecord) -> Self {
        NameRow {
            business_id: record.key.business_id.clone(),
            scope: word(&record.key.scope()).as_str().unwrap_or_default().to_owned(),
            customer_id: record.key.customer_id.clone(),
            metric_name: record.key.metric_name.clone(),
            created_at: time(record.created_at),
        }
    }
}

impl NamedSpecRow {
    pub fn new(record: &SeriesRecord) -> Self {
        NamedSpecRow { name: record.into(), spec: SpecRow::new(record.series, &record.spec) }
    }

    pub fn definition(self, custom: String) -> Option<Definition> {
        let NameRow { business_id, customer_id, metric_name, created_at, .. } = self.name;
        let key = SeriesKey { business_id, customer_id, metric_name };
        let (series, created_at) = (SeriesId(self.spec.series_id), read_time(&created_at)?);
        Some(Definition::SeriesCreated(SeriesRecord {
            series,
            key,
            spec: self.spec.description.spec(custom)?,
            created_at,
        }))
    }
}

impl SpecRow {
    pub fn new(series: SeriesId, spec: &SeriesSpec) -> Self {
        SpecRow { series_id: series.0, description: spec.into() }
    }
}

impl From<&SeriesSpec> for DescriptionRow {
    fn from(spec: &SeriesSpec) -> Self {
        let amount = |amount: Amount| amount.to_string();
        DescriptionRow {
            metric_type: word(&spec.metric_type),
            operation: word(&spec.operation),
            flush_interval: spec.flush_interval.text().to_owned(),
            reset_interval: spec.reset_interval.map(|span| span.text().to_owned()),
            batch_interval: spec.batch_interval.text().to_owned(),
            initial_value: amount(spec.initial_value),
            max_event_age_secs: spec.max_event_age_secs,
            cleanup_after_days: spec.cleanup_after_days,
            tags: spec.tags.clone(),
            limit_value: spec.limit.map(|limit| amount(limit.value)),
            limit_operator: spec.limit.map(|limit| word(&limit.operator)),
            breach_action: spec.limit.map(|limit| word(&limit.action)),
            notify_at: spec.notify_at.clone(),
            webhook_url: spec.webhook_url.clone(),
            stored: spec.stored,
            restore_on_startup: spec.restore_on_startup,
            stripe: spec.stripe.as_ref().map(|stripe| StripeRow {
                enabled: stripe.enabled,
                price_id: stripe.price_id.clone(),
                export: if stripe.overage { "overage" } else { "usage" }.to_owned(),
                overage_threshold: stripe.overage_threshold.map(amount),
                scale: stripe.scale.map(amount),
            }),
        }
    }
}

impl DescriptionRow {
    pub(super) fn spec(self, custom: String) -> Option<SeriesSpec> {
        let limit = match (self.limit_value, self.limit_operator, self.breach_action) {
            (Some(value), Some(operator), Some(action)) => Some(Limit {
                value: read_amount(&value)?,
                operator: read_word(operator)?,
                action: read_word(action)?,
            }),
            _ => None,
        };
        let stripe = match self.stripe {
            Some(stripe) => Some(StripeIntegration {
                enabled: stripe.enabled,
                price_id: stripe.price_id,
                overage: stripe.export == "overage",
                overage_threshold: optional(stripe.overage_threshold, read_amount)?,
                scale: optional(stripe.scale, read_amount)?,
            }),
            None => None,
        };
        Some(SeriesSpec {
            metric_type: read_word(self.metric_type)?,
            operation: read_word(self.operation)?,
            flush_interval: span(&self.flush_interval)?,
            reset_interval: optional(self.reset_interval, span)?,
            initial_value: read_amount(&self.initial_value)?,
            max_event_age_secs: self.max_event_age_secs,
            cleanup_after_days: self.cleanup_after_days,
            tags: self.tags,
            limit,
            notify_at: self.notify_at,
            webhook_url: self.webhook_url,
            stored: self.stored,
            batch_interval: span(&self.batch_interval)?,
            restore_on_startup: self.restore_on_startup,
            stripe,
            custom,
        })
    }
}

fn span(text: &str) -> Option<Span> {
    Span::ALL.into_iter().find(|span| span.text() == text)
}
