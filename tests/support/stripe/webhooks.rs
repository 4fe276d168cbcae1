//! Deliveries of events: signed, at least once, in no order. In: events, an address and a secret. Out: what was answered.

use std::fmt::Write;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use ureq::Agent;

/// What goes wrong with a delivery.
#[derive(Clone, Copy, Debug)]
pub enum Delivery {
    Plain,
    /// The same event, signed anew.
    Twice,
    /// Signed by somebody else.
    WrongSecret,
    /// Signed so many seconds from now; below zero: before.
    SignedAt(i64),
    /// Sent after a while, signed then.
    Delayed(Duration),
    /// Without a signature.
    Unsigned,
    /// Changed behind the signature.
    Tampered,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    pub body: String,
}

/// An endpoint that events are delivered to.
pub struct Endpoint {
    url: String,
    secrets: Vec<String>,
    clock: Box<dyn Fn() -> i64 + Send + Sync>,
    agent: Agent,
}

/// `Stripe-Signature` of a body at a time, in unix seconds, by each of the secrets.
pub fn sign(secrets: &[&str], signed_at: i64, body: &[u8]) -> String {
    let mut header = format!("t={signed_at}");
    for secret in secrets {
        let mut keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        keyed.update(format!("{signed_at}.").as_bytes());
        keyed.update(body);
        header.push_str(",v1=");
        for byte in keyed.finalize().into_bytes() {
            write!(header, "{byte:02x}").expect("a string takes everything");
        }
    }
    header
}

impl Endpoint {
    /// `clock` is the time of signatures: of the receiver's real clock.
    pub fn new(url: &str, secrets: &[&str], clock: impl Fn() -> i64 + Send + Sync + 'static) -> Endpoint {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20)));
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        Endpoint { url: url.to_owned(), secrets, clock: Box::new(clock), agent: config.build().into() }
    }

    /// Delivers an event; the answers, in order.
    pub fn deliver(&self, event: &Value, delivery: Delivery) -> Vec<Answered> {
        let body = event.to_string();
        let secrets: Vec<_> = self.secrets.iter().map(String::as_str).collect();
        let now = || (self.clock)();
        let signed = |by: &[&str], at: i64| Some(sign(by, at, body.as_bytes()));
        match delivery {
            Delivery::Plain => vec![self.post(&body, signed(&secrets, now()))],
            Delivery::Twice => (0..2).map(|_| self.post(&body, signed(&secrets, now()))).collect(),
            Delivery::WrongSecret => vec![self.post(&body, signed(&["whsec_of_somebody_else"], now()))],
            Delivery::SignedAt(offset) => vec![self.post(&body, signed(&secrets, now() + offset))],
            Delivery::Delayed(time) => {
                std::thread::sleep(time);
                vec![self.post(&body, signed(&secrets, now()))]
            }
            Delivery::Unsigned => vec![self.post(&body, None)],
            Delivery::Tampered => vec![self.post(&format!("{body} "), signed(&secrets, now()))],
        }
    }

    /// Delivers events, the last one first.
    pub fn deliver_reordered(&self, events: &[Value]) -> Vec<Answered> {
        events.iter().rev().flat_map(|event| self.deliver(event, Delivery::Plain)).collect()
    }

    /// Delivers an event once; none if no answer comes.
    pub fn attempt(&self, event: &Value) -> Option<Answered> {
        let (body, secrets) = (event.to_string(), self.secrets.iter().map(String::as_str));
        let signature = sign(&secrets.collect::<Vec<_>>(), (self.clock)(), body.as_bytes());
        self.try_post(&body, Some(signature))
    }

    fn post(&self, body: &str, signature: Option<String>) -> Answered {
        self.try_post(body, signature).expect("an answer of the endpoint")
    }

    fn try_post(&self, body: &str, signature: Option<String>) -> Option<Answered> {
        let mut request =
            self.agent.post(&self.url).header("content-type", "application/json; charset=utf-8");
        if let Some(signature) = signature {
            request = request.header("stripe-signature", signature);
        }
        let mut answer = request.send(body).ok()?;
        let body = answer.body_mut().read_to_string().ok()?;
        Some(Answered { status: answer.status().as_u16(), body })
    }
}
