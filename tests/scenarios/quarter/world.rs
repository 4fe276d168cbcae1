//! The real binary, a Stripe and the clock that both share. In: calls, deliveries, moments. It is killed and started here, also
//! in the middle of a call, which is made again until it has an answer.

use std::path::Path;
use std::time::Duration;

use dataflows::types::Amount;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::support::api::{Client, Outcome};
use super::super::support::clock::FileTime;
use super::super::support::server::{Launch, Server};
use super::super::support::stripe::webhooks::{Answered, Delivery, Endpoint};
use super::super::support::stripe::{FakeStripe, Fault};
use super::super::support::{SECRET_KEY, until};

/// How long the service may take for anything, in real time.
pub const LIMIT: Duration = Duration::from_secs(20);
pub const ACCOUNT: &str = "sk_test_0123456789abcdef";
const SIGNS: &str = "whsec_of_the_quarter";
pub const METER_EVENTS: &str = "/meter_events";

/// See the header.
pub struct World {
    launch: Launch,
    server: Server,
    client: Client,
    endpoint: Endpoint,
    pub time: FileTime,
    pub stripe: FakeStripe,
    pub kills: usize,
    /// Kills that cut off calls to Stripe.
    pub cut_off: usize,
}

/// What is billed of a series, as the service says.
#[derive(Deserialize)]
pub struct Billed {
    pub metric_name: String,
    pub waits_for: Option<String>,
    pub periods: Vec<BilledPeriod>,
    pub slices: Vec<BilledSlice>,
}

#[derive(Deserialize)]
pub struct BilledPeriod {
    pub start: String,
    pub end: Option<String>,
    pub exported: i128,
    pub pending: i128,
    pub dead: i128,
    usage: Box<RawValue>,
    billable: Box<RawValue>,
    remainder: Box<RawValue>,
    late_amount: Box<RawValue>,
    moved_amount: Box<RawValue>,
}

/// A window of the history.
pub struct Point {
    pub start: i64,
    pub end: i64,
    pub sum: i128,
    pub count: i64,
}

#[derive(Debug, Deserialize)]
pub struct BilledSlice {
    pub identifier: String,
    pub number: u64,
    pub quantity: i128,
    pub state: String,
}

/// Nano-units of an amount as it was sent.
fn nanos(text: &RawValue) -> i128 {
    text.get().parse::<Amount>().expect("an amount").0
}

/// Microseconds of a time as it was sent.
pub fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().expect("a time").as_microsecond()
}

pub fn rfc3339(at: i64) -> String {
    jiff::Timestamp::from_microsecond(at).expect("a time of the test").to_string()
}

impl std::fmt::Display for BilledPeriod {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BilledPeriod { start, end, exported, pending, dead, usage, .. } = self;
        let (carried_in, carried_out, remainder) = (&self.late_amount, &self.moved_amount, &self.remainder);
        let end = end.as_deref().unwrap_or("now on");
        write!(
            out,
            "{start} to {end}: {usage} + {carried_in} - {carried_out} used, {exported} + {pending} units and {dead} dead, {remainder} remain"
        )
    }
}

impl BilledPeriod {
    pub fn usage(&self) -> i128 {
        nanos(&self.usage)
    }

    pub fn billable(&self) -> i128 {
        nanos(&self.billable)
    }

    pub fn remainder(&self) -> i128 {
        nanos(&self.remainder)
    }

    /// What has come from periods before.
    pub fn carried_in(&self) -> i128 {
        nanos(&self.late_amount)
    }

    /// What came too late for its invoice.
    pub fn carried_out(&self) -> i128 {
        nanos(&self.moved_amount)
    }

    /// In slices, wherever these are.
    pub fn units(&self) -> i128 {
        self.exported + self.pending + self.dead
    }
}

impl World {
    /// With credentials for Stripe.
    pub fn start(folder: &Path, begun_at: i64) -> World {
        let time = FileTime::start(folder, begun_at);
        let stripe = FakeStripe::start(time.seconds());
        stripe.add_account(ACCOUNT);
        let launch = Launch::dev(folder.join("data"))
            .workers(2)
            // Of the machine's time: there are several between two kills.
            .with(&["--stripe-api-base", &stripe.base(), "--snapshot-interval", "1s"])
            .with(&["--proxy-allow", "127.0.0.0/8"])
            .environment("TRACKTAGS_SECRET_KEY", SECRET_KEY)
            .environment("TRACKTAGS_TEST_CLOCK", time.path());
        let server = launch.start();
        let (client, endpoint) = (Client::new(&server.base()), endpoint(&server, &time));
        let world = World { launch, server, client, endpoint, time, stripe, kills: 0, cut_off: 0 };
        let credentials = json!({"secret_key": ACCOUNT, "webhook_secret": SIGNS});
        let key = json!({"key_type": "stripe", "key_name": "main", "credentials": credentials});
        world.client.post("/api/v1/businesses/biz_demo/keys", &key.to_string()).body();
        world
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A customer of ours and of Stripe's.
    pub fn customer(&self, id: &str, stripe_id: &str, plan_id: Option<&str>) {
        self.stripe.add_customer(ACCOUNT, stripe_id);
        let body =
            json!({"name": id, "stripe_customer_id": stripe_id, "plan_id": plan_id.unwrap_or_default()});
        self.client.put(&format!("/api/v1/customers/{id}"), &body.to_string()).body();
    }

    /// A price with a meter of its own name.
    pub fn price(&self, price_id: &str, event_name: &str) {
        let meter_id = format!("mtr_{event_name}");
        self.stripe.add_meter(ACCOUNT, &meter_id, event_name);
        self.stripe.add_price(ACCOUNT, price_id, Some(&meter_id));
    }

    /// SIGKILL, some time without a service, and a start.
    pub fn kill(&mut self, away: i64) {
        self.server.kill();
        self.time.set(self.time.now() + away);
        self.begin();
        self.kills += 1;
    }

    /// SIGTERM, and a start.
    pub fn restart(&mut self) {
        self.server.terminate();
        let ended = until(LIMIT, || self.server.try_ended().ok_or(()));
        assert!(ended.is_ok_and(|status| status.success()), "it does not stop: {}", self.server.errors());
        self.begin();
    }

    fn begin(&mut self) {
        self.server = self.launch.start();
        self.client = Client::new(&self.server.base());
        self.endpoint = endpoint(&self.server, &self.time);
    }

    /// Makes a call until it has an answer. With `kill_after`, the service is killed while it is under way.
    pub fn sent(&mut self, kill_after: Option<Duration>, call: impl Fn(&Client) -> Outcome) -> Outcome {
        let outcome = self.through_a_kill(kill_after, |world| call(&world.client));
        match outcome {
            Outcome::Unknown(_) if kill_after.is_some() => call(&self.client),
            known => known,
        }
    }

    /// Delivers an event as Stripe does: again, until it is answered.
    pub fn deliver(&mut self, event: &Value, kill_after: Option<Duration>) -> Value {
        let attempt = self.through_a_kill(kill_after, |world| world.endpoint.attempt(event));
        let answered = match attempt {
            // One that came too late is as good as none.
            Some(answered) if answered.status < 500 || kill_after.is_none() => answered,
            _ => self.endpoint.deliver(event, Delivery::Plain).remove(0),
        };
        assert_eq!(answered.status, 200, "{}", answered.body);
        serde_json::from_str(&answered.body).expect("JSON")
    }

    /// Somebody else says so.
    pub fn forge(&self, event: &Value) {
        let Answered { status, body } = self.endpoint.deliver(event, Delivery::WrongSecret).remove(0);
        assert_eq!(status, 400, "{body}");
    }

    fn through_a_kill<T>(&mut self, kill_after: Option<Duration>, call: impl Fn(&World) -> T) -> T {
        let Some(after) = kill_after else { return call(self) };
        let world = &*self;
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(after);
                world.server.kill();
            });
            call(world)
        });
        self.begin();
        self.kills += 1;
        answer
    }

    /// Waits until slices are being sent, which Stripe takes a while for, and kills the service then, for so long.
    pub fn kill_while_sending(&mut self, after: Duration, away: i64) {
        (0..4).for_each(|_| self.stripe.fault(METER_EVENTS, Fault::Delay(Duration::from_millis(150))));
        let is_sending = || if self.stripe.under_way() > 0 { Ok(()) } else { Err(()) };
        let was_sending = until(Duration::from_millis(400), is_sending).is_ok();
        std::thread::sleep(after);
        self.cut_off += usize::from(was_sending && self.stripe.under_way() > 0);
        self.server.kill();
        // What it was told it takes, by its own time.
        let is_done = || if self.stripe.under_way() == 0 { Ok(()) } else { Err(()) };
        until(LIMIT, is_done).expect("Stripe goes on");
        self.kill(away);
    }

    /// What is billed of a customer.
    pub fn billed(&self, customer: &str) -> Vec<Billed> {
        #[derive(Deserialize)]
        struct Page {
            series: Vec<Billed>,
        }
        let body = self.client.get(&format!("/api/v1/billing/{customer}")).body();
        serde_json::from_str::<Page>(&body).unwrap_or_else(|why| panic!("{why}: {body}")).series
    }

    /// What is billed of one metric of it.
    pub fn billed_of(&self, customer: &str, metric: &str) -> Billed {
        let is_it = |billed: &Billed| billed.metric_name == metric;
        self.billed(customer).into_iter().find(is_it).expect("the series is billed")
    }

    /// The history's windows that begin in `[start, end)`, newest first.
    pub fn history(&self, customer: &str, metric: &str, start: i64, end: i64) -> Vec<Point> {
        #[derive(Deserialize)]
        struct Page {
            points: Vec<Shown>,
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Shown {
            window_start: String,
            window_end: String,
            sum: Box<RawValue>,
            count: i64,
        }
        let path = format!(
            "/api/v1/metrics/{metric}/history?scope=customer&customer_id={customer}&limit=1000&start={}&end={}",
            rfc3339(start),
            rfc3339(end)
        );
        let (mut points, mut cursor) = (Vec::new(), String::new());
        loop {
            let body = self.client.get(&format!("{path}{cursor}")).body();
            let page: Page = serde_json::from_str(&body).unwrap_or_else(|why| panic!("{why}: {body}"));
            points.extend(page.points.iter().map(|shown| Point {
                start: micros(&shown.window_start),
                end: micros(&shown.window_end),
                sum: nanos(&shown.sum),
                count: shown.count,
            }));
            let Some(next) = page.next_cursor else { return points };
            cursor = format!("&cursor={next}");
        }
    }

    /// What the process has said, for who looks for a reason.
    pub fn said(&self) -> String {
        self.server.errors()
    }
}

fn endpoint(server: &Server, time: &FileTime) -> Endpoint {
    Endpoint::new(&format!("{}/api/v1/webhooks/stripe/biz_demo", server.base()), &[SIGNS], time.seconds())
}
