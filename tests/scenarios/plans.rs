//! Plans from outside: what a customer may use follows from its plan, at once, for good, and without a definition by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dataflows::types::Amount;
use serde_json::Value;

use super::businesses::Admin;
use super::limits;
use super::support::api::{Client, Outcome, amount, count, flag, text};
use super::support::server::Launch;
use super::support::{KEY, until};

const PLANS: &str = "/api/v1/plans";
const LIMITS: &str = "/api/v1/plan_limits";

fn units(units: i64) -> Option<Amount> {
    Some(Amount::from_units(units))
}

fn metric(metric_name: &str, customer_id: &str) -> String {
    format!("/api/v1/metrics/{metric_name}?scope=customer&customer_id={customer_id}")
}

fn plan(client: &Client, body: &str) -> String {
    text(&client.post(PLANS, body).body(), "id").expect("a plan has an id")
}

fn limit(client: &Client, body: &str) -> String {
    let body = client.post(LIMITS, body).body();
    text(&body, "id").expect("a limit has an id")
}

fn customer(client: &Client, customer_id: &str, body: &str) -> String {
    client.put(&format!("/api/v1/customers/{customer_id}"), body).body()
}

fn allowed(client: &Client, metric_name: &str, customer_id: &str, value: i64) -> bool {
    let question =
        format!(r#"{{"metric_name": "{metric_name}", "customer_id": "{customer_id}", "value": {value}}}"#);
    flag(&client.post("/api/v1/check", &question).body(), "allowed")
}

/// Limit and source of a reading.
fn limited(client: &Client, metric_name: &str, customer_id: &str) -> (Option<Amount>, Option<String>) {
    let body = client.get(&metric(metric_name, customer_id)).body();
    (amount(&body, "limit_value"), text(&body, "limit_source"))
}

#[test]
fn a_monthly_limit_on_a_plan_works_without_a_definition_by_hand_and_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let admin = Admin::start(&data_dir);
    let (business_id, key) = admin.business("own");
    let client = admin.client.with_key(&key);
    let pro = plan(&client, r#"{"plan_name": "Pro", "stripe_price_id": "price_pro"}"#);
    customer(&client, "early", &format!(r#"{{"name": "E", "plan_id": "{pro}"}}"#));
    let made = format!(r#"{{"plan_id": "{pro}", "metric_name": "calls", "limit_value": 10}}"#);
    let made = client.post(LIMITS, &made).body();
    assert_eq!(count(&made, "series_created"), Some(1), "the customer was on the plan: {made}");
    assert_eq!(count(&made, "series_touched"), Some(1), "{made}");
    customer(&client, "late", &format!(r#"{{"name": "L", "plan_id": "{pro}"}}"#));
    customer(&client, "paying", r#"{"name": "P", "stripe_price_id": "price_pro"}"#);
    customer(&client, "none", r#"{"name": "N"}"#);
    for customer_id in ["early", "late", "paying"] {
        let reading = client.get(&metric("calls", customer_id)).body();
        assert_eq!(amount(&reading, "current_value"), units(0), "{reading}");
        assert_eq!(text(&reading, "metric_type").as_deref(), Some("reset"), "{reading}");
        assert_eq!(text(&reading, "limit_source").as_deref(), Some("plan"), "{reading}");
        let period: Value = serde_json::from_str(&reading).expect("JSON");
        assert!(period["period"]["end"].as_str().is_some_and(|end| end.contains("-01T00:00:00")), "{period}");
    }
    client.get(&metric("calls", "none")).refused(404, "metric_not_found");

    // The action is deny: what has been used is recorded, and what is asked for is refused.
    assert!(allowed(&client, "calls", "late", 10) && !allowed(&client, "calls", "late", 11));
    client.put(&metric("calls", "late"), r#"{"value": 12}"#).body();
    let reading = client.get(&metric("calls", "late")).body();
    assert_eq!(amount(&reading, "current_value"), units(12), "{reading}");
    assert!(flag(&reading, "limit_breached"), "{reading}");
    assert!(!allowed(&client, "calls", "late", 1) && allowed(&client, "calls", "early", 1));
    assert!(allowed(&client, "calls", "late", -1), "a refund moves away from the limit");

    // A reset of the billing begins a new period of what the plan limits, too.
    let reset = format!("/admin/v1/customers/{business_id}/late/reset-billing");
    assert_eq!(count(&admin.call("POST", &reset, "").body(), "series"), Some(1));
    assert!(allowed(&client, "calls", "late", 10));
    client.put(&metric("calls", "late"), r#"{"value": 11}"#).body();

    let kill = |admin: Admin| {
        admin.kill();
        drop(admin);
        let admin = Admin::start(&data_dir);
        let client = admin.client.with_key(&key);
        (admin, client)
    };
    let (admin, client) = kill(admin);
    assert_eq!(limited(&client, "calls", "late"), (units(10), Some("plan".to_owned())));
    assert!(!allowed(&client, "calls", "late", 1) && allowed(&client, "calls", "paying", 1));
    admin.stop();
    // From the snapshot of the stop, on another number of workers.
    let server = Launch::dev(&data_dir).workers(3).start();
    let client = Client::new(&server.base()).with_key(&key);
    for customer_id in ["early", "late", "paying"] {
        assert_eq!(limited(&client, "calls", customer_id), (units(10), Some("plan".to_owned())));
    }
    assert!(!allowed(&client, "calls", "late", 1));
}

#[test]
fn limits_follow_plans_defaults_and_the_series_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let admin = Admin::start(&folder.path().join("data"));
    let ((_, key), (_, foreign)) = (admin.business("own"), admin.business("foreign"));
    let (client, foreign) = (admin.client.with_key(&key), admin.client.with_key(&foreign));
    let [small, big] = ["small", "big"].map(|name| {
        plan(&client, &format!(r#"{{"plan_name": "{name}", "stripe_price_id": "price_{name}"}}"#))
    });
    let limit_of = |plan_id: &str, value: i64| {
        format!(r#"{{"plan_id": "{plan_id}", "metric_name": "calls", "limit_value": {value}}}"#)
    };
    let small_limit = limit(&client, &limit_of(&small, 10));
    limit(&client, &limit_of(&big, 100));
    customer(&client, "a", &format!(r#"{{"name": "A", "plan_id": "{small}"}}"#));
    client.put(&metric("calls", "a"), r#"{"value": 20}"#).body();
    assert_eq!(limited(&client, "calls", "a"), (units(10), Some("plan".to_owned())));

    // The value survives a change of the plan, and the limit is another at once.
    customer(&client, "a", &format!(r#"{{"plan_id": "{big}"}}"#));
    let reading = client.get(&metric("calls", "a")).body();
    assert_eq!(amount(&reading, "current_value"), units(20), "{reading}");
    assert_eq!(limited(&client, "calls", "a"), (units(100), Some("plan".to_owned())));
    assert!(!flag(&reading, "limit_breached"), "{reading}");

    // A default is for who has nothing more specific; it makes no series.
    client.post("/api/v1/metrics?scope=customer&customer_id=a", r#"{"metric_name": "bytes"}"#).body();
    let default = limit(&client, r#"{"metric_name": "bytes", "limit_value": 7}"#);
    assert_eq!(limited(&client, "bytes", "a"), (units(7), Some("default".to_owned())));
    let of_big = format!(r#"{{"plan_id": "{big}", "metric_name": "bytes", "limit_value": 8}}"#);
    let of_big = limit(&client, &of_big);
    assert_eq!(limited(&client, "bytes", "a"), (units(8), Some("plan".to_owned())));
    client.call("PATCH", &metric("bytes", "a"), &[], r#"{"limit_value": 9}"#).body();
    assert_eq!(limited(&client, "bytes", "a"), (units(9), Some("series".to_owned())));
    client.call("PATCH", &metric("bytes", "a"), &[], r#"{"tags": {"x": "y"}}"#).body();
    assert_eq!(limited(&client, "bytes", "a"), (units(9), Some("series".to_owned())));
    client.call("PATCH", &metric("bytes", "a"), &[], r#"{"limit_value": null}"#).body();
    assert_eq!(limited(&client, "bytes", "a"), (units(8), Some("plan".to_owned())));
    client.call("PATCH", &metric("bytes", "a"), &[], r#"{"tags": {}}"#).body();
    assert_eq!(limited(&client, "bytes", "a"), (units(8), Some("plan".to_owned())), "the plan's stays");
    client.delete(&format!("{LIMITS}/{of_big}")).body();
    assert_eq!(limited(&client, "bytes", "a"), (units(7), Some("default".to_owned())));
    client.delete(&format!("{LIMITS}/{default}")).body();
    assert_eq!(limited(&client, "bytes", "a"), (None, None));

    // What must not be.
    client.post(LIMITS, &limit_of(&small, 11)).refused(409, "plan_limit_exists");
    client.post(LIMITS, &limit_of("plan_absent", 11)).refused(404, "plan_not_found");
    foreign.post(LIMITS, &limit_of(&small, 11)).refused(404, "plan_not_found");
    let on = format!(r#"{{"name": "F", "plan_id": "{small}"}}"#);
    foreign.put("/api/v1/customers/f", &on).refused(404, "plan_not_found");
    foreign.get(&format!("{LIMITS}/{small_limit}")).refused(404, "plan_limit_not_found");
    foreign.delete(&format!("{PLANS}/{small}")).refused(404, "plan_not_found");
    client
        .post(PLANS, r#"{"plan_name": "S", "stripe_price_id": "price_small"}"#)
        .refused(409, "priced_plan_exists");
    plan(&client, r#"{"plan_name": "Free"}"#);
    client.post(PLANS, r#"{"plan_name": "Free again"}"#).refused(409, "free_plan_exists");
    client.delete(&format!("{PLANS}/{big}")).refused(409, "plan_in_use");
    client.delete(&format!("{PLANS}/{small}")).body();
    client.get(&format!("{LIMITS}/{small_limit}")).refused(404, "plan_limit_not_found");
    let hooked = r#"{"metric_name": "calls", "limit_value": 1, "webhook_url": "https://example.com/"}"#;
    client.post(LIMITS, hooked).refused(422, "webhook_secret_missing");
}

#[test]
fn a_changed_limit_says_what_it_did_and_a_dry_run_says_the_same_and_does_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let admin = Admin::start(&folder.path().join("data"));
    let (_, key) = admin.business("own");
    let client = admin.client.with_key(&key);
    let pro = plan(&client, r#"{"plan_name": "Pro", "stripe_price_id": "price_pro"}"#);
    for number in 0..6 {
        customer(&client, &format!("c{number}"), &format!(r#"{{"name": "C", "plan_id": "{pro}"}}"#));
    }
    for number in 0..5 {
        let series = r#"{"metric_name": "calls", "metric_type": "checkpoint"}"#;
        let path = format!("/api/v1/metrics?scope=customer&customer_id=c{number}");
        client.post(&path, series).body();
        client.put(&metric("calls", &format!("c{number}")), &format!(r#"{{"value": {number}}}"#)).body();
    }
    // One has a limit of its own.
    client.call("PATCH", &metric("calls", "c4"), &[], r#"{"limit_value": 100}"#).body();
    let said = |outcome: Outcome| {
        let body = outcome.body();
        ["series_touched", "series_created", "became_breached"].map(|field| count(&body, field).expect(field))
    };
    let call = |method: &str, path: &str, body: &str| {
        let dry = said(client.call(method, &format!("{path}?dry_run=true"), &[], body));
        assert_eq!(
            said(client.call(method, &format!("{path}?dry_run=true"), &[], body)),
            dry,
            "nothing changed"
        );
        let done = client.call(method, path, &[], body);
        let Outcome::Durable(text) = &done else { panic!("{done:?}") };
        let text = text.clone();
        assert_eq!(said(done), dry, "{method} {path} {body}");
        (dry, text)
    };
    let body = format!(r#"{{"plan_id": "{pro}", "metric_name": "calls", "limit_value": 2}}"#);
    let (effects, made) = call("POST", LIMITS, &body);
    assert_eq!(effects, [5, 1, 2], "four series and the new one; 2 and 3 are past the limit");
    assert!(made.contains("4 existing series keep their"), "{made}");
    let limit = format!("{LIMITS}/{}", text(&made, "id").expect("an id"));
    assert_eq!(call("PUT", &limit, r#"{"limit_value": 2}"#).0, [0, 0, 0]);
    assert_eq!(call("PUT", &limit, r#"{"limit_value": 1}"#).0, [5, 0, 1]);
    assert_eq!(call("PUT", &limit, r#"{"limit_value": 0}"#).0, [5, 0, 2], "c0 and the one that was begun");
    let default = r#"{"metric_name": "calls", "limit_value": 3}"#;
    assert_eq!(call("POST", LIMITS, default).0, [0, 0, 0], "all have a more specific one");
    let before = client.get(&limit).body();
    let foreseen = r#"{"metric_name": "bytes", "limit_value": 3}"#;
    let foreseen = client.call("POST", &format!("{LIMITS}?dry_run=true"), &[], foreseen).body();
    assert_eq!(text(&foreseen, "id"), None, "what was not made has no id: {foreseen}");
    client.call("PUT", &format!("{limit}?dry_run=true"), &[], r#"{"limit_value": 50}"#).body();
    assert_eq!(client.get(&limit).body(), before);
    assert_eq!(call("DELETE", &limit, "").0, [5, 0, 0], "the default applies, which is higher");
    assert_eq!(limited(&client, "calls", "c1"), (units(3), Some("default".to_owned())));
    client.call("POST", &format!("{LIMITS}?dry_run=true"), &[], default).refused(409, "plan_limit_exists");
}

#[test]
fn a_flood_of_requests_for_standings_is_told_to_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Launch::dev(folder.path().join("data")).workers(2).start();
    let client = Client::new(&server.base());
    for number in 0..300 {
        let series = format!(r#"{{"metric_name": "m{number}", "limit_value": 1}}"#);
        client.post("/api/v1/metrics", &series).body();
    }
    let (answered, refused, tried) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let request = || {
                    let request = ureq::get(format!("{}/api/v1/limits?limit=1000", server.base()));
                    let request = request.header("authorization", format!("Bearer {KEY}"));
                    request.config().http_status_as_error(false).build().call().expect("an answer")
                };
                // Until both have been seen.
                while (answered.load(Ordering::Relaxed) == 0 || refused.load(Ordering::Relaxed) == 0)
                    && tried.fetch_add(1, Ordering::Relaxed) < 20_000
                {
                    let mut answer = request();
                    let body = answer.body_mut().read_to_string().expect("a body");
                    match answer.status().as_u16() {
                        200 => {
                            assert_eq!(count(&body, "count"), Some(300), "{body}");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        503 => {
                            assert_eq!(text(&body, "code").as_deref(), Some("overloaded"), "{body}");
                            assert!(answer.headers().contains_key("retry-after"));
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        status => panic!("{status} {body}"),
                    }
                }
            });
        }
    });
    assert!(answered.into_inner() > 0 && refused.into_inner() > 0, "of {tried:?}");
    assert_eq!(count(&client.get("/api/v1/limits?limit=1000").body(), "count"), Some(300));
}

#[test]
fn an_expired_subscription_falls_to_the_free_plan_at_once_and_returns_when_extended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let admin = Admin::start(&data_dir);
    let (_, key) = admin.business("own");
    let client = admin.client.with_key(&key);
    let pro = plan(&client, r#"{"plan_name": "Pro", "stripe_price_id": "price_pro"}"#);
    let limit_of = |plan_id: &str, metric_name: &str, value: i64| {
        format!(r#"{{"plan_id": "{plan_id}", "metric_name": "{metric_name}", "limit_value": {value}}}"#)
    };
    limit(&client, &limit_of(&pro, "calls", 100));
    let soon = || jiff::Timestamp::now() + Duration::from_millis(1_200);
    let on_pro = |ends_at: &dyn std::fmt::Display| {
        format!(r#"{{"name": "A", "plan_id": "{pro}", "subscription_ends_at": "{ends_at}"}}"#)
    };

    // Without a free plan the customer stays on its plan, with a warning.
    let late = customer(&client, "a", &on_pro(&"2020-01-01T00:00:00Z"));
    assert!(late.contains("there is no free plan"), "{late}");
    assert_eq!(limited(&client, "calls", "a"), (units(100), Some("plan".to_owned())));
    let free = plan(&client, r#"{"plan_name": "Free"}"#);
    limit(&client, &limit_of(&free, "calls", 5));
    limit(&client, &limit_of(&free, "exports", 1));
    assert_eq!(limited(&client, "calls", "a"), (units(5), Some("plan".to_owned())));
    assert_eq!(limited(&client, "exports", "a"), (units(1), Some("plan".to_owned())));

    // Nobody touches the service when the subscription ends.
    let extended = customer(&client, "a", &on_pro(&soon()));
    assert_eq!(text(&extended, "effective_plan_id"), Some(pro.clone()), "{extended}");
    assert_eq!(limited(&client, "calls", "a"), (units(100), Some("plan".to_owned())));
    client.put(&metric("calls", "a"), r#"{"value": 6}"#).body();
    assert!(allowed(&client, "calls", "a", 1));
    let has_fallen = || match limited(&client, "calls", "a") {
        (limit, _) if limit == units(5) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until(Duration::from_secs(5), has_fallen).expect("the subscription has ended");
    assert!(!allowed(&client, "calls", "a", 1), "six are used of five");
    let fallen = client.get("/api/v1/customers/a").body();
    assert_eq!(text(&fallen, "effective_plan_id"), Some(free), "{fallen}");
    assert_eq!(text(&fallen, "plan_id"), Some(pro.clone()), "{fallen}");

    // A restart finds it as it was; extending brings the plan back, and the value was never touched.
    admin.kill();
    drop(admin);
    let admin = Admin::start(&data_dir);
    let client = admin.client.with_key(&key);
    assert_eq!(limited(&client, "calls", "a"), (units(5), Some("plan".to_owned())));
    customer(&client, "a", r#"{"subscription_ends_at": "2100-01-01T00:00:00Z"}"#);
    let reading = client.get(&metric("calls", "a")).body();
    assert_eq!((amount(&reading, "limit_value"), amount(&reading, "current_value")), (units(100), units(6)));
    assert!(allowed(&client, "calls", "a", 1));
    customer(&client, "a", r#"{"subscription_ends_at": null}"#);
    assert_eq!(limited(&client, "calls", "a"), (units(100), Some("plan".to_owned())));
}

#[test]
fn a_plans_block_limit_admits_exactly_so_much_from_many_clients_and_refusals_are_not_journaled() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Launch::dev(folder.path().join("data")).workers(4).start();
    let client = Client::new(&server.base());
    let pro = plan(&client, r#"{"plan_name": "Pro", "stripe_price_id": "price_pro"}"#);
    let body = format!(
        r#"{{"plan_id": "{pro}", "metric_name": "seats", "limit_value": 500, "breach_action": "block", "limit_period": "lifetime"}}"#
    );
    let seats = format!("{LIMITS}/{}", limit(&client, &body));
    customer(&client, "a", &format!(r#"{{"name": "A", "plan_id": "{pro}"}}"#));
    // Before its first update: a window that is to be written would be due at the end of its batch.
    let unkept = r#"{"metadata": {"integrations": {"supabase": {"enabled": false}}}}"#;
    client.call("PATCH", &metric("seats", "a"), &[], unkept).body();
    let (next, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let spend = |of: usize| {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    let client = Client::new(&server.base());
                    while next.fetch_add(1, Ordering::Relaxed) < of {
                        match client.put(&metric("seats", "a"), r#"{"value": 1}"#) {
                            Outcome::Durable(_) => drop(admitted.fetch_add(1, Ordering::Relaxed)),
                            refused => refused.refused(429, "plan_limit_exceeded"),
                        }
                    }
                });
            }
        });
        admitted.load(Ordering::Relaxed)
    };
    assert_eq!(spend(2_000), 500);
    // A raised limit is never refused early after its answer; a lowered one refuses at once.
    client.put(&seats, r#"{"limit_value": 700}"#).body();
    client.put(&metric("seats", "a"), r#"{"value": 1}"#).body();
    admitted.fetch_add(1, Ordering::Relaxed);
    assert_eq!(spend(4_000), 700);
    client.put(&seats, r#"{"limit_value": 600}"#).body();
    client.put(&metric("seats", "a"), r#"{"value": 1}"#).refused(429, "plan_limit_exceeded");
    client.put(&metric("seats", "a"), r#"{"value": -150}"#).body();
    client.put(&metric("seats", "a"), r#"{"value": 50}"#).body();
    limits::are_not_journaled(&server, &metric("seats", "a"));

    let standings: Value = serde_json::from_str(&client.get("/api/v1/limits").body()).expect("JSON");
    assert_eq!(standings["limits"][0]["metric_name"], "seats", "{standings}");
    assert_eq!(standings["limits"][0]["percent"].as_f64(), Some(100.0), "{standings}");
    let usage: Value = serde_json::from_str(&client.get("/api/v1/customers/a/usage").body()).expect("JSON");
    assert_eq!(usage["usage"][0]["limit_breached"], true, "{usage}");
}

#[test]
fn killed_in_the_middle_random_amounts_and_refunds_never_pass_a_plans_limit() {
    limits::race_through_kills(&metric("credit", "a"), |client| {
        let pro = plan(client, r#"{"plan_name": "Pro", "stripe_price_id": "price_pro"}"#);
        customer(client, "a", &format!(r#"{{"name": "A", "plan_id": "{pro}"}}"#));
        let body = format!(
            r#"{{"plan_id": "{pro}", "metric_name": "credit", "limit_value": {}, "breach_action": "block", "limit_period": "lifetime"}}"#,
            limits::LIMIT
        );
        limit(client, &body);
    });
}
