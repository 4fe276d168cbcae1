//! Everything that a start on an empty journal needs, read in a few statements: definitions, newest live periods, last rows.
//!
//! Read by the writer behind its claim, in a transaction whose times are UTC: nobody else changes the tables meanwhile, but
//! for a user by hand.

use dataflows::types::{Definition, LiveState, Micros, Row, RowKind, SeriesId, Span};
use serde::de::DeserializeOwned;
use tokio_postgres::types::{ToSql, Type};

use super::rows::tally_at;
use super::values::{At, Numeric};
use super::{Session, Target, column};
use crate::control::REMEMBERED_MICROS;
use crate::store::records::{
    BilledPeriodRow, BusinessRow, CustomerRow, DetailsRow, KeyRow, NamedSpecRow, PeriodEndRow,
    PeriodFinalRow, PlanLimitRow, PlanRow, PlannedRow, ProxyTargetsRow, SliceRow, StripeEventRow,
    StripeKeyRow, SubscriptionRow, TemplateRow, WebhookRow,
};
use crate::store::{Content, StoreError};

/// Windows that a start keeps in memory, counted back from now.
const WINDOWS_KEPT: i64 = 8;
const SERIES: &str = "
    SELECT json_build_object('series_id', series_id, 'business_id', business_id, 'scope', scope, 'customer_id', customer_id,
        'metric_name', metric_name, 'created_at', created_at, 'metric_type', metric_type, 'operation', operation,
        'flush_interval', flush_interval, 'reset_interval', reset_interval, 'batch_interval', batch_interval,
        'initial_value', initial_value::text, 'max_event_age_secs', max_event_age_secs,
        'cleanup_after_days', cleanup_after_days, 'tags', tags, 'limit_value', limit_value::text,
        'limit_operator', limit_operator, 'breach_action', breach_action, 'notify_at', notify_at,
        'webhook_url', webhook_url, 'stored', stored, 'restore_on_startup', restore_on_startup, 'stripe', stripe)::text,
        custom::text
    FROM {schema}.series ORDER BY series_id";

const TEMPLATES: &str = "
    SELECT json_build_object('business_id', business_id, 'metric_name', metric_name, 'create_customers', create_customers,
        'definition', definition, 'created_at', created_at)::text, custom::text
    FROM {schema}.templates ORDER BY business_id, metric_name";

const SUBSCRIPTIONS: &str = "
    SELECT row_to_json(kept)::text FROM {schema}.subscriptions AS kept
    ORDER BY created_at, business_id, subscription_id";

/// In the order in which they were read.
const EVENTS: &str = "
    SELECT row_to_json(kept)::text FROM {schema}.stripe_events AS kept
    WHERE received_at >= $1 ORDER BY received_at, business_id, event_id";

const ENDED: &str = "
    SELECT row_to_json(kept)::text
    FROM {schema}.billing_periods_ended AS kept JOIN {schema}.series USING (series_id) ORDER BY series_id";

const FINAL: &str = "
    SELECT row_to_json(kept)::text
    FROM {schema}.billing_periods_final AS kept JOIN {schema}.series USING (series_id) ORDER BY series_id";

// What is kept out of the store may have been in it before.
const STATES: &str = "
    SELECT series_id, period_start, value, sum, count, min, max
    FROM {schema}.series_state JOIN {schema}.series USING (series_id) WHERE stored ORDER BY series_id";

// As JSON an amount would be a number, which is read as a float.
const PERIODS: &str = "
    SELECT (to_jsonb(kept) || jsonb_build_object('usage', usage::text, 'updates', updates::text,
        'cleaned', cleaned::text, 'free', free::text, 'billable', billable::text, 'carried_in', carried_in::text,
        'carried_out', carried_out::text, 'units', units::text, 'scale', scale::text))::text
    FROM {schema}.billing_periods AS kept JOIN {schema}.series USING (series_id) ORDER BY series_id, period_start";

/// Those that may still be asked about.
const SLICES: &str = "
    SELECT (to_jsonb(kept) || jsonb_build_object('scale', scale::text, 'remainder', remainder::text))::text
    FROM {schema}.slices AS kept
    WHERE state <> 'acked' OR state_at > $1 ORDER BY cut_at, series_id, period_start, number";

/// How long ago slices may have arrived that come back.
const ACKED_MICROS: i64 = 48 * 3_600 * Micros::PER_SECOND;

/// All rows from a moment on, and the newest in any case.
const LAST_ROWS: &str = "
    SELECT series.series_id, window_start, window_end, value, sum, count, min, max
    FROM {schema}.series
    JOIN LATERAL (
        SELECT * FROM {schema}.metrics
        WHERE metrics.series_id = series.series_id AND window_start >= least($2,
            (SELECT max(window_start) FROM {schema}.metrics WHERE metrics.series_id = series.series_id))
    ) AS last ON true
    WHERE stored AND flush_interval = $1 ORDER BY series.series_id, window_start";

const NEXT_SERIES: &str = "
    SELECT 1 + greatest((SELECT max(series_id) FROM {schema}.series), (SELECT max(series_id) FROM {schema}.metrics), 0)";

/// Reads it. `now` decides which rows are among the last.
pub(super) async fn read(session: &Session, target: &Target, now: Micros) -> Result<Content, StoreError> {
    let mut definitions = tenants(session, target).await?;
    for row in session.query(&target.sql(TEMPLATES), &[]).await? {
        let custom: String = column(&row, 1)?;
        definitions.push(parsed(column(&row, 0)?, |template: TemplateRow| template.definition(custom))?);
    }
    for row in session.query(&target.sql(SERIES), &[]).await? {
        let custom: String = column(&row, 1)?;
        definitions.push(parsed(column(&row, 0)?, |series: NamedSpecRow| series.definition(custom))?);
    }
    for row in session.query(&target.sql(PERIODS), &[]).await? {
        definitions.push(parsed(column(&row, 0)?, BilledPeriodRow::definition)?);
    }
    for row in
        session.query(&target.sql(SLICES), &[(&At(Micros(now.0 - ACKED_MICROS)), Type::TIMESTAMPTZ)]).await?
    {
        definitions.extend(parsed(column(&row, 0)?, SliceRow::definitions)?);
    }
    told_by_stripe(session, target, now, &mut definitions).await?;
    let mut states = Vec::new();
    for row in session.query(&target.sql(STATES), &[]).await? {
        let (series, start, Numeric(value)) =
            (series(&row)?, column::<Option<At>>(&row, 1)?, column(&row, 2)?);
        let period_start = start.map(|At(start)| start);
        states.push(LiveState { series, period_start, tally: tally_at(&row, 3)?, value });
    }
    let rows = last_rows(session, target, now).await?;
    let next = session.query(&target.sql(NEXT_SERIES), &[]).await?;
    let next_series = SeriesId(next.first().map_or(Ok(1), |row| column::<i64>(row, 0))? as u32);
    Ok(Content { definitions, next_series, states, rows })
}

/// Tenants and what is theirs but for series: what depends on another comes later.
async fn tenants(session: &Session, target: &Target) -> Result<Vec<Definition>, StoreError> {
    let mut definitions = Vec::new();
    for table in ["businesses", "api_keys", "stripe_keys", "webhooks", "plans", "plan_limits", "customers"] {
        // As JSON an amount would be a number, which is read as a float.
        let json = match table {
            "plan_limits" => "to_jsonb(kept) || jsonb_build_object('limit_value', limit_value::text)",
            _ => "row_to_json(kept)",
        };
        // In the order in which they were made.
        let sql = format!("SELECT ({json})::text FROM {{schema}}.{table} AS kept ORDER BY created_at");
        for row in session.query(&target.sql(&sql), &[]).await? {
            let text = column(&row, 0)?;
            match table {
                "businesses" => {
                    definitions.push(parsed(text, BusinessRow::definition)?);
                    definitions.extend(parsed(text, |row: ProxyTargetsRow| Some(row.definition()))?);
                }
                "api_keys" => definitions.push(parsed(text, KeyRow::definition)?),
                "stripe_keys" => definitions.push(parsed(text, StripeKeyRow::definition)?),
                "webhooks" => definitions.push(parsed(text, WebhookRow::definition)?),
                "plans" => definitions.push(parsed(text, PlanRow::definition)?),
                "plan_limits" => definitions.push(parsed(text, PlanLimitRow::definition)?),
                _ => {
                    definitions.push(parsed(text, CustomerRow::definition)?);
                    definitions.push(parsed(text, DetailsRow::definition)?);
                    definitions.extend(parsed(text, |row: PlannedRow| Some(row.definition()))?);
                }
            }
        }
    }
    Ok(definitions)
}

/// Behind the customers and series that it is about.
async fn told_by_stripe(
    session: &Session,
    target: &Target,
    now: Micros,
    definitions: &mut Vec<Definition>,
) -> Result<(), StoreError> {
    for row in session.query(&target.sql(SUBSCRIPTIONS), &[]).await? {
        definitions.push(parsed(column(&row, 0)?, SubscriptionRow::definition)?);
    }
    let since = At(Micros(now.0 - REMEMBERED_MICROS));
    for row in session.query(&target.sql(EVENTS), &[(&since, Type::TIMESTAMPTZ)]).await? {
        definitions.extend(parsed(column(&row, 0)?, StripeEventRow::definitions)?);
    }
    for row in session.query(&target.sql(ENDED), &[]).await? {
        definitions.push(parsed(column(&row, 0)?, PeriodEndRow::definition)?);
    }
    for row in session.query(&target.sql(FINAL), &[]).await? {
        definitions.push(parsed(column(&row, 0)?, PeriodFinalRow::definition)?);
    }
    Ok(())
}

async fn last_rows(session: &Session, target: &Target, now: Micros) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    for flush in Span::FLUSH {
        let window = flush.window(now);
        let horizon = At(Micros(window.start.0 - (WINDOWS_KEPT - 1) * (window.end.0 - window.start.0)));
        let name = flush.text();
        let values: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (&horizon, Type::TIMESTAMPTZ)];
        for row in session.query(&target.sql(LAST_ROWS), &values).await? {
            let (At(window_start), At(window_end)) = (column(&row, 1)?, column(&row, 2)?);
            let (series, Numeric(value), tally) = (series(&row)?, column(&row, 3)?, tally_at(&row, 4)?);
            rows.push(Row { series, window_start, window_end, tally, value, kind: RowKind::Absolute });
        }
    }
    rows.sort_by_key(|row| (row.series, row.window_start));
    Ok(rows)
}

fn series(row: &tokio_postgres::Row) -> Result<SeriesId, StoreError> {
    Ok(SeriesId(column::<i64>(row, 0)? as u32))
}

/// A row that came as JSON, read back.
pub(super) fn parsed<T: DeserializeOwned, U>(
    text: &str,
    read: impl FnOnce(T) -> Option<U>,
) -> Result<U, StoreError> {
    let row = serde_json::from_str(text).ok().and_then(read);
    row.ok_or_else(|| {
        let begin: String = text.chars().take(120).collect();
        StoreError::Fatal(format!(
            "a row of the database was not written by this program, it begins with: {begin}"
        ))
    })
}
