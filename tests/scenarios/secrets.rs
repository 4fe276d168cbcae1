//! Secrets of tenants that the service can recover: encrypted wherever they lie, shown once or never, and what the service
//! says when it cannot read them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use dataflows::types::Sealed;
use tracktags::control::{Owner, Plaintext, Purpose, Vault};

use super::support::api::{Client, Outcome, count, text};
use super::support::history;
use super::support::server::{Launch, Server};
use super::support::{SECRET_KEY, is_kept, until};

pub const KEYS: &str = "/api/v1/businesses/biz_demo/keys";
pub const LIVE: &str = "/api/v1/businesses/biz_demo/keys/stripe/live";
pub const WEBHOOK: &str = "/api/v1/businesses/biz_demo/webhook";
pub const HOOK: &str = r#"{"url": "https://example.com/hook"}"#;
pub const STRIPE_SECRET: &str = "sk_live_canaryCANARY0123456789abcdef";
pub const STRIPE_WEBHOOK: &str = "whsec_canaryCANARYzyxwvutsrq987654321";

fn start(data_dir: &Path, secret_key: Option<&str>) -> (Server, Client) {
    let launch = Launch::dev(data_dir).workers(1).with(&["--segment-bytes", "1MiB"]);
    let launch = launch.environment("TRACKTAGS_LOG", "trace");
    let server = match secret_key {
        Some(key) => launch.environment("TRACKTAGS_SECRET_KEY", key).start(),
        None => launch.start(),
    };
    let client = Client::new(&server.base());
    (server, client)
}

pub fn stripe(key_name: &str, secret_key: &str, webhook_secret: &str) -> String {
    format!(
        r#"{{"key_type": "stripe", "key_name": "{key_name}",
            "credentials": {{"secret_key": "{secret_key}", "webhook_secret": "{webhook_secret}"}}}}"#
    )
}

/// The bytes themselves, in hexadecimal, and in base64 wherever they may begin in a longer text.
pub fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64 = (0..3).map(|before| {
        let longer = [&vec![0; before], secret].concat();
        let encoded = BASE64_STANDARD_NO_PAD.encode(&longer);
        // Characters that the neighbours have no part in.
        encoded.as_bytes()[(before * 8).div_ceil(6)..longer.len() * 8 / 6].to_vec()
    });
    [secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()].into_iter().chain(base64).collect()
}

pub fn body_of(outcome: Outcome) -> String {
    let (Outcome::Durable(body) | Outcome::Rejected(_, body) | Outcome::Unknown(body)) = outcome;
    body
}

/// Every secret of this test in every spelling: none in what was said, none in a file.
pub fn nothing_shows(data_dir: &Path, said: &str, secrets: &[impl AsRef<[u8]>]) {
    for spelling in secrets.iter().flat_map(|secret| spellings(secret.as_ref())) {
        let shown = String::from_utf8_lossy(&spelling).into_owned();
        assert!(!said.contains(&shown), "{shown} was said");
        assert!(!is_kept(data_dir, &spelling), "{shown} is in a file");
    }
}

/// Requests that have secrets where none belong, or wrong ones; what is answered.
pub fn misplaced(client: &Client) -> String {
    let mut said = String::new();
    for (secret_key, webhook_secret) in [
        (STRIPE_SECRET, STRIPE_SECRET),
        (STRIPE_WEBHOOK, STRIPE_WEBHOOK),
        (STRIPE_SECRET, STRIPE_WEBHOOK),
        (&format!("{STRIPE_SECRET} "), STRIPE_WEBHOOK),
        (&format!(r"{STRIPE_SECRET}\x"), STRIPE_WEBHOOK),
        (&format!(r#"{STRIPE_SECRET}""#), STRIPE_WEBHOOK),
    ] {
        said += &body_of(client.post(KEYS, &stripe("live", secret_key, webhook_secret)));
    }
    said += &body_of(client.post(
        KEYS,
        &format!(r#"{{"key_type": "business", "key_name": "b", "credentials": ["{STRIPE_SECRET}"]}}"#),
    ));
    said += &body_of(client.post(KEYS, &format!(r#"{{"key_type": "{STRIPE_SECRET}", "key_name": "b"}}"#)));
    said += &body_of(client.put(WEBHOOK, &format!(r#"{{"url": "https://{STRIPE_SECRET}:x@example.com"}}"#)));
    said
}

fn opened(purpose: Purpose, base64: &str) -> Plaintext {
    let vault = Vault::new(Some(&raw_secret_key().try_into().expect("32 bytes")));
    let owner = Owner { business_id: "biz_demo", purpose, name: "live" };
    let sealed = Sealed(BASE64_STANDARD.decode(base64).expect("base64"));
    vault.open(&owner, &sealed).expect("the service's key opens it")
}

/// The bytes that `SECRET_KEY` is written for.
pub fn raw_secret_key() -> Vec<u8> {
    SECRET_KEY.as_bytes().chunks(2).map(hex_byte).collect()
}

/// The bytes that the secret of a webhook is written for.
pub fn raw_webhook_secret(secret: &str) -> Vec<u8> {
    let base64 = secret.strip_prefix("whsec_").expect("its prefix");
    BASE64_STANDARD.decode(base64).expect("base64")
}

fn hex_byte(pair: &[u8]) -> u8 {
    u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hexadecimal")
}

#[test]
fn secrets_are_encrypted_wherever_they_lie_and_shown_by_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (server, client) = start(&data_dir, Some(SECRET_KEY));
    // Whatever is said from here on; only the answer that makes a webhook secret may hold it.
    let mut said = String::new();
    said += &client.post(KEYS, &stripe("live", STRIPE_SECRET, STRIPE_WEBHOOK)).body();
    let first = text(&client.put(WEBHOOK, HOOK).body(), "secret").expect("shown once");
    let second = text(&client.put(WEBHOOK, HOOK).body(), "secret").expect("shown once");
    let raw = [&first, &second].map(|secret| raw_webhook_secret(secret));
    let secret_key = raw_secret_key();
    let secrets: [&[u8]; 8] = [
        STRIPE_SECRET.as_bytes(),
        STRIPE_WEBHOOK.as_bytes(),
        first.as_bytes(),
        second.as_bytes(),
        &raw[0],
        &raw[1],
        SECRET_KEY.as_bytes(),
        &secret_key,
    ];
    said += &misplaced(&client);
    let everything =
        ["/metrics", "/readyz", KEYS, LIVE, "/api/v1/metrics", "/api/v1/customers", "/api/v1/audit-logs"];
    let all = |client: &Client| everything.map(|path| body_of(client.get(path))).concat();
    said += &all(&client);

    // A crash: journal and database. A start and a stop: a snapshot.
    let stored = || history::stripe_key(&data_dir, "live")?.ok_or("no row".to_owned());
    let stored = until(Duration::from_secs(10), stored).expect("the credentials are in the store");
    server.kill();
    said += &(server.output() + &server.errors());
    nothing_shows(&data_dir, &said, &secrets);
    assert!(is_kept(&data_dir, b"https://example.com/hook"), "the search finds what is not secret");
    let (server, client) = start(&data_dir, Some(SECRET_KEY));
    said += &all(&client);
    let ended = server.stop();
    said += &(ended.output + &ended.errors);
    let journal = fs::read_dir(data_dir.join("journal")).expect("the journal").flatten();
    assert!(journal.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("snapshot")));
    nothing_shows(&data_dir, &said, &secrets);

    // What the database holds is enough for another machine that has the key.
    assert_eq!(opened(Purpose::StripeSecretKey, &stored.0), Plaintext(STRIPE_SECRET.to_owned()));
    assert_eq!(opened(Purpose::StripeWebhookSecret, &stored.1), Plaintext(STRIPE_WEBHOOK.to_owned()));
}

#[test]
fn credentials_for_stripe_are_a_key_of_their_own_type() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (server, client) = start(&data_dir, Some(SECRET_KEY));
    let good = |name: &str| stripe(name, "rk_test_1", "whsec_1");
    for (body, status, code, field) in [
        (stripe("s", "pk_live_1", "whsec_1"), 422, "wrong_kind", "credentials.secret_key"),
        (stripe("s", "sk_", "whsec_1"), 422, "wrong_kind", "credentials.secret_key"),
        (stripe("s", "sk_live_1", "sk_live_1"), 422, "wrong_kind", "credentials.webhook_secret"),
        (stripe("s", "", "whsec_1"), 400, "invalid_secret", "credentials.secret_key"),
        (good("a/b"), 400, "invalid_id", "key_name"),
        (good("s").replace("webhook_secret", "webhook"), 400, "unknown_field", "credentials.webhook"),
        (r#"{"key_type": "stripe", "key_name": "s"}"#.to_owned(), 400, "missing_field", "credentials"),
        (good("s").replacen('{', r#"{"scopes": ["read"],"#, 1), 400, "unknown_field", "scopes"),
    ] {
        let outcome = client.post(KEYS, &body);
        assert_eq!(text(&body_of(outcome.clone()), "field").as_deref(), Some(field), "{outcome:?}");
        outcome.refused(status, code);
    }
    let body = client.post(KEYS, &good("live")).body();
    assert_eq!(
        ["status", "key_type", "api_key"].map(|field| text(&body, field)),
        [Some("created".to_owned()), Some("stripe".to_owned()), None]
    );
    client.post(KEYS, &good("live")).refused(409, "key_exists");
    client.post(KEYS, &good("next")).body();
    client.post(KEYS, &good("third")).refused(409, "key_limit_reached");
    // Two of each type: those of another are not in the way, nor are their names.
    client.post(KEYS, r#"{"key_type": "business", "key_name": "live", "scopes": ["read"]}"#).body();
    server.kill();
    let (server, client) = start(&data_dir, Some(SECRET_KEY));
    assert_eq!(count(&client.get(KEYS).body(), "count"), Some(4));
    assert_eq!(text(&client.get(LIVE).body(), "key_name").as_deref(), Some("live"));
    client.get(&LIVE.replace("stripe", "other")).refused(400, "invalid_option");

    // A key that may only read does not end them, whatever its name.
    let reader = r#"{"key_type": "business", "key_name": "live", "scopes": ["read"]}"#;
    client.delete(&LIVE.replace("stripe", "business")).body();
    let reader = client.with_key(&text(&client.post(KEYS, reader).body(), "api_key").expect("shown"));
    reader.delete(LIVE).refused(403, "insufficient_scope");
    client.delete(LIVE).body();
    client.delete(LIVE).refused(404, "key_not_found");
    client.get(LIVE).refused(404, "key_not_found");
    client.post(KEYS, &good("third")).body();
    server.stop();
    let (_server, client) = start(&data_dir, Some(SECRET_KEY));
    client.get(LIVE).refused(404, "key_not_found");
    let gone = until(Duration::from_secs(10), || match history::stripe_key(&data_dir, "live") {
        Ok(None) => Ok(()),
        other => Err(other),
    });
    gone.expect("the credentials leave the store");
}

#[test]
fn a_webhook_url_needs_the_secret_of_the_business_which_each_put_makes_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (server, client) = start(&data_dir, Some(SECRET_KEY));
    let series = r#"{"metric_name": "calls", "webhook_url": "https://example.com/series"}"#;
    client.post("/api/v1/metrics", series).refused(422, "webhook_secret_missing");
    client.post("/api/v1/metrics", r#"{"metric_name": "other"}"#).body();
    let patch = r#"{"webhook_url": "https://example.com/series"}"#;
    let patched = |client: &Client| client.call("PATCH", "/api/v1/metrics/other", &[], patch);
    patched(&client).refused(422, "webhook_secret_missing");
    client.post("/api/v1/metrics", &series.replace("calls", "other")).refused(422, "webhook_secret_missing");
    let long = format!("https://example.com/{}", "x".repeat(2_048));
    for url in ["", "ftp://example.com", "https://u:p@example.com", "//example.com", &long] {
        client.put(WEBHOOK, &format!(r#"{{"url": "{url}"}}"#)).refused(400, "invalid_url");
    }
    client.put(WEBHOOK, "{}").refused(400, "missing_field");

    let body = client.put(WEBHOOK, HOOK).body();
    let secret = text(&body, "secret").expect("shown once");
    let random = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").expect("its prefix"));
    assert_eq!((random.map(|bytes| bytes.len()), text(&body, "previous_secret_ends_at")), (Ok(32), None));
    server.kill();
    let (_server, client) = start(&data_dir, Some(SECRET_KEY));
    let again = client.put(WEBHOOK, HOOK).body();
    assert_ne!(text(&again, "secret"), Some(secret));
    let ends_at = text(&again, "previous_secret_ends_at").expect("the first one signs along");
    let ends_at: jiff::Timestamp = ends_at.parse().expect("a time");
    let seconds = ends_at.as_second() - jiff::Timestamp::now().as_second();
    assert!((86_000..=86_400).contains(&seconds), "{seconds}");
    let body = client.post("/api/v1/metrics", series).body();
    assert_eq!(text(&body, "webhook_url").as_deref(), Some("https://example.com/series"));
    patched(&client).body();
}

#[test]
fn without_the_right_key_the_service_runs_and_says_what_is_amiss() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data");
    let (server, client) = start(&data_dir, None);
    assert!(!server.errors().contains("TRACKTAGS_SECRET_KEY"), "nothing to say while there are no secrets");
    for outcome in [client.post(KEYS, &stripe("live", "sk_live_1", "whsec_1")), client.put(WEBHOOK, HOOK)] {
        let said = text(&body_of(outcome.clone()), "detail").expect("a sentence");
        assert!(said.contains("TRACKTAGS_SECRET_KEY") && said.contains("openssl rand -hex 32"), "{said}");
        outcome.refused(422, "secret_key_missing");
    }
    assert_eq!(count(&client.get(KEYS).body(), "count"), Some(1));
    server.stop();
    let (server, client) = start(&data_dir, Some(SECRET_KEY));
    client.post(KEYS, &stripe("live", "sk_live_1", "whsec_1")).body();
    client.put(WEBHOOK, HOOK).body();
    assert_eq!(readiness(&client), "ok");
    server.stop();

    let other = SECRET_KEY.replace('8', "9");
    for (key, warning) in [(None, "there is no key for"), (Some(other.as_str()), "another key")] {
        let (server, client) = start(&data_dir, key);
        assert_eq!(readiness(&client), "degraded secrets_unreadable");
        let warnings: Vec<_> = server
            .errors()
            .lines()
            .filter(|line| line.contains("TRACKTAGS_SECRET_KEY"))
            .map(str::to_owned)
            .collect();
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{warnings:?}");
        client.post("/api/v1/metrics", r#"{"metric_name": "calls"}"#).body();
        client.put("/api/v1/metrics/calls", r#"{"value": 1}"#).body();
        assert_eq!(count(&client.get(KEYS).body(), "count"), Some(2));
        server.stop();
    }
    // What is set anew is readable again.
    let (_server, client) = start(&data_dir, Some(&other));
    client.delete(LIVE).body();
    assert_eq!(readiness(&client), "degraded secrets_unreadable");
    client.put(WEBHOOK, HOOK).body();
    assert_eq!(readiness(&client), "ok");
}

/// Status and reasons.
pub fn readiness(client: &Client) -> String {
    let body: serde_json::Value = serde_json::from_str(&client.get("/readyz").body()).expect("JSON");
    let reasons = body["reasons"].as_array().expect("a list").iter();
    let words = [&body["status"]].into_iter().chain(reasons).map(|word| word.as_str().expect("a word"));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_secret_key_that_is_none_stops_the_start_and_is_not_repeated() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let launch = Launch::dev(folder.path().join("data"));
    let wrong = "correct-horse-battery-staple";
    let why = launch.environment("TRACKTAGS_SECRET_KEY", wrong).try_start().err().expect("refused");
    assert!(why.contains("--secret-key") && why.contains("openssl rand -hex 32"), "{why}");
    assert!(!why.contains(wrong), "{why}");
}
