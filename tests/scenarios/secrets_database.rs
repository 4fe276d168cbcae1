//! Secrets on PostgreSQL: none shows in what is said, in a file or in the database, whatever goes wrong with it; and another
//! machine reads them from there, if it has the key.
//!
//! Two keys are shown on purpose and nowhere else: the admin's in its file, the demo's in its file and in the lines that
//! say how to try it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::audit::{self, entries};
use super::secrets::{
    HOOK, KEYS, LIVE, STRIPE_SECRET, STRIPE_WEBHOOK, WEBHOOK, body_of, misplaced, nothing_shows,
    raw_secret_key, raw_webhook_secret, readiness, spellings, stripe,
};
use super::starts::fails;
use super::support::api::{Client, count, text};
use super::support::postgres::Cluster;
use super::support::server::{Ended, Launch, Server, binary};
use super::support::{KEY, SECRET_KEY, kept_in, until};

const PASSWORDS: [&str; 2] = ["canaryPasswordCANARY0271828182845", "canaryPasswordCANARY0314159265358"];
const RESTRICTED: &str = "rk_live_canaryCANARYfedcba9876543210";
const ADMIN_KEY: &str = "tk_admin_canaryCANARY5772156649015328606065";
const CUSTOMER_KEYS: &str = "/api/v1/businesses/biz_demo/customers/cust_123/keys";
const TARGETS: &str = "/api/v1/businesses/biz_demo/proxy_targets";
const CALLS: &str = "/api/v1/metrics/calls";
/// Longer than the longest pause between two attempts at the database.
const RETRY_LIMIT: Duration = Duration::from_secs(45);

/// What must not show, and all that was said.
struct Watch {
    cluster: Cluster,
    folder: tempfile::TempDir,
    secrets: Vec<Vec<u8>>,
    said: String,
}

impl Watch {
    /// A database that lets `canary` in with the first password alone.
    fn begin() -> Watch {
        let cluster = Cluster::start();
        let role = format!(
            "CREATE ROLE canary LOGIN PASSWORD '{}'; GRANT CREATE ON DATABASE postgres TO canary",
            PASSWORDS[0]
        );
        cluster.connect().batch_execute(&role).expect("a role");
        cluster.admit_first("host all canary 127.0.0.1/32 scram-sha-256");
        let texts = [PASSWORDS[0], PASSWORDS[1], STRIPE_SECRET, STRIPE_WEBHOOK, RESTRICTED, SECRET_KEY];
        let mut secrets: Vec<_> = texts.map(|text| text.as_bytes().to_vec()).into();
        secrets.push(raw_secret_key());
        let folder = tempfile::tempdir().expect("a temporary folder");
        Watch { cluster, folder, secrets, said: String::new() }
    }

    /// `rest`: the port and what follows it.
    fn url(&self, password: &str, rest: &str) -> String {
        format!("postgres://canary:{password}@127.0.0.1:{rest}")
    }

    fn launch(&self, name: &str, url: &str) -> Launch {
        Launch::dev(self.folder.path().join(name))
            .workers(1)
            .with(&["--segment-bytes", "1MiB"])
            .environment("TRACKTAGS_LOG", "trace")
            .environment("TRACKTAGS_SECRET_KEY", SECRET_KEY)
            .environment("TRACKTAGS_ADMIN_KEY", ADMIN_KEY)
            .environment("DATABASE_URL", url)
    }

    /// The launch with a password that is right at some time.
    fn launch_with(&self, name: &str, password: &str) -> Launch {
        self.launch(name, &self.url(password, &format!("{}/postgres", self.cluster.port())))
    }

    /// All that was said is kept, but for the lines that show the demo's key.
    fn hear(&mut self, said: &str) {
        for line in
            said.lines().filter(|line| !line.starts_with("demo business ") && !line.starts_with("curl "))
        {
            self.said.push_str(line);
            self.said.push('\n');
        }
    }

    fn hear_all(&mut self, ended: &Ended) {
        self.hear(&ended.output);
        self.hear(&ended.errors);
    }

    /// The answer may show it, and nothing else.
    fn new_webhook_secret(&mut self, client: &Client) {
        let secret = text(&client.put(WEBHOOK, HOOK).body(), "secret").expect("shown once");
        self.secrets.extend([raw_webhook_secret(&secret), secret.into_bytes()]);
    }

    /// What a server answers to everything that can be asked, and its log so far.
    fn ask_everything(&mut self, server: &Server) {
        let client = Client::new(&server.base());
        let mut answers = String::new();
        let open = ["/metrics", "/readyz", "/livez", "/openapi.json"];
        let own = [KEYS, LIVE, CUSTOMER_KEYS, "/api/v1/metrics", CALLS, "/api/v1/customers", audit::OWN];
        let history = format!("{CALLS}/history");
        for path in open.into_iter().chain(own).chain([history.as_str(), "/no/such/route"]) {
            answers += &body_of(client.get(path));
        }
        let nobody = client.with_key("none");
        for path in ["/admin/v1/audit-logs", "/api/v1/businesses", "/api/v1/businesses/biz_demo"] {
            answers += &body_of(nobody.call("GET", path, &[("x-admin-key", ADMIN_KEY)], ""));
        }
        self.hear(&answers);
        self.hear(&server.output());
        self.hear(&server.errors());
    }

    /// No secret in what was said, in the database, or in a file of these directories.
    fn nothing_shows(&self, names: &[&str]) {
        let dump = self.cluster.dump();
        assert!(dump.contains("https://example.com/hook"), "the dump has what is not secret");
        let everything = format!("{}{dump}", self.said);
        for data_dir in names.iter().map(|name| self.folder.path().join(name)) {
            nothing_shows(&data_dir, &everything, &self.secrets);
            for (key, file) in [(ADMIN_KEY, "admin-key"), (KEY, "dev-key")] {
                is_in_its_file_alone(&data_dir, file, key, &everything);
            }
            for file in ["journal", "history.note"] {
                assert!(data_dir.join(file).exists(), "{file} was searched");
            }
        }
    }
}

fn is_in_its_file_alone(data_dir: &Path, file: &str, key: &str, said: &str) {
    for spelling in spellings(key.as_bytes()) {
        let shown = String::from_utf8_lossy(&spelling).into_owned();
        assert!(!said.contains(&shown), "{shown} was said");
        let own: Vec<PathBuf> =
            if spelling == key.as_bytes() { vec![data_dir.join(file)] } else { Vec::new() };
        assert_eq!(kept_in(data_dir, &spelling), own, "{shown}");
    }
}

fn key_body(key_type: &str, key_name: &str) -> String {
    format!(r#"{{"key_type": "{key_type}", "key_name": "{key_name}"}}"#)
}

/// Makes a secret of each kind and uses it rightly and wrongly.
fn exercise(watch: &mut Watch, client: &Client) {
    let mut said = client.post(KEYS, &stripe("live", STRIPE_SECRET, STRIPE_WEBHOOK)).body();
    said += &client.post(KEYS, &stripe("next", RESTRICTED, STRIPE_WEBHOOK)).body();
    said += &body_of(client.post(KEYS, &stripe("third", RESTRICTED, RESTRICTED)));
    for _ in 0..2 {
        watch.new_webhook_secret(client);
    }
    let metric =
        r#"{"metric_name": "calls", "metadata": {"integrations": {"postgres": {"batch_interval": "1s"}}}}"#;
    said += &client.post("/api/v1/metrics", metric).body();
    let made = [(KEYS, key_body("business", "second")), (CUSTOMER_KEYS, key_body("customer_api", "c"))];
    for (path, body) in made {
        let key = text(&client.post(path, &body).body(), "api_key").expect("shown once");
        let holder = client.with_key(&key);
        said += &holder.get("/api/v1/metrics").body();
        for outcome in [
            holder.put(CALLS, r#"{"value": 1}"#),
            holder.put(CALLS, r#"{"value": "1"}"#),
            holder.delete(&LIVE.replace("live", "absent")),
            holder.get(&format!("/api/v1/metrics?api_key={key}")),
            holder.call("GET", "/admin/v1/audit-logs", &[("x-admin-key", &key)], ""),
            holder.call("GET", "/api/v1/businesses", &[("x-admin-key", &format!("{ADMIN_KEY}x"))], ""),
            client.with_key(&format!("{key}x")).get(CALLS),
            client.with_key(ADMIN_KEY).get(CALLS),
        ] {
            said += &body_of(outcome);
        }
        watch.secrets.push(key.into_bytes());
    }
    // No third key of the business, so that none is shown here.
    said += &misplaced(client);
    watch.hear(&said);
}

/// Waits until a server's log says it.
fn logs(server: &Server, word: &str) {
    let said = until(RETRY_LIMIT, || if server.errors().contains(word) { Ok(()) } else { Err(()) });
    assert_eq!(said, Ok(()), "the log never says {word}: {}", server.errors());
}

fn becomes(client: &Client, expected: &str) {
    let ready = || match readiness(client) {
        said if said == expected => Ok(()),
        said => Err(said),
    };
    assert_eq!(until(RETRY_LIMIT, ready), Ok(()));
}

/// Its database goes and comes back; then the password is changed, so that it is let in no more.
fn lose_the_database_twice(watch: &mut Watch, server: &Server) {
    let client = Client::new(&server.base());
    watch.cluster.stop_immediately();
    client.put(CALLS, r#"{"value": 1}"#).body();
    watch.new_webhook_secret(&client);
    logs(server, "a batch of history will be tried again");
    watch.ask_everything(server);
    watch.cluster.start_again().expect("it starts");
    becomes(&client, "ok");
    let change = format!(
        "ALTER ROLE canary PASSWORD '{}';
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'canary'",
        PASSWORDS[1]
    );
    watch.cluster.connect().batch_execute(&change).expect("changed");
    client.put(CALLS, r#"{"value": 1}"#).body();
    logs(server, "28P01");
    watch.ask_everything(server);
}

/// Starts, and other runs of the program, that find the database refusing them.
fn fail_to_start(watch: &mut Watch) {
    let port = watch.cluster.port();
    let ways = [
        (PASSWORDS[0], format!("{port}/postgres"), "28P01"),
        (PASSWORDS[1], format!("{port}/absent"), "3D000"),
        (PASSWORDS[1], format!("{port}/postgres?sslmode=require"), "TLS"),
        (PASSWORDS[1], format!("{port}/postgres?sslmode=sometimes"), "sslmode"),
        (PASSWORDS[1], "port/postgres".to_owned(), "port"),
    ];
    for (password, rest, why) in ways {
        let url = watch.url(password, &rest);
        let ended = fails(&watch.launch("first", &url));
        assert!(ended.errors.contains(why), "{}", ended.errors);
        watch.hear_all(&ended);
        let migrated = Command::new(binary()).args(["migrate", "--database-url", &url]).output();
        let migrated = migrated.expect("it runs");
        assert!(!migrated.status.success());
        watch.hear(&String::from_utf8_lossy(&[migrated.stdout, migrated.stderr].concat()));
    }
    let url = watch.url(PASSWORDS[1], "").replace("postgres://", "mysql://");
    let ended = fails(&watch.launch("first", &url));
    assert!(ended.errors.contains("postgres://"), "{}", ended.errors);
    watch.hear_all(&ended);
    for arguments in [["--help", "--dev"], ["--workers", "none"]] {
        let launch = watch.launch_with("first", PASSWORDS[1]).with(&arguments);
        let ended = launch.spawn().ended_within(Duration::from_secs(10));
        watch.hear_all(&ended);
    }
}

#[test]
fn no_secret_shows_whatever_goes_wrong_with_the_database() {
    let mut watch = Watch::begin();
    let server = watch.launch_with("first", PASSWORDS[0]).start();
    let client = Client::new(&server.base());
    exercise(&mut watch, &client);
    // What was made is in the database once its log is.
    let expected = ["webhook.rotate", "customer_api/cust_123/c"];
    let told = || {
        let body = client.get(audit::OWN).body();
        if expected.iter().all(|word| body.contains(word)) { Ok(()) } else { Err(body) }
    };
    assert_eq!(until(Duration::from_secs(10), told), Ok(()));
    watch.ask_everything(&server);
    watch.nothing_shows(&["first"]);
    lose_the_database_twice(&mut watch, &server);
    server.kill();
    watch.hear(&server.errors());
    watch.nothing_shows(&["first"]);

    fail_to_start(&mut watch);
    let server = watch.launch_with("first", PASSWORDS[1]).start();
    watch.ask_everything(&server);
    // A stop writes a snapshot.
    watch.hear_all(&server.stop());
    watch.nothing_shows(&["first"]);

    let first = watch.launch_with("first", PASSWORDS[1]).start();
    let refused = fails(&watch.launch_with("second", PASSWORDS[1]));
    assert!(refused.errors.contains("--take-over"), "{}", refused.errors);
    watch.hear_all(&refused);
    let second = watch.launch_with("second", PASSWORDS[1]).with(&["--take-over"]).start();
    for server in [&first, &second] {
        Client::new(&server.base()).put(CALLS, r#"{"value": 1}"#).body();
    }
    logs(&first, "taken over");
    watch.ask_everything(&first);
    watch.ask_everything(&second);
    watch.hear_all(&first.stop());
    watch.hear_all(&second.stop());
    watch.nothing_shows(&["first", "second"]);
}

/// One machine after the other on one database, each with an empty directory and with or without the secret key.
fn machine(folder: &Path, number: usize, cluster: &Cluster, secret_key: Option<&str>) -> (Server, Client) {
    let launch = Launch::dev(folder.join(format!("machine-{number}"))).workers(1);
    let launch = launch.with(&["--database-url", &cluster.url(), "--take-over"]);
    let launch =
        secret_key.into_iter().fold(launch, |launch, key| launch.environment("TRACKTAGS_SECRET_KEY", key));
    let server = launch.start();
    let client = Client::new(&server.base());
    (server, client)
}

#[test]
fn a_new_machine_reads_the_secrets_of_the_database_if_it_has_their_key() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (server, client) = machine(folder.path(), 0, &cluster, Some(SECRET_KEY));
    client.post(KEYS, &stripe("live", STRIPE_SECRET, STRIPE_WEBHOOK)).body();
    client.put(WEBHOOK, HOOK).body();
    let second =
        text(&client.post(KEYS, &key_body("business", "second")).body(), "api_key").expect("shown once");
    let of_customer = text(&client.post(CUSTOMER_KEYS, &key_body("customer_api", "c")).body(), "api_key")
        .expect("shown once");
    client.put(TARGETS, r#"{"proxy_targets": ["https://api.example.com"]}"#).body();
    // Newest first; the oldest tells of the demo.
    let mut log: Vec<Value> = entries(&audit::log(&client, 6));
    server.kill();

    let other = SECRET_KEY.replace('8', "9");
    let warnings = [None, Some("there is no key for"), Some("another key"), None];
    for (index, secret_key) in
        [Some(SECRET_KEY), None, Some(&other), Some(SECRET_KEY)].into_iter().enumerate()
    {
        let (server, client) = machine(folder.path(), 1 + index, &cluster, secret_key);
        let errors = server.errors();
        let said: Vec<_> = errors.lines().filter(|line| line.contains("TRACKTAGS_SECRET_KEY")).collect();
        match warnings[index] {
            None => assert_eq!((said.len(), readiness(&client).as_str()), (0, "ok"), "{said:?}"),
            Some(warning) => {
                assert_eq!(readiness(&client), "degraded secrets_unreadable");
                assert!(
                    said.len() == 1 && said[0].contains(warning) && said[0].contains("or set them anew"),
                    "{said:?}"
                );
            }
        }
        let holder = client.with_key(&second);
        let listed = holder.get(KEYS).body();
        assert_eq!(count(&listed, "count"), Some(3), "the demo's key, the second and Stripe's: {listed}");
        assert!(listed.contains(r#""stripe""#), "{listed}");
        assert_eq!(text(&holder.get(LIVE).body(), "key_name").as_deref(), Some("live"));
        client.with_key(&of_customer).get("/api/v1/metrics").body();
        let targets = holder.get(TARGETS).body();
        assert!(targets.contains(r#""proxy_targets":["https://api.example.com"]"#), "{targets}");

        // What was before is there as it was, and what is new comes on top, page by page too.
        assert_eq!(entries(&audit::log(&client, log.len())), log);
        let series = format!(r#"{{"metric_name": "calls_{index}"}}"#);
        holder.post("/api/v1/metrics", &series).body();
        let longer = entries(&audit::log(&client, log.len() + 1));
        assert_eq!(longer[0]["actor"].as_str(), Some("key:second"), "{}", longer[0]);
        assert_eq!(longer[0]["subject"].as_str(), Some(format!("calls_{index}").as_str()), "{}", longer[0]);
        assert_eq!(longer[1..], log);
        assert_eq!(audit::paged(&format!("{}?", audit::OWN), 2, |path| client.get(path).body()), longer);
        log = longer;
        server.kill();
    }
}
