//! A Stripe that is not ours: PyPI's `localstripe`, run beside the service. What it sends of its own accord reaches us signed,
//! and does what the seed promises.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use super::businesses::Admin;
use super::secrets::stripe as credentials;
use super::support::api::amount;
use super::support::{python, until};

const VERSION: &str = "1.15.10";
const SECRET: &str = "whsec_of_localstripe";
const BILLED: &str = "/api/v1/metrics/api_usage?scope=customer&customer_id=cust_123";

/// It, until it is dropped.
struct LocalStripe {
    process: Child,
    agent: Agent,
    base: String,
}

impl Drop for LocalStripe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl LocalStripe {
    fn start() -> LocalStripe {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port").port();
        let mut command = Command::new(python::with("localstripe", VERSION));
        command.args(["-m", "localstripe", "--from-scratch", "--port", &port.to_string()]);
        // It keeps its objects in a file: nothing of them is wanted again.
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python runs");
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20)));
        let stripe =
            LocalStripe { process, agent: config.build().into(), base: format!("http://127.0.0.1:{port}") };
        let listens = || stripe.agent.get(&stripe.base).call().map(drop).map_err(|error| error.to_string());
        until(Duration::from_secs(30), listens).expect("localstripe listens");
        stripe
    }

    fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let request =
            self.agent.post(format!("{}{path}", self.base)).header("authorization", "Bearer sk_test_1");
        let mut answer = request.send_form(form.iter().copied()).expect("an answer");
        let body = answer.body_mut().read_to_string().expect("text");
        assert!(answer.status().is_success(), "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Signed events of a type go to an address.
    fn tell(&self, url: &str, kind: &str) {
        let body = json!({"url": url, "secret": SECRET, "events": [kind]}).to_string();
        let request = self.agent.post(format!("{}/_config/webhooks/ours", self.base));
        let answer = request.header("content-type", "application/json").send(&body).expect("an answer");
        assert!(answer.status().is_success());
    }
}

fn id(object: &Value) -> &str {
    object["id"].as_str().expect("an id")
}

#[test]
fn an_invoice_of_localstripe_begins_a_new_period_at_its_arrival() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let admin = Admin::start(&folder.path().join("data"));
    let stripe = LocalStripe::start();
    let ours = &admin.client;
    ours.post("/api/v1/businesses/biz_demo/keys", &credentials("test", "sk_test_1", SECRET)).body();
    let customer = stripe.post("/v1/customers", &[("email", "someone@example.com")]);
    let body = json!({"name": "Someone", "stripe_customer_id": id(&customer)}).to_string();
    ours.put("/api/v1/customers/cust_123", &body).body();
    let metric = json!({"metric_name": "api_usage", "metric_type": "stripe_billing", "flush_interval": "5s", "initial_value": 1});
    ours.post(&BILLED.replace("/api_usage", ""), &metric.to_string()).body();
    let use_it = |value: u32| ours.put(BILLED, &json!({"value": value}).to_string()).body();
    let reads = |wanted: &'static str| {
        let seen = || {
            let value = amount(&ours.get(BILLED).body(), "current_value").expect("a value").to_string();
            if value == wanted { Ok(()) } else { Err(value) }
        };
        until(Duration::from_secs(20), seen).unwrap_or_else(|value| panic!("{value}, not {wanted}"));
    };
    stripe.tell(&format!("{}/api/v1/webhooks/stripe/biz_demo", admin.base()), "invoice.created");
    stripe.post("/v1/products", &[("id", "prod_1"), ("name", "Calls"), ("type", "service")]);
    for (plan, interval) in [("monthly", "month"), ("yearly", "year")] {
        let form = [
            ("id", plan),
            ("amount", "100"),
            ("currency", "usd"),
            ("interval", interval),
            ("product", "prod_1"),
        ];
        stripe.post("/v1/plans", &form);
    }
    let card = [
        ("type", "card"),
        ("card[number]", "4242424242424242"),
        ("card[exp_month]", "12"),
        ("card[exp_year]", "2035"),
        ("card[cvc]", "123"),
    ];
    let method = stripe.post("/v1/payment_methods", &card);
    stripe.post(&format!("/v1/payment_methods/{}/attach", id(&method)), &[("customer", id(&customer))]);
    let default = [("invoice_settings[default_payment_method]", id(&method))];
    stripe.post(&format!("/v1/customers/{}", id(&customer)), &default);
    use_it(5);
    reads("6.0");
    let form = [("customer", id(&customer)), ("items[0][plan]", "monthly")];
    let subscription = stripe.post("/v1/subscriptions", &form);
    reads("1.0");
    use_it(2);
    reads("3.0");
    // The next invoice must not be of the same second: its boundary would be the same.
    std::thread::sleep(Duration::from_millis(1_100));
    let item = subscription["items"]["data"][0]["id"].as_str().expect("an item");
    let form = [("items[0][id]", item), ("items[0][plan]", "yearly")];
    stripe.post(&format!("/v1/subscriptions/{}", id(&subscription)), &form);
    reads("1.0");
    use_it(4);
    reads("5.0");
    let events: Value = serde_json::from_str(&ours.get("/api/v1/stripe/events").body()).expect("JSON");
    let events = events["events"].as_array().expect("a list");
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.iter().all(|event| event["applied"] == true), "{events:?}");
    drop(stripe);
    admin.stop();
}
