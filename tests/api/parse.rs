//! Tables: what a body means, and which fault it is.

use dataflows::types::{Action, Amount, Limit, MetricType, Micros, Operation, Operator, SeriesSpec, Span};
use tracktags::admission::parse::FaultKind::{self, Malformed, Unacceptable};
use tracktags::admission::parse::series::{Bounds, NewSeries, Patched};
use tracktags::admission::parse::update::NewUpdate;

const BOUNDS: Bounds = Bounds { max_event_age_secs_max: 86_400 };

fn parse(fields: &str) -> NewSeries {
    let body = format!(r#"{{"metric_name": "m", {fields}}}"#);
    NewSeries::parse(body.as_bytes(), &BOUNDS).unwrap_or_else(|fault| panic!("{fields}: {fault:?}"))
}

fn spec(change: impl FnOnce(&mut SeriesSpec)) -> SeriesSpec {
    let mut spec = SeriesSpec::default();
    change(&mut spec);
    spec
}

fn assert_fault(body: &str, kind: FaultKind, code: &str, field: &str) {
    let fault = NewSeries::parse(body.as_bytes(), &BOUNDS).expect_err(body);
    assert_eq!((fault.kind, fault.code, fault.field.as_deref()), (kind, code, Some(field)), "{body}");
}

#[test]
fn a_name_alone_gets_every_default() {
    let new = NewSeries::parse(br#"{"metric_name":"a.b:c-d_1"}"#, &BOUNDS).expect("well-formed");
    assert_eq!(new.metric_name, "a.b:c-d_1");
    assert_eq!(new.spec, SeriesSpec::default());
    assert!(!new.initial_value_given && new.warnings.is_empty());
}

#[test]
fn every_field_is_read() {
    let new = parse(
        r#""metric_type": "reset", "operation": "MAX", "flush_interval": "5m", "reset_interval": "1mo",
           "initial_value": -2.5, "max_event_age": "90m", "cleanup_after": "7d", "tags": {"env": "prod"},
           "plan_limit_value": 1000.0, "plan_limit_operator": "lt", "plan_breach_action": "allow_overage",
           "notify_at": [100, 80, 80], "webhook_url": "https://example.com/hook",
           "metadata": {
             "integrations": {
               "supabase": {"enabled": false, "batch_interval": "30s", "restore_on_startup": false},
               "stripe": {"price_id": "price_1", "export": "overage", "overage_threshold": 5, "scale": 0.001}
             },
             "custom": {"a": [1e2, "\u00e9"]}
           }"#,
    );
    let expected = spec(|spec| {
        (spec.metric_type, spec.operation) = (MetricType::Reset, Operation::Max);
        (spec.flush_interval, spec.reset_interval) = (Span::M5, Some(Span::Mo1));
        spec.initial_value = Amount(-2_500_000_000);
        (spec.max_event_age_secs, spec.cleanup_after_days) = (Some(5_400), Some(7));
        spec.tags.insert("env".to_owned(), "prod".to_owned());
        let (operator, action) = (Operator::Lt, Action::AllowOverage);
        spec.limit = Some(Limit { value: Amount::from_units(1000), operator, action });
        spec.notify_at = vec![80, 100];
        spec.webhook_url = Some("https://example.com/hook".to_owned());
        (spec.stored, spec.batch_interval, spec.restore_on_startup) = (false, Span::S30, false);
        spec.custom = r#"{"a": [1e2, "\u00e9"]}"#.to_owned();
        spec.stripe = new.spec.stripe.clone();
    });
    assert_eq!(new.spec, expected);
    let stripe = new.spec.stripe.expect("given");
    assert!(stripe.enabled && stripe.overage && stripe.price_id.as_deref() == Some("price_1"));
    assert_eq!(
        (stripe.overage_threshold, stripe.scale),
        (Some(Amount::from_units(5)), Some(Amount(1_000_000)))
    );
    assert!(new.initial_value_given && new.warnings.is_empty());
}

#[test]
fn null_is_the_default_and_an_alias_is_the_same_field() {
    let nulls = parse(r#""tags": null, "plan_limit_value": null, "metadata": null, "reset_interval": null"#);
    assert_eq!(nulls.spec, SeriesSpec::default());
    let alias = parse(r#""limit_value": 1, "limit_operator": "gt", "breach_action": "deny""#);
    let seed = parse(r#""plan_limit_value": 1.0, "plan_limit_operator": "gt", "plan_breach_action": "deny""#);
    let both = parse(
        r#""plan_limit_value": 1, "limit_value": 1e0, "limit_operator": "gt", "breach_action": "deny""#,
    );
    assert_eq!((&alias.spec, &both.spec), (&seed.spec, &seed.spec));
    let supabase = parse(r#""metadata": {"integrations": {"supabase": {"batch_interval": "5s"}}}"#);
    let postgres = parse(r#""metadata": {"integrations": {"postgres": {"batch_interval": "5s"}}}"#);
    assert_eq!(supabase.spec, postgres.spec);
}

#[test]
fn the_reset_interval_of_a_reset_series_is_its_flush_interval() {
    assert_eq!(
        parse(r#""metric_type": "reset", "flush_interval": "1m""#).spec.reset_interval,
        Some(Span::M1)
    );
    assert_eq!(
        parse(r#""metric_type": "reset", "reset_interval": "1w""#).spec.reset_interval,
        Some(Span::W1)
    );
}

#[test]
fn warnings_tell_what_may_surprise() {
    let limited = parse(r#""plan_limit_value": 0"#);
    assert_eq!(limited.spec.limit.map(|limit| limit.action), Some(Action::Allow));
    assert!(limited.warnings.iter().any(|warning| warning.contains("allow")), "{:?}", limited.warnings);
    assert!(parse(r#""plan_limit_value": 0, "plan_breach_action": "block""#).warnings.is_empty());
    let original = parse(
        r#""metadata": {"billing": {"enabled": true}, "integrations": {
             "fly": {}, "supabase": {"table_name": "t", "retention_days": 3}, "stripe": {"key_name": "k"}}}"#,
    );
    assert_eq!(original.warnings.len(), 5, "{:?}", original.warnings);
    assert!(
        original.warnings.iter().any(|warning| warning.contains("metadata.integrations.supabase.table_name"))
    );
}

#[test]
fn a_malformed_definition_names_the_field() {
    for (body, code, field) in [
        (r#"{}"#, "missing_field", "metric_name"),
        (r#"{"metric_name": null}"#, "wrong_type", "metric_name"),
        (r#"{"metric_name": ""}"#, "invalid_name", "metric_name"),
        (r#"{"metric_name": "a b"}"#, "invalid_name", "metric_name"),
        (r#"{"metric_name": "m", "metric_name": "m"}"#, "repeated_field", "metric_name"),
        (r#"{"metric_name": "m", "\u006detric_name": "m"}"#, "repeated_field", "metric_name"),
        (r#"{"metric_name": "m", "value": 1}"#, "unknown_field", "value"),
        (r#"{"metric_name": "m", "metadata": {"x": 1}}"#, "unknown_field", "metadata.x"),
        (r#"{"metric_name": "m", "metadata": []}"#, "wrong_type", "metadata"),
        (r#"{"metric_name": "m", "metadata": {"custom": []}}"#, "wrong_type", "metadata.custom"),
        (r#"{"metric_name": "m", "metadata": {"custom": {"a": "\ud800"}}}"#, "wrong_type", "metadata.custom"),
        (r#"{"metric_name": "m", "tags": {"a": 1}}"#, "wrong_type", "tags"),
        (r#"{"metric_name": "m", "tags": {"a": "1", "a": "1"}}"#, "repeated_field", "tags"),
        (r#"{"metric_name": "m", "initial_value": "1"}"#, "wrong_type", "initial_value"),
        (r#"{"metric_name": "m", "operation": "SUM",}"#, "malformed_json", "operation"),
        (r#"{"metric_name": "m", "initial_value": NaN}"#, "malformed_json", "initial_value"),
        (r#"{"metric_name": "m", "notify_at": [0]}"#, "invalid_option", "notify_at"),
        (r#"{"metric_name": "m", "notify_at": [1001]}"#, "invalid_option", "notify_at"),
        (r#"{"metric_name": "m", "notify_at": [80.5]}"#, "wrong_type", "notify_at"),
        (r#"{"metric_name": "m", "webhook_url": "ftp://x"}"#, "invalid_url", "webhook_url"),
        (r#"{"metric_name": "m", "max_event_age": "soon"}"#, "wrong_type", "max_event_age"),
        (r#"{"metric_name": "m", "max_event_age": -1}"#, "wrong_type", "max_event_age"),
        (r#"{"metric_name": "m", "reset_interval": "1h"}"#, "invalid_combination", "reset_interval"),
        (
            r#"{"metric_name": "m", "limit_value": 1, "plan_limit_value": 2}"#,
            "conflicting_alias",
            "plan_limit_value",
        ),
        (
            r#"{"metric_name": "m", "metadata": {"integrations": {"supabase": {}, "postgres": {"enabled": false}}}}"#,
            "conflicting_alias",
            "metadata.integrations.supabase",
        ),
        (
            r#"{"metric_name": "m", "metadata": {"integrations": {"postgres": {"enabled": 1}}}}"#,
            "wrong_type",
            "metadata.integrations.postgres.enabled",
        ),
    ] {
        assert_fault(body, Malformed, code, field);
    }
}

#[test]
fn a_wrong_option_comes_with_the_right_ones() {
    for (fields, valid) in [
        (r#""flush_interval": "2m""#, Span::FLUSH.map(Span::text).to_vec()),
        (r#""flush_interval": "1w""#, Span::FLUSH.map(Span::text).to_vec()),
        (r#""flush_interval": 60"#, Span::FLUSH.map(Span::text).to_vec()),
        (r#""reset_interval": "2d", "metric_type": "reset""#, Span::ALL.map(Span::text).to_vec()),
        (r#""operation": "sum""#, vec!["SUM", "COUNT", "AVG", "MAX", "MIN"]),
        (r#""metric_type": "gauge""#, vec!["reset", "checkpoint", "stripe_billing"]),
        (r#""cleanup_after": "2d""#, vec!["1d", "7d", "30d", "never"]),
        (r#""plan_limit_operator": ">=", "limit_value": 1"#, vec!["gte", "gt", "lte", "lt", "eq"]),
        (
            r#""limit_value": 1, "breach_action": """#,
            vec!["allow", "allow_overage", "deny", "block", "webhook"],
        ),
        (
            r#""metadata": {"integrations": {"supabase": {"batch_interval": "tick"}}}"#,
            Span::FLUSH.map(Span::text).to_vec(),
        ),
        (r#""metadata": {"integrations": {"stripe": {"export": "all"}}}"#, vec!["usage", "overage"]),
    ] {
        let body = format!(r#"{{"metric_name": "m", {fields}}}"#);
        let fault = NewSeries::parse(body.as_bytes(), &BOUNDS).expect_err(fields);
        assert_eq!((fault.kind, fault.valid), (Malformed, valid), "{fields}");
    }
}

#[test]
fn what_is_understood_but_unacceptable_is_422() {
    let long = "x".repeat(300);
    let many: String = (0..51).map(|tag| format!(r#""t{tag}": "","#)).collect();
    for (fields, code, field) in [
        (r#""initial_value": 1e16"#, "amount_out_of_range", "initial_value"),
        (r#""limit_value": -1e400"#, "amount_out_of_range", "limit_value"),
        (r#""max_event_age": 86401"#, "out_of_bounds", "max_event_age"),
        (
            r#""metric_type": "reset", "flush_interval": "1h", "reset_interval": "30m""#,
            "interval_too_short",
            "reset_interval",
        ),
        (r#""plan_breach_action": "block""#, "limit_incomplete", "plan_breach_action"),
        (r#""limit_operator": "gt""#, "limit_incomplete", "plan_limit_operator"),
        (
            r#""limit_value": 1, "breach_action": "block", "limit_operator": "eq""#,
            "invalid_combination",
            "plan_limit_operator",
        ),
        (
            r#""limit_value": 1, "breach_action": "block", "operation": "AVG""#,
            "invalid_combination",
            "plan_breach_action",
        ),
        (
            r#""limit_value": 1, "breach_action": "block",
               "metadata": {"integrations": {"supabase": {"restore_on_startup": false}}}"#,
            "invalid_combination",
            "metadata.integrations.supabase.restore_on_startup",
        ),
        // As many as are sent, the same ones too: that is what a schema can say.
        (r#""notify_at": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"#, "out_of_bounds", "notify_at"),
        (&format!(r#""tags": {{"a": "{long}"}}"#), "out_of_bounds", "tags"),
        (r#""tags": {"a:b": "c"}"#, "out_of_bounds", "tags"),
        (&format!(r#""tags": {{{}}}"#, many.trim_end_matches(',')), "out_of_bounds", "tags"),
        (
            &format!(r#""metadata": {{"custom": {{"a": "{}"}}}}"#, "x".repeat(16_384)),
            "out_of_bounds",
            "metadata.custom",
        ),
        (
            r#""metadata": {"integrations": {"stripe": {"scale": 0}}}"#,
            "out_of_bounds",
            "metadata.integrations.stripe.scale",
        ),
    ] {
        assert_fault(&format!(r#"{{"metric_name": "m", {fields}}}"#), Unacceptable, code, field);
    }
}

#[test]
fn a_body_that_is_no_object_is_malformed_as_a_whole() {
    let bodies: [&[u8]; 7] = [b"", b"null", b"[]", b"\"m\"", b"{", b"{}{}", b"{\"\xff\": 1}"];
    for body in bodies {
        let fault = NewSeries::parse(body, &BOUNDS).expect_err("no object");
        assert_eq!((fault.kind, fault.field), (Malformed, None), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_body_hash_is_that_of_what_was_meant() {
    let hash = |fields: &str| parse(fields).body_hash();
    assert_eq!(hash(r#""initial_value": 5"#), hash(r#""operation": "SUM", "initial_value": 5.0"#));
    assert_ne!(hash(r#""initial_value": 5"#), hash(r#""initial_value": 6"#));
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let before = parse(
        r#""metric_type": "reset", "flush_interval": "1m", "tags": {"a": "b"}, "limit_value": 5,
           "breach_action": "deny", "metadata": {"integrations": {"supabase": {"batch_interval": "1h"}}}"#,
    )
    .spec;
    let patch = |body: &str| Patched::parse(body.as_bytes(), &before, &BOUNDS).map(|patched| patched.spec);
    let with = |change: fn(&mut SeriesSpec)| {
        let mut spec = before.clone();
        change(&mut spec);
        Ok(spec)
    };
    let limit = |value: i64| {
        Some(Limit { value: Amount::from_units(value), operator: Operator::Gte, action: Action::Deny })
    };
    assert_eq!(before.limit, limit(5));
    assert_eq!(patch("{}"), Ok(before.clone()));
    assert_eq!(patch(r#"{"tags": null}"#), with(|spec| spec.tags.clear()));
    assert_eq!(patch(r#"{"limit_value": null}"#), with(|spec| spec.limit = None));
    assert_eq!(patch(r#"{"limit_value": 6}"#).map(|spec| spec.limit), Ok(limit(6)));
    assert_eq!(
        patch(r#"{"metadata": {"integrations": {"supabase": {"enabled": false}}}}"#),
        with(|spec| spec.stored = false)
    );
    // The live period was the flush window, and stays it.
    let five =
        |spec: &mut SeriesSpec| (spec.flush_interval, spec.reset_interval) = (Span::M5, Some(Span::M5));
    assert_eq!(patch(r#"{"flush_interval": "5m"}"#), with(five));
    let checkpoint =
        |spec: &mut SeriesSpec| (spec.metric_type, spec.reset_interval) = (MetricType::Checkpoint, None);
    assert_eq!(patch(r#"{"metric_type": "checkpoint"}"#), with(checkpoint));
    for (body, field) in [
        (r#"{"metric_name": "n"}"#, "metric_name"),
        (r#"{"initial_value": 1}"#, "initial_value"),
        (r#"{"limit_value": null, "breach_action": "deny"}"#, "plan_breach_action"),
    ] {
        assert_eq!(patch(body).map_err(|fault| fault.field), Err(Some(field.to_owned())), "{body}");
    }
}

#[test]
fn an_update_is_a_value_perhaps_with_time_and_id() {
    let parse = |body: &str| NewUpdate::parse(body.as_bytes());
    let plain = NewUpdate { amount: Amount::from_units(50), event_at: None, id: None };
    assert_eq!(parse(r#"{"value": 50.0}"#), Ok(plain.clone()));
    assert_eq!(parse(r#" { "value" : 5e1 , "timestamp":null, "id":null } "#), Ok(plain.clone()));
    let full = NewUpdate { event_at: Some(Micros(1_000_000)), id: Some("evt-1".to_owned()), ..plain };
    assert_eq!(parse(r#"{"id": "evt\u002d1", "value": 50, "timestamp": "1970-01-01T00:00:01Z"}"#), Ok(full));
    for (body, kind, field) in [
        (r#"{}"#, Malformed, Some("value")),
        (r#"{"value": null}"#, Malformed, Some("value")),
        (r#"{"value": true}"#, Malformed, Some("value")),
        (r#"{"value": "1"}"#, Malformed, Some("value")),
        (r#"{"value": [1]}"#, Malformed, Some("value")),
        (r#"{"value": NaN}"#, Malformed, Some("value")),
        (r#"{"value": -Infinity}"#, Malformed, Some("value")),
        (r#"{"value": 01}"#, Malformed, Some("value")),
        (r#"{"value": 1e400}"#, Unacceptable, Some("value")),
        (r#"{"value": 1000000000000000.1}"#, Unacceptable, Some("value")),
        (r#"{"value": 1, "value": 1}"#, Malformed, Some("value")),
        (r#"{"value": 1, "timestamp": 1700000000}"#, Malformed, Some("timestamp")),
        (r#"{"value": 1, "id": ""}"#, Malformed, Some("id")),
        (r#"{"value": 1, "id": "a/b"}"#, Malformed, Some("id")),
        (r#"{"value": 1, "metric_name": "m"}"#, Malformed, Some("metric_name")),
        (r#"{"value": 1} x"#, Malformed, None),
    ] {
        let fault = parse(body).expect_err(body);
        assert_eq!((fault.kind, fault.field.as_deref()), (kind, field), "{body}");
    }
}
