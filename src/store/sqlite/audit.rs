//! The audit log: written with the definitions that an entry is about, read newest first.
//!
//! The key is the entry's place in the journal, so that a repetition changes nothing. The cost of a page is its rows.

use dataflows::types::{Actor, AuditEntry, Epoch, KeyKind};
use rusqlite::{Connection, Row, Transaction, params};

use super::super::text::time;
use super::super::{AuditQuery, AuditRow};
use super::history::{foreign, time_at};

/// Writes one entry.
pub(super) fn put(
    transaction: &Transaction<'_>,
    epoch: Epoch,
    index: u32,
    entry: &AuditEntry,
) -> rusqlite::Result<()> {
    let (actor_type, key_name, customer_id) = match &entry.actor {
        Actor::Server => ("server", None, None),
        Actor::Admin => ("admin", None, None),
        Actor::Stripe => ("stripe", None, None),
        Actor::Key { kind: KeyKind::Business, key_name } => ("business", Some(key_name), None),
        Actor::Key { kind: KeyKind::Customer { customer_id }, key_name } => {
            ("customer_api", Some(key_name), Some(customer_id))
        }
    };
    transaction
        .prepare_cached(
            "INSERT INTO audit_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (epoch, entry) DO NOTHING",
        )?
        .execute(params![
            epoch.cast_signed(),
            index,
            time(entry.at),
            actor_type,
            key_name,
            customer_id,
            entry.action,
            entry.business_id,
            entry.subject,
            entry.request_id,
        ])?;
    Ok(())
}

/// One page. Without a business the whole log is read, which is why there are two statements: one index for each.
pub(super) fn read(connection: &Connection, query: &AuditQuery) -> rusqlite::Result<Vec<AuditRow>> {
    let (epoch, index) = query.before.unwrap_or((Epoch::MAX >> 1, u32::MAX));
    let (epoch, limit) = (epoch.cast_signed(), i64::try_from(query.limit).unwrap_or(i64::MAX));
    match &query.business_id {
        Some(business_id) => connection
            .prepare_cached(
                "SELECT epoch, entry, at, actor_type, actor_key, actor_customer, action, business_id, subject, request_id
                 FROM audit_log WHERE business_id = ?4 AND (epoch, entry) < (?1, ?2)
                 ORDER BY epoch DESC, entry DESC LIMIT ?3",
            )?
            .query_map(params![epoch, index, limit, business_id], row)?
            .collect(),
        None => connection
            .prepare_cached(
                "SELECT epoch, entry, at, actor_type, actor_key, actor_customer, action, business_id, subject, request_id
                 FROM audit_log WHERE (epoch, entry) < (?1, ?2)
                 ORDER BY epoch DESC, entry DESC LIMIT ?3",
            )?
            .query_map(params![epoch, index, limit], row)?
            .collect(),
    }
}

fn row(columns: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let entry = AuditEntry {
        at: time_at(columns, 2)?,
        actor: actor(columns)?,
        action: columns.get(6)?,
        business_id: columns.get(7)?,
        subject: columns.get(8)?,
        request_id: columns.get(9)?,
    };
    Ok(AuditRow { epoch: super::epoch(columns.get(0)?), index: columns.get(1)?, entry })
}

fn actor(columns: &Row<'_>) -> rusqlite::Result<Actor> {
    let kind = match columns.get_ref(3)?.as_str()? {
        "server" => return Ok(Actor::Server),
        "admin" => return Ok(Actor::Admin),
        "stripe" => return Ok(Actor::Stripe),
        "business" => KeyKind::Business,
        "customer_api" => KeyKind::Customer { customer_id: columns.get(5)? },
        _ => return Err(foreign(3, "not a type of actor")),
    };
    Ok(Actor::Key { kind, key_name: columns.get(4)? })
}
