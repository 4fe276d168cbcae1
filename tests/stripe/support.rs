//! A fake Stripe with one account, and the room's calls to it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use dataflows::types::Micros;
use rustls::RootCertStore;
use tracktags::control::Plaintext;
use tracktags::outbound::{Cidr, Outbound, OutboundOptions, SystemResolver};
use tracktags::stripe::{Account, CallError, Counted, Outcome, Stripe, Usage, identifier};

use super::fake::{Call, FakeStripe, Seconds};

pub const KEY: &str = "sk_test_canary_0123456789";
pub const METER: &str = "mtr_1";
pub const EVENT: &str = "api_calls";
pub const CUSTOMER: &str = "cus_1";
/// The start of a period.
pub const START: i64 = 1_790_812_800;
/// The time of a test: some days into the period.
pub const NOW: i64 = START + 5 * 86_400;

/// An account with a meter, a price and two customers.
pub struct World {
    pub fake: FakeStripe,
    pub clock: Seconds,
    pub stripe: Stripe,
    pub account: Account,
}

/// A way out to loopback that gives up after `timeout`.
pub fn outbound(timeout: Duration) -> Outbound {
    Outbound::new(OutboundOptions {
        allow: vec![Cidr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 32)],
        resolver: Arc::new(SystemResolver::default()),
        roots: RootCertStore::empty(),
        exchange_timeout: timeout,
        in_flight_max: 4,
    })
}

impl World {
    pub fn new() -> World {
        World::patient(Duration::from_secs(10))
    }

    pub fn patient(timeout: Duration) -> World {
        let clock = Seconds::at(NOW);
        let inside = clock.clone();
        let fake = FakeStripe::start(move || inside.now());
        fake.add_account(KEY);
        fake.add_meter(KEY, METER, EVENT);
        fake.add_price(KEY, "price_1", Some(METER));
        fake.add_price(KEY, "price_flat", None);
        fake.add_customer(KEY, CUSTOMER);
        fake.add_customer(KEY, "cus_2");
        let stripe = Stripe::new(outbound(timeout), &fake.base()).expect("a base");
        let account = Account { business_id: "biz_1".into(), secret_key: Plaintext(KEY.into()) };
        World { fake, clock, stripe, account }
    }

    pub async fn send(&self, usage: &Usage) -> Outcome {
        self.stripe.send(&self.account, usage).await
    }

    /// What Stripe counts of the first customer, over all of the period and a little more.
    pub async fn counted(&self) -> Result<i128, CallError> {
        let (from, until) = (Micros::from_seconds(START), Micros::from_seconds(NOW + 86_400));
        let of = Counted { meter_id: METER.into(), customer: CUSTOMER.into(), from, until };
        self.stripe.total(&self.account, &of).await
    }

    /// The same, as the fake sums it.
    pub fn total(&self) -> i128 {
        self.fake.total(KEY, EVENT, CUSTOMER, START, NOW + 86_400)
    }

    pub fn last_call(&self) -> Call {
        self.fake.calls().pop().expect("a call")
    }
}

/// Slice `slice` of the first customer, of `value` units, now.
pub fn slice(slice: u64, value: i64) -> Usage {
    Usage {
        event_name: EVENT.into(),
        customer_key: "stripe_customer_id".into(),
        value_key: "value".into(),
        customer: CUSTOMER.into(),
        value,
        at: Micros::from_seconds(NOW),
        identifier: identifier("biz_1", CUSTOMER, METER, Micros::from_seconds(START), slice),
        failures: 0,
    }
}

/// The status and the reason of a slice that is dead.
pub fn dead(outcome: Outcome) -> (Option<u16>, String) {
    match outcome {
        Outcome::Dead { status, reason } => (status, reason),
        other => panic!("dead: {other:?}"),
    }
}
