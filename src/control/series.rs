//! The rules of definitions: what a requested change means, given what is defined. Pure.

use dataflows::types::{Definition, Micros, SeriesId, SeriesKey, SeriesRecord, SeriesSpec};

use super::{ControlError, Registry};

/// A requested change.
#[derive(Clone, Debug)]
pub enum Change {
    /// A series with this name and description; nothing happens if the name exists.
    CreateSeries {
        /// The name.
        key: SeriesKey,
        /// The description.
        spec: SeriesSpec,
    },
    /// Another description.
    ChangeSeries {
        /// The name.
        key: SeriesKey,
        /// The new description.
        spec: SeriesSpec,
    },
    /// The end of a series.
    DeleteSeries {
        /// The name.
        key: SeriesKey,
    },
    /// A new live period.
    CutSeries {
        /// The name.
        key: SeriesKey,
    },
    /// The initial value of a repeated POST has been recorded.
    RecordPost {
        /// The series.
        series: SeriesId,
        /// Hash of the parsed body.
        body_hash: u128,
    },
    /// Definitions that the service itself makes at a start; taken as they are.
    Define(Vec<Definition>),
}

/// What a change is about: of two changes about one subject in one epoch, the second waits for the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A name of a series.
    Name(SeriesKey),
    /// A numbered series.
    Series(SeriesId),
    /// The service itself.
    Service,
}

impl Change {
    /// What the change is about.
    pub fn subject(&self) -> Subject {
        match self {
            Change::CreateSeries { key, .. }
            | Change::ChangeSeries { key, .. }
            | Change::DeleteSeries { key }
            | Change::CutSeries { key } => Subject::Name(key.clone()),
            Change::RecordPost { series, .. } => Subject::Series(*series),
            Change::Define(_) => Subject::Service,
        }
    }

    /// The definitions that make the change; none if everything is so already. New series are numbered from
    /// `next_series`, which moves on.
    pub fn decide(
        self,
        registry: &Registry,
        next_series: &mut SeriesId,
        now: Micros,
    ) -> Result<Vec<Definition>, ControlError> {
        let live = |key: &SeriesKey| {
            let found = registry.find(&key.business_id, key.customer_id.as_deref(), &key.metric_name);
            found.map(|handle| handle.series).ok_or(ControlError::NoSuchSeries)
        };
        Ok(match self {
            Change::CreateSeries { key, .. } if live(&key).is_ok() => Vec::new(),
            Change::CreateSeries { key, spec } => {
                if let Some(customer_id) = &key.customer_id {
                    registry.customer(&key.business_id, customer_id).ok_or(ControlError::NoSuchCustomer)?;
                }
                let series = *next_series;
                next_series.0 = series.0.checked_add(1).ok_or(ControlError::Overloaded)?;
                vec![Definition::SeriesCreated(SeriesRecord { series, key, spec, created_at: now })]
            }
            Change::ChangeSeries { key, spec } => {
                vec![Definition::SeriesChanged { series: live(&key)?, spec }]
            }
            Change::DeleteSeries { key } => vec![Definition::SeriesDeleted { series: live(&key)? }],
            Change::CutSeries { key } => vec![Definition::SeriesCut { series: live(&key)? }],
            Change::RecordPost { series, body_hash } if !registry.post_recorded(series, body_hash) => {
                vec![Definition::PostRecorded { series, body_hash }]
            }
            Change::RecordPost { .. } => Vec::new(),
            Change::Define(definitions) => definitions,
        })
    }
}
