//! Generated nonsense at every field: an answer that names the field, or acceptance by the rules; never a panic.

use dataflows::types::{Amount, CustomerDetails, Micros, SeriesSpec};
use proptest::prelude::*;
use serde_json::{Value, json};
use tracktags::admission::parse::Fault;
use tracktags::admission::parse::business::BusinessBody;
use tracktags::admission::parse::check::Asked;
use tracktags::admission::parse::customer::CustomerBody;
use tracktags::admission::parse::key::{self, KeyBody, NewKey};
use tracktags::admission::parse::names;
use tracktags::admission::parse::object::NESTING_MAX;
use tracktags::admission::parse::plan::{NewPlan, changed_limit, new_limit};
use tracktags::admission::parse::proxy::{self, NewCall};
use tracktags::admission::parse::series::{Bounds, NewSeries, Patched};
use tracktags::admission::parse::update::NewUpdate;
use tracktags::admission::parse::webhook;

const BOUNDS: Bounds = Bounds { max_event_age_secs_max: 86_400 };

/// Every field of a definition.
const FIELDS: [&str; 30] = [
    "metric_name",
    "metric_type",
    "operation",
    "flush_interval",
    "reset_interval",
    "initial_value",
    "max_event_age",
    "cleanup_after",
    "tags",
    "plan_limit_value",
    "limit_value",
    "plan_limit_operator",
    "limit_operator",
    "plan_breach_action",
    "breach_action",
    "notify_at",
    "webhook_url",
    "metadata",
    "metadata.custom",
    "metadata.integrations",
    "metadata.integrations.supabase",
    "metadata.integrations.supabase.enabled",
    "metadata.integrations.supabase.batch_interval",
    "metadata.integrations.postgres.restore_on_startup",
    "metadata.integrations.stripe",
    "metadata.integrations.stripe.enabled",
    "metadata.integrations.stripe.price_id",
    "metadata.integrations.stripe.export",
    "metadata.integrations.stripe.overage_threshold",
    "metadata.integrations.stripe.scale",
];

const CUSTOMER_FIELDS: [&str; 9] = [
    "customer_id",
    "customer_name",
    "name",
    "email",
    "description",
    "plan_id",
    "stripe_customer_id",
    "stripe_price_id",
    "subscription_ends_at",
];

const PLAN_FIELDS: [&str; 2] = ["plan_name", "stripe_price_id"];

const LIMIT_FIELDS: [&str; 11] = [
    "plan_id",
    "metric_name",
    "limit_value",
    "limit_operator",
    "breach_operator",
    "breach_action",
    "limit_period",
    "metric_type",
    "operation",
    "notify_at",
    "webhook_url",
];

const QUESTION_FIELDS: [&str; 4] = ["metric_name", "scope", "customer_id", "value"];

const CALL_FIELDS: [&str; 7] =
    ["scope", "customer_id", "metric_name", "target_url", "method", "headers", "body"];

/// What is wrong with a limit, made and changed.
fn check_limit(body: &[u8]) -> [Option<Fault>; 2] {
    let good = br#"{"metric_name": "m", "limit_value": 1, "plan_id": "plan_1"}"#;
    let before = new_limit(good, "biz", "lim_1".to_owned(), Micros(0)).expect("well-formed");
    [new_limit(body, "biz", "lim_2".to_owned(), Micros(0)).err(), changed_limit(body, &before).err()]
}

/// A body in which the field has the value, given as text; everything else is in order.
fn body(field: &str, text: &str) -> String {
    let nested =
        field.split('.').rev().fold(text.to_owned(), |inner, name| format!(r#"{{"{name}": {inner}}}"#));
    let mut members = vec![nested[1..nested.len() - 1].to_owned()];
    let mut complete = |name: &str, value: &str| {
        if field != name && field != format!("plan_{name}") {
            members.push(format!(r#""{name}": {value}"#));
        }
    };
    complete("metric_name", r#""m""#);
    if field.ends_with("limit_operator") || field.ends_with("breach_action") {
        complete("limit_value", "1");
    }
    if field == "reset_interval" {
        complete("metric_type", r#""reset""#);
    }
    format!("{{{}}}", members.join(", "))
}

fn check_definition(field: &str, text: &str) -> Result<(), Fault> {
    let body = body(field, text);
    let post = NewSeries::parse(body.as_bytes(), &BOUNDS).map(drop);
    let patch = body.replacen(r#""metric_name": "m""#, r#""cleanup_after": "1d""#, 1);
    let _ = Patched::parse(patch.as_bytes(), &SeriesSpec::default(), &BOUNDS);
    post
}

/// Whether the fault is about the field or something within it.
fn concerns(fault: &Fault, field: &str) -> bool {
    let named = fault.field.as_deref().unwrap_or_default();
    named == field || named.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'))
}

fn hostile_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no NaN", |number| number.is_finite()).prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[\\x00-\\x1f\"\\\\/:%{}\\[\\]]{0,20}".prop_map(Value::from),
        "[a-z_]{200,400}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((".{0,8}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_hostile_value_is_refused_at_its_field(at in 0..FIELDS.len(), value in hostile_value()) {
        let field = FIELDS[at];
        if let Err(fault) = check_definition(field, &value.to_string()) {
            prop_assert!(concerns(&fault, field), "{field}: {fault:?}");
        }
    }

    #[test]
    fn a_hostile_value_in_an_update_is_refused_at_its_field(at in 0usize..3, value in hostile_value()) {
        let field = ["value", "timestamp", "id"][at];
        let mut body = json!({"value": 1});
        body[field] = value;
        if let Err(fault) = NewUpdate::parse(body.to_string().as_bytes()) {
            prop_assert_eq!(fault.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_hostile_value_in_a_customer_is_refused_at_its_field(at in 0..CUSTOMER_FIELDS.len(), value in hostile_value()) {
        let field = CUSTOMER_FIELDS[at];
        let body = json!({ field: value }).to_string();
        let read = CustomerBody::parse(body.as_bytes()).and_then(|body| {
            body.agrees_with("c")?;
            body.customer_name()?;
            body.plan_id(None)?;
            body.details(CustomerDetails::default())
        });
        if let Err(fault) = read {
            prop_assert_eq!(fault.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_hostile_value_in_a_key_or_a_business_is_refused_at_its_field(at in 0..6usize, value in hostile_value()) {
        let field = ["key_type", "key_name", "expires_at", "scopes", "business_name", "email"][at];
        let mut body = if at < 4 { json!({"key_type": "business", "key_name": "k"}) } else { json!({}) };
        body[field] = value;
        let body = body.to_string();
        let fault = match at {
            0..4 => NewKey::parse(body.as_bytes(), key::BUSINESS, &mut Vec::new()).err(),
            _ => BusinessBody::parse(body.as_bytes()).err(),
        };
        if let Some(fault) = fault {
            prop_assert_eq!(fault.field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_hostile_value_in_secrets_is_refused_at_its_field_and_not_shown(at in 0..6usize, value in hostile_value()) {
        let field = [
            "key_type", "key_name", "credentials", "credentials.secret_key", "credentials.webhook_secret", "url",
        ][at];
        let mut credentials = json!({"secret_key": "sk_test_1", "webhook_secret": "whsec_1"});
        if let Some(name) = field.strip_prefix("credentials.") {
            credentials[name] = value.clone();
        }
        let mut body = json!({"key_type": "stripe", "key_name": "k", "credentials": credentials});
        if !field.contains('.') {
            body[field] = value.clone();
        }
        let fault = match field {
            "url" => webhook::parse(json!({"url": value}).to_string().as_bytes()).err(),
            _ => KeyBody::parse(body.to_string().as_bytes(), &mut Vec::new()).err(),
        };
        if let Some(fault) = fault {
            prop_assert!(concerns(&fault, field), "{field}: {fault:?}");
            let shown = value.as_str().filter(|text| text.len() > 8);
            prop_assert!(shown.is_none_or(|text| !format!("{fault:?}").contains(text)), "{fault:?}");
        } else if at > 2 {
            prop_assert!(value.as_str().is_some_and(|text| text.len() > 3), "{field} taken: {value}");
        }
    }

    #[test]
    fn a_hostile_value_in_a_plan_or_a_limit_is_refused_at_its_field(
        at in 0..PLAN_FIELDS.len() + LIMIT_FIELDS.len(), value in hostile_value(),
    ) {
        let (field, faults) = match PLAN_FIELDS.get(at) {
            Some(field) => {
                let mut body = json!({"plan_name": "p"});
                body[field] = value;
                (*field, [NewPlan::parse(body.to_string().as_bytes()).err(), None])
            }
            None => {
                let field = LIMIT_FIELDS[at - PLAN_FIELDS.len()];
                let mut body = json!({"metric_name": "m", "limit_value": 1, "plan_id": "plan_1"});
                body[field] = value;
                (field, check_limit(body.to_string().as_bytes()))
            }
        };
        for fault in faults.into_iter().flatten() {
            prop_assert_eq!(fault.field.as_deref(), Some(field), "{:?}", fault);
        }
    }

    #[test]
    fn a_hostile_value_in_a_question_is_refused_at_its_field(
        at in 0..QUESTION_FIELDS.len(), before in 0..3usize, value in hostile_value(),
    ) {
        let field = QUESTION_FIELDS[at];
        let mut question = json!({"metric_name": "m"});
        question[field] = value;
        let mut questions = vec![json!({"metric_name": "m"}); before];
        questions.push(question.clone());
        for (body, named) in [(question, field.to_owned()), (questions.into(), format!("[{before}].{field}"))] {
            if let Err(fault) = Asked::parse(body.to_string().as_bytes()) {
                prop_assert_eq!(fault.field, Some(named), "{}", body);
            }
        }
    }

    #[test]
    fn a_hostile_value_in_a_call_is_refused_at_its_field(at in 0..CALL_FIELDS.len(), value in hostile_value()) {
        let field = CALL_FIELDS[at];
        let mut body = json!({"metric_name": "m", "target_url": "https://example.com/"});
        body[field] = value;
        if let Err(fault) = NewCall::parse(body.to_string().as_bytes()) {
            prop_assert!(concerns(&fault, field), "{field}: {fault:?}");
        }
    }

    #[test]
    fn a_hostile_value_in_proxy_targets_is_refused_at_its_field(value in hostile_value()) {
        let body = json!({"proxy_targets": value.clone()}).to_string();
        match proxy::targets(body.as_bytes()) {
            Ok(targets) => prop_assert_eq!(json!(targets), value),
            Err(fault) => prop_assert_eq!(fault.field.as_deref(), Some("proxy_targets")),
        }
    }

    #[test]
    fn text_that_is_no_json_is_refused_at_its_field(
        at in 0..FIELDS.len(),
        text in prop_oneof![
            "(NaN|nan|-?Infinity|undefined|0x1f|\\.5|'x'|True|\\+1|01|1e|--1|\u{661})",
            Just("\"\\x\"".to_owned()),
            Just("\"tab\there\"".to_owned()),
            Just("[1,]".to_owned()),
            Just("{\"a\" 1}".to_owned()),
        ],
    ) {
        let fault = check_definition(FIELDS[at], &text).expect_err(&text);
        prop_assert!(fault.field.is_some(), "{fault:?}");
        let named = fault.field.as_deref().unwrap_or_default();
        prop_assert!(FIELDS[at].starts_with(named), "{named} for {}", FIELDS[at]);
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..400) {
        let _ = NewSeries::parse(&bytes, &BOUNDS);
        let _ = NewUpdate::parse(&bytes);
        let _ = CustomerBody::parse(&bytes);
        let _ = BusinessBody::parse(&bytes);
        let _ = KeyBody::parse(&bytes, &mut Vec::new());
        let _ = webhook::parse(&bytes);
        let _ = NewPlan::parse(&bytes);
        let _ = check_limit(&bytes);
        let _ = NewCall::parse(&bytes);
        let _ = proxy::targets(&bytes);
        let _ = Asked::parse(&bytes);
        let _ = Asked::parse(&[b"[", &bytes[..], b"]"].concat());
        let _ = names::idempotency_key(&bytes);
        // A good body, cut or spoilt somewhere.
        let good = body("metadata.integrations.stripe.price_id", r#""price""#).into_bytes();
        let cut = cut.min(good.len() - 1);
        prop_assert!(NewSeries::parse(&good[..cut], &BOUNDS).is_err());
        let mut spoilt = good;
        spoilt.splice(cut..cut, bytes);
        let _ = NewSeries::parse(&spoilt, &BOUNDS);
    }

    #[test]
    fn a_number_is_an_exact_amount_or_out_of_range(
        digits in "-?(0|[1-9][0-9]{0,39})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?",
    ) {
        let body = format!(r#"{{"value": {digits}}}"#);
        match NewUpdate::parse(body.as_bytes()) {
            Ok(update) => {
                prop_assert!(update.amount.0.abs() <= Amount::LIMIT.0);
                prop_assert_eq!(digits.parse::<Amount>(), Ok(update.amount));
            }
            Err(fault) => prop_assert_eq!(fault.code, "amount_out_of_range"),
        }
    }
}

#[test]
fn nesting_is_bounded_at_every_field() {
    for field in FIELDS {
        for depth in [NESTING_MAX + 1, 100_000] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = open.repeat(depth) + "1" + &close.repeat(depth);
                let fault = check_definition(field, &text).expect_err(field);
                let named = fault.field.unwrap_or_default();
                assert!(field.starts_with(&named) && !named.is_empty(), "{named} for {field}");
            }
        }
    }
}

#[test]
fn nesting_is_bounded_in_plans_questions_and_calls() {
    let deep = |depth: usize, (open, close): (&str, &str)| open.repeat(depth) + "1" + &close.repeat(depth);
    for depth in [NESTING_MAX + 1, 100_000] {
        for brackets in [("[", "]"), ("{\"a\":", "}")] {
            let text = deep(depth, brackets);
            let with = |field: &str| format!(r#"{{"{field}": {text}}}"#);
            let plans = PLAN_FIELDS.map(|it| (it, vec![NewPlan::parse(with(it).as_bytes()).err()]));
            let limits = LIMIT_FIELDS.map(|it| (it, check_limit(with(it).as_bytes()).to_vec()));
            let questions = QUESTION_FIELDS.map(|it| (it, vec![Asked::parse(with(it).as_bytes()).err()]));
            let listed = QUESTION_FIELDS.map(|it| {
                let fault = Asked::parse(format!("[{}]", with(it)).as_bytes()).expect_err(it);
                assert_eq!(fault.field, Some(format!("[0].{it}")));
                (it, vec![Some(Fault { field: Some(it.to_owned()), ..fault })])
            });
            let calls = CALL_FIELDS.map(|it| (it, vec![NewCall::parse(with(it).as_bytes()).err()]));
            for (field, faults) in plans.into_iter().chain(limits).chain(questions).chain(listed).chain(calls)
            {
                for fault in faults {
                    let fault = fault.expect(field);
                    assert_eq!((fault.code, fault.field.as_deref()), ("nesting_too_deep", Some(field)));
                }
            }
        }
        // A list of lists, where questions should be.
        let fault = Asked::parse(deep(depth, ("[", "]")).as_bytes()).expect_err("no question");
        assert_eq!(fault.code, "wrong_type");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_at_every_field() {
    for field in FIELDS {
        let wrong = match field {
            "max_event_age" => "[1]",
            "initial_value" | "metadata" | "metadata.custom" | "tags" | "notify_at" => r#""text""#,
            field if field.ends_with("limit_value") => r#""1""#,
            field if field.ends_with("threshold") || field.ends_with("scale") => "true",
            _ => "12",
        };
        let fault = check_definition(field, wrong).expect_err(field);
        assert!(concerns(&fault, field), "{field}: {fault:?}");
    }
}
