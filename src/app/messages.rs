//! Messages about limits: whom a crossing goes to, what it says, and how it is sent.
//!
//! | `type` | when |
//! |---|---|
//! | `limit.breached` | a value was within its limit and is breached |
//! | `limit.recovered` | it was breached and is within its limit again |
//! | `limit.threshold` | it has come to a percentage of `notify_at` |
//!
//! They go to the `webhook_url` of the series, else of the plan limit that applies, and to the business's webhook; signed by
//! Standard Webhooks with the business's secret and those that still sign along. The id is a function of the crossing and
//! the receiver, so that a repetition can be told.

use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use dataflows::types::{Crossing, Edge, Epoch, Webhook};
use tokio::runtime::Runtime;

use crate::admission::parse::names::{ACTIONS, OPERATORS, SCOPES, word};
use crate::clock::Clock;
use crate::control::{Owner, Purpose, Registry, SeriesHandle, Vault};
use crate::http::reply::Json;
use crate::outbound::{Outbound, Request, SigningKey, Target, sign};
use crate::sinks::webhooks::{Delivery, Post, Said};
use crate::sinks::{Recipients, Webhooks};
use crate::store::Message;

/// HTTP 410: the receiver wants no more of this.
const GONE: u16 = 410;

/// Makes messages, from what is defined as it does.
pub(super) struct Addresses {
    /// Ids of two journals differ.
    pub journal_id: String,
    pub registry: Arc<RwLock<Registry>>,
    /// Told that there are messages; comes later than the sink that makes them.
    pub webhooks: OnceLock<Arc<Webhooks>>,
}

impl Recipients for Addresses {
    fn messages(&self, epoch: Epoch, crossing: &Crossing) -> Vec<Message> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = registry.by_id(crossing.series) else { return Vec::new() };
        let business_id = &handle.record.key.business_id;
        let Some(webhook) = registry.secrets().webhook(business_id) else { return Vec::new() };
        let of_limit = || registry.inherited_limit(handle).and_then(|limit| limit.webhook_url.as_ref());
        let own = handle.record.spec.webhook_url.as_ref().or_else(of_limit);
        let urls = own.into_iter().filter(|own| **own != webhook.url).chain([&webhook.url]);
        let body = body(handle, crossing);
        let message = |url: &String| Message {
            id: self.id(epoch, crossing, url),
            epoch,
            business_id: business_id.clone(),
            url: url.clone(),
            body: body.clone(),
            created_at: crossing.at,
            attempts: 0,
            next_at: crossing.at,
        };
        urls.map(message).collect()
    }

    fn posted(&self) {
        if let Some(webhooks) = self.webhooks.get() {
            webhooks.look();
        }
    }
}

impl Addresses {
    fn id(&self, epoch: Epoch, crossing: &Crossing, url: &str) -> String {
        let edge = match crossing.edge {
            Edge::Reached(percent) => u32::from(percent),
            Edge::Breached => u32::MAX,
            Edge::Recovered => u32::MAX - 1,
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.journal_id.as_bytes()).update(&epoch.to_le_bytes());
        hasher.update(&crossing.series.0.to_le_bytes());
        hasher.update(&crossing.period_start.map_or(i64::MIN, |start| start.0).to_le_bytes());
        hasher.update(&crossing.count.to_le_bytes()).update(&edge.to_le_bytes()).update(url.as_bytes());
        format!("msg_{}", &hasher.finalize().to_hex()[..32])
    }
}

fn body(handle: &SeriesHandle, crossing: &Crossing) -> String {
    let key = &handle.record.key;
    let (kind, percent) = match crossing.edge {
        Edge::Breached => ("limit.breached", None),
        Edge::Recovered => ("limit.recovered", None),
        Edge::Reached(percent) => ("limit.threshold", Some(u64::from(percent))),
    };
    let limit = crossing.limit;
    let start = crossing.period_start.unwrap_or(handle.record.created_at);
    let data = Json::object()
        .set("business_id", &key.business_id)
        .set("scope", word(&SCOPES, &key.scope()))
        .set_some("customer_id", key.customer_id.as_deref())
        .set("metric_name", &key.metric_name)
        .set("current_value", crossing.value)
        .set("limit_value", limit.map(|limit| limit.value))
        .set("limit_operator", limit.map(|limit| word(&OPERATORS, &limit.operator)))
        .set("breach_action", limit.map(|limit| word(&ACTIONS, &limit.action)))
        .set_some("percent", percent)
        .set("period", Json::object().set("start", start).set("end", crossing.period_end));
    Json::object().set("type", kind).set("timestamp", crossing.at).set("data", data).finish()
}

/// Signs and sends messages, each in a task of its own, in a runtime of their own: no flood of requests holds them up.
pub(super) struct Signed {
    registry: Arc<RwLock<Registry>>,
    vault: Arc<Vault>,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    /// Taken at the end only.
    runtime: Option<Runtime>,
}

impl Signed {
    /// An error is the operating system's refusal of a thread.
    pub(super) fn new(
        registry: Arc<RwLock<Registry>>,
        vault: Arc<Vault>,
        outbound: Outbound,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Signed> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("messages")
            .enable_all()
            .build()?;
        Ok(Signed { registry, vault, outbound, clock, runtime: Some(runtime) })
    }
}

impl Drop for Signed {
    /// Waits for nothing: what is under way is sent again by the next start.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Post for Signed {
    fn send(&self, message: Message, done: Sender<Said>) {
        let request = self.request(&message);
        let (outbound, Message { id, business_id, .. }) = (self.outbound.clone(), message);
        let Some(runtime) = &self.runtime else { return };
        runtime.spawn(async move {
            let delivery = match request {
                Err(unsent) => unsent,
                Ok(request) => match outbound.send(&business_id, request).await {
                    Ok(answer) if (200..300).contains(&answer.status) => Delivery::Taken,
                    Ok(answer) if answer.status == GONE => {
                        Delivery::Refused("the receiver answered 410".into())
                    }
                    Ok(answer) => Delivery::Failed(format!("the receiver answered {}", answer.status)),
                    Err(error) => Delivery::Failed(error.to_string()),
                },
            };
            // Nobody listens once the service stops: the next start sends it again.
            let _ = done.send(Said::Done(id, delivery));
        });
    }
}

impl Signed {
    /// The error is what becomes of the message without an attempt.
    fn request(&self, message: &Message) -> Result<Request, Delivery> {
        let webhook = {
            let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
            // Those that a sink had made before are not in the store's transaction that ended the business.
            registry.business(&message.business_id).ok_or(Delivery::Ownerless)?;
            registry.secrets().webhook(&message.business_id).cloned()
        };
        let webhook = webhook.ok_or_else(|| Delivery::Failed("the business has no webhook".into()))?;
        self.signed(message, &webhook).map_err(Delivery::Failed)
    }

    fn signed(&self, message: &Message, webhook: &Webhook) -> Result<Request, String> {
        let now = self.clock.wall();
        let owner = Owner { business_id: &message.business_id, purpose: Purpose::WebhookSecret, name: "" };
        let along = webhook.retired.iter().filter(|retired| now < retired.ends_at);
        let sealed = [&webhook.secret].into_iter().chain(along.map(|retired| &retired.secret));
        let keys = sealed.map(|sealed| {
            let secret = self.vault.open(&owner, sealed).map_err(|error| error.to_string())?;
            SigningKey::parse(&secret.0).map_err(|error| error.to_string())
        });
        let keys: Vec<SigningKey> = keys.collect::<Result<_, String>>()?;
        let signature = sign(&keys, &message.id, now.seconds(), message.body.as_bytes());
        let headers = [("content-type", "application/json"), ("user-agent", "TrackTags")];
        let headers =
            headers.into_iter().chain(signature.iter().map(|(name, value)| (*name, value.as_str())));
        let target = Target::parse(&message.url).map_err(|error| error.to_string())?;
        Request::new("POST", target, headers, Bytes::from(message.body.clone()))
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc::channel;

    use dataflows::types::{Amount, Micros, SeriesId};

    use super::*;
    use crate::clock::MockClock;
    use crate::outbound::OutboundOptions;

    fn registry() -> Arc<RwLock<Registry>> {
        Arc::new(RwLock::new(Registry::new(1, 3_600)))
    }

    #[test]
    fn an_id_follows_from_crossing_and_receiver_and_differs_with_each_part_of_them() {
        let of_journal = |journal_id: &str| Addresses {
            journal_id: journal_id.into(),
            registry: registry(),
            webhooks: OnceLock::new(),
        };
        let crossing = Crossing {
            series: SeriesId(1),
            period_start: None,
            period_end: None,
            count: 1,
            edge: Edge::Breached,
            value: Amount::ZERO,
            limit: None,
            at: Micros(0),
        };
        let (ours, url) = (of_journal("a"), "https://example.test/");
        let mut ids = vec![
            ours.id(1, &crossing, url),
            of_journal("b").id(1, &crossing, url),
            ours.id(2, &crossing, url),
            ours.id(1, &crossing, "https://example.test/other"),
        ];
        let others = [
            Crossing { series: SeriesId(2), ..crossing },
            Crossing { period_start: Some(Micros(0)), ..crossing },
            Crossing { count: 2, ..crossing },
            Crossing { edge: Edge::Recovered, ..crossing },
            Crossing { edge: Edge::Reached(80), ..crossing },
            Crossing { edge: Edge::Reached(100), ..crossing },
        ];
        ids.extend(others.iter().map(|other| ours.id(1, other, url)));
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:#?}");
        // What it says is not in it: a repetition may say it of another moment.
        let again = Crossing { at: Micros(9), value: Amount::from_units(9), ..crossing };
        assert_eq!(of_journal("a").id(1, &again, url), ids[0]);
    }

    #[test]
    fn a_message_of_a_business_that_is_gone_is_sent_to_nobody() {
        let (outbound, clock) = (Outbound::new(OutboundOptions::new(Vec::new())), MockClock::at(Micros(0)));
        let signed = Signed::new(registry(), Arc::new(Vault::new(None)), outbound, Arc::new(clock));
        let signed = signed.expect("a thread is granted");
        let message = Message {
            id: "id".into(),
            epoch: 1,
            business_id: "gone".into(),
            url: "https://example.test/".into(),
            body: "{}".into(),
            created_at: Micros(0),
            attempts: 0,
            next_at: Micros(0),
        };
        let (done, said) = channel();
        signed.send(message, done);
        let Ok(Said::Done(id, delivery)) = said.recv() else { panic!("nothing was said") };
        assert_eq!((id.as_str(), delivery), ("id", Delivery::Ownerless));
    }
}
