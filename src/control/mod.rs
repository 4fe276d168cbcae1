//! Definitions: one thread takes everything that waits as one epoch, validates each request against the registry plus
//! those before it, journals them, and answers when the workers concerned have applied the epoch.
//!
//! ```text
//! routes ─▶ requests (bounded) ─▶ control thread: decide ─▶ journal ─▶ router: Registry::apply ─▶ workers ─▶ answer
//! ```
//! The registry changes in one place only, where the journal's epochs become durable (the engine's router), so that it
//! always stands at a position of the journal. Reads go straight to it. What this room does not do: keep updates, or
//! touch the store, whose tables are projections of the same definitions.

mod audit;
mod change;
mod edit;
mod effects;
mod events;
mod facts;
mod key;
mod lapses;
mod plan;
mod plans;
mod quota;
mod record;
mod registry;
mod relations;
mod reports;
mod secrets;
pub mod slices;
mod stripe;
mod subscriptions;
mod templates;
mod tenant;
mod thread;
mod vault;

use std::collections::BTreeSet;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use dataflows::types::{
    Action, ApiKey, Business, Definition, KeyKind, Limited, Micros, SeriesId, SeriesKey, StripeKey, Webhook,
};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::clock::Stamps;
use crate::journal::Rejected;

pub use audit::Origin;
use change::Change;
pub use edit::Edits;
pub use effects::{Effects, LimitEdit};
pub use events::{REMEMBERED_MICROS, StripeEvents};
pub use key::{
    BUSINESS_PREFIX, CUSTOMER_PREFIX, Principal, hash_key, new_business_id, new_key, new_limit_id,
    new_plan_id, new_webhook_secret,
};
pub use lapses::{Lapses, Who};
pub use plans::Plans;
pub use quota::Quota;
pub use record::{CustomerRecord, SeriesFilter, SeriesHandle};
pub use registry::Registry;
pub use reports::{ReportChange, Samples};
pub use secrets::Secrets;
pub use slices::CutRequest;
pub use stripe::{BillingInvoice, Concerns, StripeChange, StripeWhat, Takes};
pub use subscriptions::{EndedPeriods, Subscriptions};
pub use templates::{BATCH_SERIES_MAX, Prospect, Templates};
use thread::Thread;
pub use vault::{OpenError, Owner, Plaintext, Purpose, SealError, Vault};

/// Definition requests that may wait; more are `Overloaded`.
const REQUESTS_MAX: usize = 4_096;

/// Why a definition did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The series is not there, or not there any more.
    #[error("there is no such series")]
    NoSuchSeries,
    /// The customer is not there.
    #[error("there is no such customer")]
    NoSuchCustomer,
    /// The business is not there.
    #[error("there is no such business")]
    NoSuchBusiness,
    /// The key is not there.
    #[error("there is no such key")]
    NoSuchKey,
    /// There is a key of that name already.
    #[error("there is a key of that name already")]
    KeyExists,
    /// There are as many keys of the type as there may be.
    #[error("there are two active keys of this type: delete one first")]
    KeyLimit,
    /// The machine gives no randomness; nothing was written.
    #[error("the machine gives no randomness")]
    NoRandomness,
    /// There is a customer of that id already.
    #[error("there is a customer of that id already")]
    CustomerExists,
    /// The plan is not there.
    #[error("there is no such plan")]
    NoSuchPlan,
    /// The limit is not there.
    #[error("there is no such plan limit")]
    NoSuchPlanLimit,
    /// There is a free plan already.
    #[error("the business has a free plan already: give this one a stripe_price_id")]
    FreePlanExists,
    /// The price has a plan already.
    #[error("there is a plan with that stripe_price_id already")]
    PricedPlanExists,
    /// The plan, or the business, has a limit for the metric already.
    #[error("there is a limit for that metric already: change it with PUT /api/v1/plan_limits/{{id}}")]
    PlanLimitExists,
    /// There are as many as there may be.
    #[error("a business has at most {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        max: usize,
    },
    /// There is no template of that name.
    #[error("there is no such template")]
    NoSuchTemplate,
    /// The business has as many series as it may have.
    #[error("a business may have at most {max} series: delete some first")]
    SeriesLimit {
        /// How many.
        max: usize,
    },
    /// Customers are on the plan.
    #[error("customers are on the plan: move them first")]
    PlanInUse,
    /// The business has no webhook secret to sign messages with.
    #[error(
        "a webhook_url needs the business's webhook secret: PUT /api/v1/businesses/{{business_id}}/webhook makes one"
    )]
    NoWebhookSecret,
    /// Another metric of the customer is billed by the price.
    #[error(
        "another metric of the customer is billed by that price_id: two on one meter cannot be told apart"
    )]
    PriceTaken,
    /// What decides how updates count cannot change under updates.
    #[error("{field} cannot be changed once the series has updates")]
    Fixed {
        /// The field.
        field: &'static str,
    },
    /// Try again later; nothing was written.
    #[error("the service is overloaded")]
    Overloaded,
    /// The service is stopping; nothing was written.
    #[error("the service is stopping")]
    Draining,
    /// Nothing was written.
    #[error("the disk is full")]
    DiskFull,
    /// It may or may not have been written.
    #[error("the journal failed")]
    Unknown,
}

impl From<Rejected> for ControlError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Full => ControlError::Overloaded,
            Rejected::Draining => ControlError::Draining,
            Rejected::DiskFull => ControlError::DiskFull,
            Rejected::Poisoned => ControlError::Unknown,
        }
    }
}

/// What accompanies a definition epoch through the journal.
pub struct DefinitionTicket {
    /// The epoch's definitions, as journaled.
    pub definitions: Arc<Vec<Definition>>,
    /// Told once: what it did when every worker concerned has applied it, or why not.
    pub done: mpsc::Sender<Result<Limited, ControlError>>,
}

/// What a change took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// How many definitions; 0 if everything is so already.
    pub definitions: usize,
    /// How many of them began a series.
    pub series: usize,
    /// What it did to limits, with whatever shared its epoch.
    pub limited: Limited,
}

/// Hands an epoch to the journal: its bytes and what accompanies them.
pub type Append = Box<dyn Fn(Vec<u8>, DefinitionTicket) -> Result<(), Rejected> + Send>;

/// What a POST found or made.
pub struct Created {
    /// The series.
    pub handle: SeriesHandle,
    /// Whether it was there before; its definition is then untouched.
    pub existed: bool,
}

struct Request {
    change: Change,
    origin: Origin,
    reply: oneshot::Sender<Result<Made, ControlError>>,
}

/// The handle that routes hold. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    registry: Arc<RwLock<Registry>>,
    requests: Mutex<Option<SyncSender<Request>>>,
    stamps: Arc<Stamps>,
    admin_key_hash: [u8; 32],
    /// Held while a definition epoch is under way; who holds it sees the registry stand still.
    gate: Arc<Mutex<()>>,
}

impl Control {
    /// Starts the control thread. It ends after `stop`.
    pub fn start(
        registry: Arc<RwLock<Registry>>,
        stamps: Arc<Stamps>,
        admin_key: &str,
        append: Append,
    ) -> std::io::Result<(Control, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::sync_channel(REQUESTS_MAX);
        let gate = Arc::new(Mutex::new(()));
        let thread =
            Thread { registry: registry.clone(), stamps: stamps.clone(), gate: gate.clone(), append };
        let joined =
            std::thread::Builder::new().name("control".into()).spawn(move || thread.run(&receiver))?;
        let admin_key_hash = hash_key(admin_key);
        let shared = Shared { registry, requests: Mutex::new(Some(sender)), stamps, admin_key_hash, gate };
        Ok((Control(Arc::new(shared)), joined))
    }

    /// Takes no more requests; the thread ends when those waiting are done.
    pub fn stop(&self) {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The registry, for a look. Keep the guard short and never across an await.
    pub fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.0.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps definitions out while the guard lives: the registry stands still.
    pub fn gate(&self) -> MutexGuard<'_, ()> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom a key acts for; none if there is no such key, or no longer.
    pub fn authenticate(&self, key: &str) -> Option<Principal> {
        let hash = hash_key(key);
        let used_at = self.0.stamps.clock().wall();
        self.registry().principal(&hash, used_at, || self.0.stamps.now()).cloned()
    }

    /// Whether this is the admin key. Constant time.
    pub fn is_admin(&self, key: &str) -> bool {
        subtle::ConstantTimeEq::ct_eq(&hash_key(key)[..], &self.0.admin_key_hash[..]).into()
    }

    /// The live series of that name.
    pub fn resolve(&self, key: &SeriesKey) -> Option<SeriesHandle> {
        self.registry().find(&key.business_id, key.customer_id.as_deref(), &key.metric_name).cloned()
    }

    /// Whether the limit of a series refuses updates.
    pub fn blocks(&self, handle: &SeriesHandle) -> bool {
        match (&handle.record.spec.limit, &handle.record.key.customer_id) {
            (Some(own), _) => own.action == Action::Block,
            (None, None) => false,
            (None, Some(_)) => {
                let registry = self.registry();
                // Most businesses have no such limit: one look-up says so.
                registry.plans().may_block(&handle.record.key.business_id)
                    && registry.inherited_limit(handle).is_some_and(|it| it.limit.action == Action::Block)
            }
        }
    }

    /// Whether the business has such a customer.
    pub fn customer_exists(&self, business_id: &str, customer_id: &str) -> bool {
        self.registry().customer(business_id, customer_id).is_some()
    }

    /// Whether the initial value of a POST with this body has been recorded as an update of the series.
    pub fn post_recorded(&self, series: SeriesId, body_hash: u128) -> bool {
        self.registry().post_recorded(series, body_hash)
    }

    /// Series in the order (scope, customer, name), strictly behind `after`, at most `limit`.
    pub fn list_series(
        &self,
        filter: &SeriesFilter,
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> Vec<SeriesHandle> {
        self.registry().list(filter, after, limit)
    }

    /// The customer of that business.
    pub fn customer(&self, business_id: &str, customer_id: &str) -> Option<CustomerRecord> {
        self.registry().customer(business_id, customer_id).cloned()
    }

    /// Customers in the order of their ids, strictly behind `after`, at most `limit`.
    pub fn list_customers(
        &self,
        business_id: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<CustomerRecord> {
        self.registry().customers(business_id, after).take(limit).cloned().collect()
    }

    /// The business of that id.
    pub fn business(&self, business_id: &str) -> Option<Business> {
        self.registry().business(business_id).cloned()
    }

    /// The active keys of one kind, by name, and when each was last used since the start.
    pub fn list_keys(&self, business_id: &str, kind: &KeyKind) -> Vec<(ApiKey, Option<Micros>)> {
        let now = self.now();
        let registry = self.registry();
        let mut keys: Vec<_> =
            registry.keys(business_id, now).filter(|key| key.kind == *kind).cloned().collect();
        keys.sort_unstable_by(|left, right| left.key_name.cmp(&right.key_name));
        let used = |key| {
            let last_used_at = registry.last_used_at(&key);
            (key, last_used_at)
        };
        keys.into_iter().map(used).collect()
    }

    /// The credentials of a business for Stripe, by name.
    pub fn list_stripe_keys(&self, business_id: &str) -> Vec<StripeKey> {
        self.registry().secrets().stripe_keys(business_id).cloned().collect()
    }

    /// The credentials of that name for Stripe.
    pub fn stripe_key(&self, business_id: &str, key_name: &str) -> Option<StripeKey> {
        self.registry().secrets().stripe_key(business_id, key_name).cloned()
    }

    /// The webhook of a business, if it has set one.
    pub fn webhook(&self, business_id: &str) -> Option<Webhook> {
        self.registry().secrets().webhook(business_id).cloned()
    }

    /// The origins that the business's customer keys are bound to; empty if they are not.
    pub fn proxy_targets(&self, business_id: &str) -> BTreeSet<String> {
        self.registry().proxy_targets(business_id).cloned().unwrap_or_default()
    }

    /// Whether the business lets its customer keys reach an origin, given in normal form.
    pub fn may_reach(&self, business_id: &str, origin: &str) -> bool {
        self.registry().proxy_targets(business_id).is_none_or(|origins| origins.contains(origin))
    }

    /// How many secrets this vault cannot read.
    pub fn unreadable_secrets(&self, vault: &Vault) -> usize {
        self.registry().secrets().current().filter(|sealed| !vault.has_sealed(sealed)).count()
    }

    /// The moment of an answer.
    pub fn now(&self) -> Micros {
        self.0.stamps.now()
    }

    /// One change, through the control thread.
    async fn request(&self, change: Change, origin: Origin) -> Result<Made, ControlError> {
        let (reply, answer) = oneshot::channel();
        {
            let requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
            let requests = requests.as_ref().ok_or(ControlError::Draining)?;
            requests.try_send(Request { change, origin, reply }).map_err(|error| match error {
                TrySendError::Full(_) => ControlError::Overloaded,
                TrySendError::Disconnected(_) => ControlError::Draining,
            })?;
        }
        answer.await.unwrap_or(Err(ControlError::Unknown))
    }
}

/// The payload of a definition epoch.
pub fn encode(definitions: &[Definition]) -> Vec<u8> {
    postcard::to_stdvec(definitions).expect("writing to memory cannot fail, and every length is known")
}

/// Reads the payload of a definition epoch; an error if this version does not know its format.
pub fn decode(bytes: &[u8]) -> Result<Vec<Definition>, postcard::Error> {
    postcard::from_bytes(bytes)
}
