//! Templates in the projection. A part of what `definitions` works out and writes, of which the rules hold.

use std::collections::{BTreeMap, BTreeSet};

use dataflows::types::Template;

use super::definitions::{Pair, delete_named, put_beside};
use super::{Session, Target};
use crate::store::StoreError;
use crate::store::records::TemplateRow;

const PUT_TEMPLATES: &str = "
    INSERT INTO {schema}.templates (business_id, metric_name, create_customers, definition, custom, created_at)
    SELECT business_id, metric_name, create_customers, definition, kept::json, created_at
    FROM ROWS FROM (json_populate_recordset(NULL::{schema}.templates, $1::text::json)) WITH ORDINALITY AS new
    JOIN unnest($2) WITH ORDINALITY AS beside (kept, ordinality) USING (ordinality)
    ON CONFLICT (business_id, metric_name) DO UPDATE
    SET create_customers = excluded.create_customers, definition = excluded.definition, custom = excluded.custom,
        created_at = excluded.created_at";

/// What a stretch of definitions leaves behind of templates.
#[derive(Default)]
pub(super) struct LeftTemplates<'a> {
    templates: BTreeMap<Pair<'a>, (TemplateRow, &'a str)>,
    gone: BTreeSet<Pair<'a>>,
}

impl<'a> LeftTemplates<'a> {
    pub fn put_template(&mut self, template: &'a Template) {
        let name = (template.business_id.as_str(), template.metric_name.as_str());
        self.templates.insert(name, (template.into(), &template.spec.custom));
    }

    pub fn end_template(&mut self, template: Pair<'a>) {
        self.templates.remove(&template);
        self.gone.insert(template);
    }

    /// What was there before is deleted with the rest of the business.
    pub fn end_business(&mut self, business_id: &str) {
        self.templates.retain(|(of, _), _| *of != business_id);
    }

    pub async fn delete(&self, session: &Session, target: &Target) -> Result<(), StoreError> {
        delete_named(session, target, "templates", "metric_name", &self.gone).await
    }

    pub async fn put(self, session: &Session, target: &Target) -> Result<(), StoreError> {
        put_beside(session, target, PUT_TEMPLATES, self.templates.into_values()).await
    }
}
