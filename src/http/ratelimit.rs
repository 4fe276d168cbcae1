//! `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10) on answers about a series with a limit that
//! refuses.
//!
//! The draft counts in whole units up to a quota: the headers are there for sums and counts under `gte` and `gt`, rounded down.

use dataflows::types::{Amount, Held, Micros, Operation, Operator};
use hyper::header::{HeaderName, HeaderValue};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The headers: quota and window, what is left of it and until when.
pub(super) fn headers(
    metric_name: &str,
    operation: Operation,
    held: Option<Held>,
    value: Amount,
    now: Micros,
) -> Vec<(HeaderName, HeaderValue)> {
    let adds_up = matches!(operation, Operation::Sum | Operation::Count);
    let Some(Held { limit, period_start, period_end }) = held.filter(|_| adds_up) else { return Vec::new() };
    if !matches!(limit.operator, Operator::Gte | Operator::Gt) || limit.value < Amount::ZERO {
        return Vec::new();
    }
    let left = limit.remaining(value).unwrap_or(Amount::ZERO);
    let mut policy = format!("\"{metric_name}\";q={}", whole(limit.value));
    let mut state = format!("\"{metric_name}\";r={}", whole(left));
    if let Some(end) = period_end.filter(|end| *end > now) {
        if let Some(start) = period_start {
            policy.push_str(&format!(";w={}", Micros(end.0 - start.0).seconds_up()));
        }
        state.push_str(&format!(";t={}", Micros(end.0 - now.0).seconds_up()));
    }
    let header = |name, text: String| {
        // Names of metrics are of characters that stand in a structured string as they are.
        HeaderValue::try_from(text).ok().map(|value| (name, value))
    };
    [header(RATE_LIMIT_POLICY, policy), header(RATE_LIMIT, state)].into_iter().flatten().collect()
}

/// The greatest integer of a structured field (RFC 9651).
const INTEGER_MAX: i128 = 999_999_999_999_999;

fn whole(amount: Amount) -> i128 {
    amount.0.div_euclid(Amount::UNIT).min(INTEGER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflows::types::{Action, Limit};

    fn shown(operation: Operation, operator: Operator, period_end: Option<Micros>) -> Vec<String> {
        let limit = Limit { value: Amount(100_500_000_000), operator, action: Action::Block };
        let held = Held { limit, period_start: Some(Micros(0)), period_end };
        let headers = headers("api:calls", operation, Some(held), Amount::from_units(40), Micros(30_000_000));
        let text = |(name, value): (HeaderName, HeaderValue)| {
            format!("{name}: {}", value.to_str().expect("it is ASCII"))
        };
        headers.into_iter().map(text).collect()
    }

    #[test]
    fn quota_window_rest_and_reset_are_whole_numbers() {
        assert_eq!(
            shown(Operation::Sum, Operator::Gte, Some(Micros(60_000_000))),
            [r#"ratelimit-policy: "api:calls";q=100;w=60"#, r#"ratelimit: "api:calls";r=60;t=30"#]
        );
        assert_eq!(
            shown(Operation::Count, Operator::Gt, None),
            [r#"ratelimit-policy: "api:calls";q=100"#, r#"ratelimit: "api:calls";r=60"#]
        );
        assert!(shown(Operation::Max, Operator::Gte, None).is_empty());
        assert!(shown(Operation::Sum, Operator::Lte, None).is_empty());
    }

    #[test]
    fn no_number_is_longer_than_a_structured_field_takes() {
        assert_eq!(whole(Amount::LIMIT), INTEGER_MAX);
        assert_eq!(whole(Amount(INTEGER_MAX * Amount::UNIT)), INTEGER_MAX);
    }
}
