//! What an answer of Stripe means, or that there was none. In: what `outbound` brought back. Out: an `Outcome` of a meter
//! event, or a `CallError` of a question.
//!
//! | what came back | a meter event is | a question is |
//! |---|---|---|
//! | 2xx, of the right shape | `Delivered` | answered |
//! | 400, an event with this identifier exists | `Duplicate` | |
//! | nothing was sent: target refused, too many exchanges under way | `Again` | `Again` |
//! | 429; 409, and other 4xx with `Stripe-Should-Retry: true` | `Again` | `Again` |
//! | 5xx | `Unknown`, answered | `Again` |
//! | other 4xx; 409 with `Stripe-Should-Retry: false` | `Dead` | `Refused` |
//! | no answer, one cut short, anything else | `Unknown` | `Again` |
//!
//! Behind a 5xx the event may have been taken, and Stripe says the same again under the same `Idempotency-Key`, whatever
//! `Stripe-Should-Retry` says: the next attempt has another key and the same identifier, by which a second one is told.
//! <https://docs.stripe.com/error-low-level>, <https://docs.stripe.com/api/idempotent_requests>.

use std::time::Duration;

use hyper::header::HeaderMap;
use serde::Deserialize;
use thiserror::Error;

use crate::outbound::{Answer, OutboundError};

/// Longest pause that an answer may ask for: a wrong header must not stop the sending for a day.
const AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Most characters of Stripe's words in a reason.
const WORDS_CHARS_MAX: usize = 200;
/// What secrets begin with. A word with one of them is left out of a reason.
const SECRETS: [&str; 5] = ["sk_", "rk_", "pk_", "whsec_", "Bearer"];

/// What became of sending a meter event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stripe has taken it.
    Delivered,
    /// Stripe has one with this identifier. Delivered if it was sent before; if it was not, somebody else uses the name.
    Duplicate,
    /// It was not applied; send it again.
    Again {
        /// Not before this time is over, if Stripe says so.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// It may have been applied or not; send it again.
    Unknown {
        /// Not before this time is over, if Stripe says so.
        after: Option<Duration>,
        /// Whether there was an answer, which Stripe would repeat: the next attempt needs another key.
        is_answered: bool,
        /// Why.
        reason: String,
    },
    /// It was not applied and never will be.
    Dead {
        /// The status of the answer; none if it was not even sent. 401 and 403 are about the credential, not the event.
        status: Option<u16>,
        /// Why.
        reason: String,
    },
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Another attempt may bring one.
    #[error("{reason}")]
    Again {
        /// Not before this time is over, if Stripe says so.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// None ever will.
    #[error("{reason}")]
    Refused {
        /// The status of the answer, 404 if there is no such object; none if nothing was asked.
        status: Option<u16>,
        /// Why.
        reason: String,
    },
}

/// Judges what came back for the meter event of that identifier.
pub(super) fn of_event(result: Result<Answer, OutboundError>, identifier: &str) -> Outcome {
    let answer = match result {
        Ok(answer) => answer,
        Err(error @ (OutboundError::NotAllowed | OutboundError::Busy)) => {
            return Outcome::Again { after: None, reason: error.to_string() };
        }
        Err(error) => {
            return Outcome::Unknown { after: None, is_answered: false, reason: error.to_string() };
        }
    };
    let after = after(&answer.headers);
    if (200..300).contains(&answer.status) {
        let taken = serde_json::from_slice::<Taken>(&answer.body);
        if taken.is_ok_and(|taken| taken.identifier == identifier) {
            return Outcome::Delivered;
        }
        let reason = format!("Stripe answered {}, but not about this event", answer.status);
        return Outcome::Unknown { after, is_answered: true, reason };
    }
    let (refusal, status) = (Refusal::of(&answer), answer.status);
    match judge(&answer) {
        Verdict::Final if refusal.is_duplicate(status, identifier) => Outcome::Duplicate,
        Verdict::Final => Outcome::Dead { status: Some(status), reason: refusal.reason(status) },
        Verdict::NotApplied => Outcome::Again { after, reason: refusal.reason(status) },
        Verdict::Unclear => Outcome::Unknown { after, is_answered: true, reason: refusal.reason(status) },
    }
}

/// Judges what came back for a question: its body if it was answered.
pub(super) fn of_question(result: Result<Answer, OutboundError>) -> Result<Answer, CallError> {
    let answer = result.map_err(|error| CallError::Again { after: None, reason: error.to_string() })?;
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let reason = Refusal::of(&answer).reason(answer.status);
    match judge(&answer) {
        Verdict::Final => Err(CallError::Refused { status: Some(answer.status), reason }),
        Verdict::NotApplied | Verdict::Unclear => {
            Err(CallError::Again { after: after(&answer.headers), reason })
        }
    }
}

/// What a status that is not 2xx says.
enum Verdict {
    Final,
    NotApplied,
    Unclear,
}

fn judge(answer: &Answer) -> Verdict {
    let should_retry = answer.headers.get("stripe-should-retry").map(|value| value.as_bytes());
    match (answer.status, should_retry) {
        (429, _) | (400..500, Some(b"true")) => Verdict::NotApplied,
        (409, Some(b"false")) => Verdict::Final,
        (409, _) => Verdict::NotApplied,
        (400..500, _) => Verdict::Final,
        _ => Verdict::Unclear,
    }
}

/// `Retry-After` in seconds, which is how Stripe writes it; at most `AFTER_MAX`.
fn after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(AFTER_MAX))
}

/// A meter event as Stripe shows it.
#[derive(Deserialize)]
struct Taken {
    identifier: String,
}

#[derive(Default, Deserialize)]
struct Body {
    error: Refusal,
}

/// Why Stripe has refused something.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    message: Option<String>,
}

impl Refusal {
    /// Of an answer; empty if it is not Stripe's.
    fn of(answer: &Answer) -> Refusal {
        serde_json::from_slice::<Body>(&answer.body).unwrap_or_default().error
    }

    fn is_duplicate(&self, status: u16, identifier: &str) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        let by_message = message.contains("already exists with identifier") && message.contains(identifier);
        status == 400 && (self.code.as_deref() == Some("duplicate_meter_event") || by_message)
    }

    /// Status, kind and words, without secrets and not too long.
    fn reason(&self, status: u16) -> String {
        let said = [self.code.as_ref().or(self.kind.as_ref()), self.message.as_ref()];
        let mut reason = format!("Stripe answered {status}");
        for words in said.into_iter().flatten().map(|words| harmless(words)).filter(|words| !words.is_empty())
        {
            reason.push_str(": ");
            reason.push_str(&words);
        }
        reason
    }
}

fn harmless(words: &str) -> String {
    let is_secret = |word: &&str| SECRETS.iter().any(|secret| word.contains(secret));
    let kept = words.split_whitespace().map(|word| if is_secret(&word) { "(a secret)" } else { word });
    let kept = kept.collect::<Vec<_>>().join(" ");
    kept.chars().filter(|symbol| !symbol.is_control()).take(WORDS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const OWN: &str = "tt_0123456789abcdef0123456789abcdef";

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let body = Bytes::copy_from_slice(body.as_bytes());
        Answer { status, headers: headers.iter().map(header).collect(), body }
    }

    fn event(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Outcome {
        of_event(Ok(answer(status, headers, body)), OWN)
    }

    fn word(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Duplicate => "duplicate",
            Outcome::Again { .. } => "again",
            Outcome::Unknown { is_answered: true, .. } => "unknown, answered",
            Outcome::Unknown { is_answered: false, .. } => "unknown",
            Outcome::Dead { .. } => "dead",
        }
    }

    #[test]
    fn only_its_own_event_is_delivered() {
        let own = format!(r#"{{"object":"billing.meter_event","identifier":"{OWN}"}}"#);
        assert_eq!(event(200, &[], &own), Outcome::Delivered);
        for body in ["", "ok", "{}", "<html>", r#"{"identifier":"tt_other"}"#, r#"{"identifier":7}"#] {
            assert_eq!(word(&event(200, &[], body)), "unknown, answered", "{body}");
        }
    }

    #[test]
    fn every_status_has_a_verdict() {
        let (yes, no) = (&[("stripe-should-retry", "true")], &[("stripe-should-retry", "false")]);
        for (status, bare, retried, not_retried) in [
            (301, "unknown, answered", "unknown, answered", "unknown, answered"),
            (400, "dead", "again", "dead"),
            (401, "dead", "again", "dead"),
            (402, "dead", "again", "dead"),
            (403, "dead", "again", "dead"),
            (404, "dead", "again", "dead"),
            (409, "again", "again", "dead"),
            (429, "again", "again", "again"),
            (499, "dead", "again", "dead"),
            (500, "unknown, answered", "unknown, answered", "unknown, answered"),
            (503, "unknown, answered", "unknown, answered", "unknown, answered"),
            (999, "unknown, answered", "unknown, answered", "unknown, answered"),
        ] {
            let outcomes = [event(status, &[], ""), event(status, yes, ""), event(status, no, "")];
            assert_eq!(outcomes.each_ref().map(word), [bare, retried, not_retried], "{status}");
            let question = of_question(Ok(answer(status, &[], ""))).map(drop);
            let is_refused =
                matches!(question, Err(CallError::Refused { status: seen, .. }) if seen == Some(status));
            assert_eq!(is_refused, bare == "dead", "{status}");
        }
    }

    #[test]
    fn a_duplicate_is_one_of_this_identifier() {
        let said = |identifier: &str| {
            let message = format!("An event already exists with identifier {identifier}.");
            format!(r#"{{"error":{{"type":"invalid_request_error","message":"{message}"}}}}"#)
        };
        assert_eq!(event(400, &[("stripe-should-retry", "false")], &said(OWN)), Outcome::Duplicate);
        assert_eq!(event(400, &[], r#"{"error":{"code":"duplicate_meter_event"}}"#), Outcome::Duplicate);
        assert_eq!(word(&event(400, &[], &said("tt_other"))), "dead");
        assert_eq!(word(&event(404, &[], &said(OWN))), "dead");
    }

    #[test]
    fn without_an_answer_it_depends_on_whether_something_was_sent() {
        for (error, expected) in [
            (OutboundError::NotAllowed, "again"),
            (OutboundError::Busy, "again"),
            (OutboundError::Unreachable, "unknown"),
            (OutboundError::TimedOut, "unknown"),
            (OutboundError::TooLarge, "unknown"),
            (OutboundError::Malformed, "unknown"),
        ] {
            assert_eq!(word(&of_event(Err(error), OWN)), expected, "{error}");
            assert!(matches!(of_question(Err(error)), Err(CallError::Again { after: None, .. })), "{error}");
        }
    }

    #[test]
    fn a_pause_is_in_seconds_and_bounded() {
        for (text, seconds) in
            [("2", Some(2)), ("0", Some(0)), ("86400", Some(3_600)), ("-1", None), ("soon", None)]
        {
            let headers = answer(429, &[("retry-after", text)], "").headers;
            assert_eq!(after(&headers), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_reason_is_short_and_shows_no_secret() {
        let body = r#"{"error":{"code":"no","message":"Invalid key: sk_test_canary,\n or (rk_live_canary) whsec_canary x"}}"#;
        let Outcome::Dead { status: Some(401), reason } = event(401, &[], body) else { panic!("dead") };
        assert_eq!(reason, "Stripe answered 401: no: Invalid key: (a secret) or (a secret) (a secret) x");
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é ".repeat(10_000));
        let Outcome::Dead { reason, .. } = event(400, &[], &long) else { panic!("dead") };
        assert!(reason.chars().count() < 2 * WORDS_CHARS_MAX, "{reason}");
        assert_eq!(word(&event(400, &[], "[1]")), "dead");
    }
}
