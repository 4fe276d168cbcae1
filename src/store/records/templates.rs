//! Rows of `templates`.

use dataflows::types::{Definition, Template};
use serde::{Deserialize, Serialize};

use super::DescriptionRow;
use crate::store::text::{read_time, time};

/// `templates`, without `custom`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct TemplateRow {
    business_id: String,
    metric_name: String,
    create_customers: bool,
    definition: DescriptionRow,
    created_at: String,
}

impl From<&Template> for TemplateRow {
    fn from(template: &Template) -> Self {
        TemplateRow {
            business_id: template.business_id.clone(),
            metric_name: template.metric_name.clone(),
            create_customers: template.create_customers,
            definition: (&template.spec).into(),
            created_at: time(template.created_at),
        }
    }
}

impl TemplateRow {
    pub fn definition(self, custom: String) -> Option<Definition> {
        let TemplateRow { business_id, metric_name, create_customers, definition, created_at } = self;
        let (spec, created_at) = (definition.spec(custom)?, read_time(&created_at)?);
        Some(Definition::TemplatePut(Template {
            business_id,
            metric_name,
            spec,
            create_customers,
            created_at,
        }))
    }
}
