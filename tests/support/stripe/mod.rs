//! A Stripe of our own on loopback: prices, meters, meter events with their refusals, summaries, adjustments, thin events; and
//! webhooks, signed. It is written from Stripe's documentation, not from what the product does, and is stricter where that
//! finds mistakes: a POST without `Idempotency-Key` and a call without `Stripe-Version` are refused.
//!
//! Its time is the test's. Faults are queued and meet the next call whose path they name. What is billed is summed in `i128`.
//! What it does not do: bill, make invoices, know any other object.

// Each test binary uses its own part.
#![allow(dead_code, unused_imports)]

pub mod account;
pub mod events;
mod http;
mod server;
pub mod webhooks;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

pub use account::MeterEvent;
use account::{Account, Meter};
pub use http::{Reply, serve};

/// How long an `Idempotency-Key` is remembered, and how long an identifier is, in seconds.
pub const REMEMBERED_SECS: i64 = 24 * 3_600;

/// What happens to one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection closes; nothing was applied.
    DropBefore,
    /// The connection closes; the call was applied.
    LoseAnswer,
    /// This status; nothing was applied. Repeated to the same key.
    FailBefore(u16),
    /// This status; the call was applied. Repeated to the same key.
    FailAfter(u16),
    /// This status, headers and body; nothing was applied, nothing is remembered.
    Says(u16, Vec<(&'static str, String)>, String),
    /// It takes so long. Then as usual.
    Delay(Duration),
    /// Accepted, and not counted: Stripe finds out later that it is wrong.
    Swallow,
}

impl Fault {
    /// 429, to be tried again in so many seconds.
    pub fn too_many(retry_after_secs: u64) -> Fault {
        Fault::Says(
            429,
            vec![("retry-after", retry_after_secs.to_string())],
            account::error("rate_limit", "slow"),
        )
    }
}

/// A call that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// When, by its clock.
    pub at: i64,
    /// The account's key.
    pub secret_key: String,
    pub method: String,
    pub path: String,
    /// Of the query or of the body.
    pub form: BTreeMap<String, String>,
    pub idempotency_key: Option<String>,
    /// None if the connection was closed instead.
    pub status: Option<u16>,
    /// Whether the answer was one that the same key had got before.
    pub is_replayed: bool,
}

/// The clock of a test, in seconds. Clones share the time.
#[derive(Clone)]
pub struct Seconds(Arc<AtomicI64>);

impl Seconds {
    pub fn at(seconds: i64) -> Seconds {
        Seconds(Arc::new(AtomicI64::new(seconds)))
    }

    pub fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

/// See the header. The server lives as long as the process.
pub struct FakeStripe {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Box<dyn Fn() -> i64 + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By secret key.
    accounts: BTreeMap<String, Account>,
    faults: VecDeque<(String, Fault)>,
    /// What happens to every call, for as long as it lasts.
    outage: Option<Fault>,
    calls: Vec<Call>,
    /// Calls that an account may make in a second of its clock.
    rate_max: Option<usize>,
    /// Meter events under way: account, event name, customer.
    busy: HashSet<(String, String, String)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeStripe {
    /// One whose time is `clock`, in unix seconds.
    pub fn start(clock: impl Fn() -> i64 + Send + Sync + 'static) -> FakeStripe {
        let shared = Arc::new(Shared { clock: Box::new(clock), state: Mutex::default() });
        let inside = shared.clone();
        let address = serve("127.0.0.1:0", move |request| server::answer(&inside, request));
        FakeStripe { address, shared }
    }

    /// `http://127.0.0.1:...`: the `api_base`.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An account with this secret key.
    pub fn add_account(&self, secret_key: &str) {
        self.shared.state().accounts.insert(secret_key.to_owned(), Account::default());
    }

    /// A meter of sums with the default keys.
    pub fn add_meter(&self, secret_key: &str, meter_id: &str, event_name: &str) {
        self.put_meter(secret_key, meter_id, Meter::sums(event_name));
    }

    /// A meter, perhaps in place of one.
    pub fn put_meter(&self, secret_key: &str, meter_id: &str, meter: Meter) {
        self.account(secret_key, |account| account.meters.insert(meter_id.to_owned(), meter));
    }

    /// A price, billed by a meter or not.
    pub fn add_price(&self, secret_key: &str, price_id: &str, meter_id: Option<&str>) {
        let meter_id = meter_id.map(str::to_owned);
        self.account(secret_key, |account| account.prices.insert(price_id.to_owned(), meter_id));
    }

    /// A customer.
    pub fn add_customer(&self, secret_key: &str, customer: &str) {
        self.account(secret_key, |account| account.customers.insert(customer.to_owned()));
    }

    /// An event that can be had by its id.
    pub fn add_event(&self, secret_key: &str, event: &Value) {
        let id = event["id"].as_str().expect("an event has an id").to_owned();
        self.account(secret_key, |account| account.thin_events.insert(id, event.clone()));
    }

    /// The next call whose path contains `on` meets this.
    pub fn fault(&self, on: &str, fault: Fault) {
        self.shared.state().faults.push_back((on.to_owned(), fault));
    }

    /// Faults that no call has met.
    pub fn faults_left(&self) -> usize {
        self.shared.state().faults.len()
    }

    /// Every call meets this from now on; none: the outage is over.
    pub fn outage(&self, fault: Option<Fault>) {
        self.shared.state().outage = fault;
    }

    /// Meter events under way.
    pub fn under_way(&self) -> usize {
        self.shared.state().busy.len()
    }

    /// Meter events that were accepted, in order.
    pub fn events(&self, secret_key: &str) -> Vec<MeterEvent> {
        self.account(secret_key, |account| account.events.clone())
    }

    /// At most so many calls an account in one second of its clock: Stripe allows 1,000.
    pub fn limit_rate(&self, calls_per_second: usize) {
        self.shared.state().rate_max = Some(calls_per_second);
    }

    /// Everything that came until now.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// The sum of what is counted of a customer in `[start, end)`, by the times of the events.
    pub fn total(&self, secret_key: &str, event_name: &str, customer: &str, start: i64, end: i64) -> i128 {
        self.account(secret_key, |account| account.total(event_name, customer, start, end))
    }

    /// What would be billed of it: never below zero.
    pub fn billed(&self, secret_key: &str, event_name: &str, customer: &str, start: i64, end: i64) -> i128 {
        self.total(secret_key, event_name, customer, start, end).max(0)
    }

    /// How often an event with this identifier was accepted, ever.
    pub fn times(&self, secret_key: &str, identifier: &str) -> usize {
        let is_it = |event: &&account::MeterEvent| event.identifier == identifier;
        self.account(secret_key, |account| account.events.iter().filter(is_it).count())
    }

    fn account<T>(&self, secret_key: &str, with: impl FnOnce(&mut Account) -> T) -> T {
        with(self.shared.state().accounts.get_mut(secret_key).expect("an account that was added"))
    }
}
