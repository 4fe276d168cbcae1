//! `POST /api/v1/check`: may a customer, or the business, use so much of a metric? One question, or an array of them.

use dataflows::types::{Amount, Scope};

use super::Fault;
use super::names::{self, SCOPES};
use super::object::{Object, Schema};

/// The fields of a question.
pub const QUESTION: Schema =
    Schema { path: "", known: &["metric_name", "scope", "customer_id", "value"], ignored: &[] };

/// Questions in one request.
pub const QUESTIONS_MAX: usize = 1_000;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `metric_name`.
    pub metric_name: String,
    /// `scope`; none if it is left to `customer_id` and to the caller's key.
    pub scope: Option<Scope>,
    /// `customer_id`.
    pub customer_id: Option<String>,
    /// `value`; 1 by default.
    pub amount: Amount,
}

/// What a body asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One question.
    One(Question),
    /// An array.
    Many(Vec<Question>),
}

impl Asked {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        if !body.trim_ascii_start().starts_with(b"[") {
            return question(Object::body(body, &QUESTION, &mut Vec::new())?).map(Asked::One);
        }
        Object::list(body, &QUESTION, QUESTIONS_MAX, question).map(Asked::Many)
    }
}

fn question(object: Object<'_>) -> Result<Question, Fault> {
    Ok(Question {
        metric_name: object.required("metric_name")?.named(names::metric_name)?,
        scope: object.some("scope").map(|value| value.choice(SCOPES)).transpose()?,
        customer_id: object.some("customer_id").map(|value| value.named(names::id)).transpose()?,
        amount: object.some("value").map_or(Ok(Amount::from_units(1)), |value| value.amount())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_or_many() {
        let one = Asked::parse(br#"{"metric_name": "calls"}"#).expect("well-formed");
        let Asked::One(question) = &one else { panic!("one is asked") };
        assert_eq!((question.amount, &question.customer_id), (Amount::from_units(1), &None));
        let many = Asked::parse(br#" [{"metric_name": "a", "value": 2}, {"metric_name": "b"}]"#);
        let Ok(Asked::Many(questions)) = many else { panic!("many are asked") };
        assert_eq!(questions[0].amount, Amount::from_units(2));
        assert_eq!(Asked::parse(b"[]"), Ok(Asked::Many(Vec::new())));
    }

    #[test]
    fn whatever_is_wrong_with_an_item_names_its_place() {
        for (item, field, code) in [
            ("1", "[3]", "wrong_type"),
            ("{}", "[3].metric_name", "missing_field"),
            (r#"{"metric_name": "a b"}"#, "[3].metric_name", "invalid_name"),
            (r#"{"metric_name": "a", "value": "1"}"#, "[3].value", "wrong_type"),
            (r#"{"metric_name": "a", "value": 1e40}"#, "[3].value", "amount_out_of_range"),
            (r#"{"metric_name": "a", "scope": "tenant"}"#, "[3].scope", "invalid_option"),
            (r#"{"metric": "a"}"#, "[3].metric", "unknown_field"),
        ] {
            let good = r#"{"metric_name": "a"}"#;
            let body = format!("[{good}, {good}, {good}, {item}, {item}]");
            let fault = Asked::parse(body.as_bytes()).expect_err(item);
            assert_eq!((fault.field.as_deref(), fault.code), (Some(field), code), "{item}");
            let alone = Asked::parse(item.as_bytes()).expect_err(item);
            assert_eq!(
                alone.field.as_deref(),
                field.strip_prefix("[3]."),
                "{item}: one question has no place"
            );
        }
    }

    #[test]
    fn whatever_is_wrong_is_said() {
        let too_many = format!("[{}]", vec![r#"{"metric_name":"a"}"#; QUESTIONS_MAX + 1].join(","));
        for (body, code) in [
            ("[1]", "wrong_type"),
            (r#"[{"metric_name": "a"}"#, "malformed_json"),
            (r#"[{"metric": "a"}]"#, "unknown_field"),
            (r#"{"metric_name": ""}"#, "invalid_name"),
            (r#"{"metric_name": "a", "value": "1"}"#, "wrong_type"),
            (r#"{"metric_name": "a", "scope": "tenant"}"#, "invalid_option"),
            (too_many.as_str(), "too_many_items"),
        ] {
            assert_eq!(Asked::parse(body.as_bytes()).expect_err(body).code, code, "{body}");
        }
    }
}
