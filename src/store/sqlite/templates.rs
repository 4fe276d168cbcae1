//! The projection of templates. A part of `definitions`, of which the rules hold.

use dataflows::types::Template;
use rusqlite::params;

use super::super::records::DescriptionRow;
use super::super::text::time;
use super::definitions::{Run, json};

pub(super) fn put(run: Run<'_>, template: &Template) -> rusqlite::Result<()> {
    run(
        "INSERT OR REPLACE INTO templates VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            template.business_id,
            template.metric_name,
            template.create_customers,
            json(&DescriptionRow::from(&template.spec)),
            template.spec.custom,
            time(template.created_at),
        ],
    )
}

pub(super) fn end(run: Run<'_>, business_id: &str, metric_name: &str) -> rusqlite::Result<()> {
    run(
        "DELETE FROM templates WHERE business_id = ?1 AND metric_name = ?2",
        params![business_id, metric_name],
    )
}

pub(super) fn end_business(run: Run<'_>, business_id: &str) -> rusqlite::Result<()> {
    run("DELETE FROM templates WHERE business_id = ?1", params![business_id])
}
