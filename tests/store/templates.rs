//! Templates: as a table, and read back by a start on an empty journal.

use dataflows::types::{Business, Definition, Micros, SeriesSpec, Template};

use super::reading::described;
use super::support::*;

const TEMPLATES: &str = "SELECT business_id, metric_name, create_customers, created_at FROM templates
    ORDER BY business_id, metric_name";

/// A template in which every field differs from the default.
fn full(business_id: &str, metric_name: &str) -> Template {
    let spec =
        SeriesSpec { custom: r#"{"odd": 1.50, "odd":  "\u0000 ' \" {schema} $1"}"#.into(), ..described() };
    let (business_id, metric_name) = (business_id.to_owned(), metric_name.to_owned());
    Template { business_id, metric_name, spec, create_customers: true, created_at: at(60) }
}

fn plain(business_id: &str, metric_name: &str, created_at: Micros) -> Template {
    let template = full(business_id, metric_name);
    Template { spec: SeriesSpec::default(), create_customers: false, created_at, ..template }
}

fn ended(business_id: &str, metric_name: &str) -> Definition {
    Definition::TemplateDeleted { business_id: business_id.into(), metric_name: metric_name.into() }
}

fn business(business_id: &str) -> Definition {
    let (business_id, business_name) = (business_id.to_owned(), "Acme".to_owned());
    Definition::BusinessPut(Business { business_id, business_name, email: "a".into(), created_at: T0 })
}

#[test]
fn templates_are_a_table_and_the_last_of_a_stretch_counts() {
    on_every_store(|database| {
        let mut store = database.store();
        let put = Definition::TemplatePut;
        let first = vec![
            put(plain("biz_1", "calls", T0)),
            put(full("biz_1", "calls")),
            put(full("biz_1", "gone")),
            ended("biz_1", "gone"),
            put(full("biz_1", "seats")),
            put(full("biz_2", "calls")),
        ];
        define(&mut store, 1, first);
        let line = |name: &str| format!("{name}|1|2026-11-24T06:01:00.000000Z");
        assert_eq!(
            database.lines(TEMPLATES),
            [line("biz_1|calls"), line("biz_1|seats"), line("biz_2|calls")]
        );
        let custom = database.lines("SELECT CAST(custom AS text) FROM templates WHERE business_id = 'biz_2'");
        assert_eq!(custom, [full("", "").spec.custom], "byte for byte");
        define(&mut store, 2, vec![put(plain("biz_1", "calls", T0)), ended("biz_1", "seats")]);
        let plain = "biz_1|calls|0|2026-11-24T06:00:00.000000Z".to_owned();
        assert_eq!(database.lines(TEMPLATES), [plain.clone(), line("biz_2|calls")]);
        // One that was there before, and one of the same stretch; what comes again is new.
        let gone = Definition::BusinessDeleted { business_id: "biz_2".into() };
        let second = vec![put(full("biz_2", "seats")), gone, put(full("biz_2", "late"))];
        define(&mut store, 3, second);
        assert_eq!(database.lines(TEMPLATES), [plain, line("biz_2|late")]);
    });
}

#[test]
fn a_new_machine_has_them_as_they_were() {
    on_every_store(|database| {
        let mut store = database.store();
        let templates = [full("biz_1", "calls"), plain("biz_1", "seats", T0), plain("biz_2", "calls", at(5))];
        let put = templates.iter().cloned().map(Definition::TemplatePut);
        define(&mut store, 1, [business("biz_1"), business("biz_2")].into_iter().chain(put).collect());
        let Some(content) = store.content() else { return };
        let read: Vec<_> = content
            .definitions
            .into_iter()
            .filter_map(|definition| match definition {
                Definition::TemplatePut(template) => Some(template),
                _ => None,
            })
            .collect();
        assert_eq!(read, templates);
    });
}
