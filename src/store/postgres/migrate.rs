//! Bringing the schema up to date: what is missing, in one transaction with its record, one start at a time.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::connect::Target;
use super::errors::refused;
use crate::store::StoreError;
use crate::store::migrations::{self, Migration};

/// Which lock keeps starts of all schemas from migrating at once: "track" in ASCII.
const LOCK: i64 = 0x74_72_61_63_6b;

/// Applies what is missing of `known`; the number of the newest. Cheap when nothing is.
pub(super) async fn migrate(
    client: &mut Client,
    target: &Target,
    known: &[Migration],
) -> Result<u32, StoreError> {
    let failed = |error: tokio_postgres::Error| refused(&error);
    let newest = known.last().map_or(0, |migration| migration.version);
    let applied = applied(client, target).await?;
    if applied.as_ref().is_some_and(|applied| applied.len() == known.len()) {
        migrations::missing(known, &applied.unwrap_or_default())?;
        return Ok(newest);
    }
    let transaction = client.transaction().await.map_err(failed)?;
    transaction
        .query_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)])
        .await
        .map_err(failed)?;
    // A schema that is there may belong to somebody who lets this user in and no more.
    let exists = transaction
        .query_typed("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[(&target.schema(), Type::TEXT)])
        .await
        .map_err(failed)?;
    if exists.is_empty() {
        transaction.batch_execute(&target.sql("CREATE SCHEMA {schema}")).await.map_err(failed)?;
    }
    let record = "CREATE TABLE IF NOT EXISTS {schema}.schema_migrations (
        version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now())";
    transaction.batch_execute(&target.sql(record)).await.map_err(failed)?;
    let applied = self::applied(transaction.client(), target).await?.unwrap_or_default();
    for step in migrations::missing(known, &applied)? {
        transaction.batch_execute(&target.sql(step.sql)).await.map_err(failed)?;
        let (version, checksum) = (step.version as i32, step.checksum());
        transaction
            .query_typed(
                &target.sql(
                    "INSERT INTO {schema}.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                ),
                &[(&version, Type::INT4), (&step.name, Type::TEXT), (&checksum, Type::TEXT)],
            )
            .await
            .map_err(failed)?;
        tracing::info!(version = step.version, name = step.name, schema = target.schema(), "migrated");
    }
    transaction.commit().await.map_err(failed)?;
    Ok(newest)
}

/// The record, rising; none if there is no such table.
async fn applied(client: &Client, target: &Target) -> Result<Option<Vec<(u32, String)>>, StoreError> {
    let failed = |error: tokio_postgres::Error| refused(&error);
    let table = format!("\"{}\".schema_migrations", target.schema());
    let found = client
        .query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&table, Type::TEXT)])
        .await
        .map_err(failed)?;
    if !found.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let record = "SELECT version, checksum FROM {schema}.schema_migrations ORDER BY version";
    let rows = client.query_typed(&target.sql(record), &[]).await.map_err(failed)?;
    Ok(Some(rows.iter().map(|row| (row.get::<_, i32>(0).cast_unsigned(), row.get(1))).collect()))
}
