//! Builds the rooms in the order of the flow and stops them in reverse. The only place that knows every room.
//!
//! Start: data directory and keys, HTTP (answers `/livez` and `/readyz` from here on), journal opened, store, workers,
//! sink, replay, journal writer, control, delivery of messages, the API. Stop: no new connections, definitions, messages, a last emission of whatever
//! has changed, a snapshot, the seal, the sink, the workers.

mod billing;
mod keys;
mod messages;
mod signals;
mod snapshots;
mod store;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use dataflows::types::{Action, Business, Customer, Definition, Epoch, KeyKind, Micros, Scopes};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admission::{Admission, AdmissionOptions, Bounds, Keys};
use crate::clock::{self, Clock, Stamps};
use crate::config::{Config, Durability, Network, Secret};
use crate::control::{BUSINESS_PREFIX, Control, Origin, Registry, SeriesHandle, Vault};
use crate::engine::{self, EngineOptions, Queries, Shared, Ticket, Workers};
use crate::http::{self, Backend, Patching, Rooms, Undelivered};
use crate::journal::{self, Append, Journal, Kind, Recovery};
use crate::outbound::{Cidr, Outbound, OutboundOptions};
use crate::sinks::billing::Remarks;
use crate::sinks::{self, Billing, HistorySink, MessageHealth, SinkHealth, Webhooks};
use crate::store::{Content, History, PostgresStore};
use messages::{Addresses, Signed};
pub use signals::Signals;
use snapshots::Snapshots;

/// The demo business of `--dev` and its customer.
const DEMO_BUSINESS: &str = "biz_demo";
const DEMO_CUSTOMER: &str = "cust_123";
const DEMO_KEY_NAME: &str = "dev";
/// How long a stop waits for the last emission; what is not in the store by then is in the journal.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long requests under way may take to end once the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the service until it is told to stop. An error is a sentence for whoever started it.
pub fn serve(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(config))
}

/// Brings the schema of a database up to date and says so.
pub fn migrate(database_url: &Secret, schema: &str) -> anyhow::Result<()> {
    let version = PostgresStore::migrate(&store::target(database_url, schema)?)?;
    announce(&format!("schema {schema} has version {version}"));
    Ok(())
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let clock = clock::of_process();
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}: choose another address with --listen", config.listen)
    })?;
    keys::make_dir(&config.data_dir)?;
    let recovery = journal::open(journal_options(config))?;
    let admin_key = keys::kept(&config.data_dir, "admin-key", config.admin_key.as_ref(), "tk_admin_")?;
    let address = listener.local_addr()?;
    announce(&format!("listening on http://{address}"));

    let health = Arc::new(SinkHealth::default());
    let signals = Arc::new(Signals::new(clock.clone(), health.clone()));
    let options = http::Options {
        connections_max: config.connections_max,
        drain_timeout: DRAIN_TIMEOUT,
        ..http::Options::default()
    };
    let backend =
        Arc::new(Backend::new(signals.clone(), options.clone()).map_err(|error| anyhow::anyhow!("{error}"))?);
    let (stop_http, mut stopping) = watch::channel(false);
    let warp = hyper_util::service::TowerToHyperService::new(warp::service(http::routes(backend.clone())));
    let service = http::Lanes::new(backend.clone(), warp);
    let serving = tokio::spawn(http::serve(listener, options, service, async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    }));

    let starting = (config.clone(), clock, health, signals.clone(), admin_key);
    let started = tokio::task::spawn_blocking(move || {
        let (config, clock, health, signals, admin_key) = starting;
        Service::start(&config, recovery, clock, health, &signals, &admin_key)
    });
    let service = started.await.context("the start was interrupted")??;
    if config.dev {
        service.define_demo(config, address).await?;
    }
    service.begin_anew().await?;
    backend.open(service.rooms(config));
    signals.ready();
    tracing::info!(workers = config.workers, "ready");

    let failed = tokio::select! {
        () = stop_signal() => false,
        () = service.shared.failed() => true,
    };
    signals.drain();
    let _ = stop_http.send(true);
    let cut_off = serving.await.unwrap_or(0);
    if cut_off > 0 {
        tracing::warn!(connections = cut_off, "connections were cut off");
    }
    tokio::task::spawn_blocking(move || service.stop(failed)).await.context("the stop was interrupted")?;
    if failed {
        bail!("the journal could not be written: see the log, mend the disk and start again");
    }
    Ok(())
}

/// One line for whoever started the service.
fn announce(line: &str) {
    // Whether anybody reads it does not matter.
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}

/// Where and how the journal of this configuration is kept.
pub fn journal_options(config: &Config) -> journal::Options {
    journal::Options {
        segment_bytes: config.segment_bytes,
        retain: config.journal_retain,
        quota_bytes: config.journal_quota_bytes,
        durability: match config.durability {
            Durability::Fsync => journal::Durability::Fsync,
            Durability::Os => journal::Durability::Os,
        },
        ..journal::Options::new(config.data_dir.join("journal"))
    }
}

/// Everything behind HTTP.
pub struct Service {
    control: Control,
    control_thread: JoinHandle<()>,
    admission: Admission,
    shared: Arc<Shared>,
    journal: Journal<Ticket>,
    sink: Arc<HistorySink>,
    webhooks: Arc<Webhooks>,
    billing: Billing,
    remarks: Arc<Remarks>,
    undelivered: Arc<Undelivered>,
    workers: Workers,
    snapshots: Snapshots,
    history: Arc<dyn History>,
    vault: Arc<Vault>,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
}

impl Service {
    /// Recovers what the journal holds and starts every room. Blocking.
    pub fn start(
        config: &Config,
        recovery: Recovery,
        clock: Arc<dyn Clock>,
        health: Arc<SinkHealth>,
        signals: &Arc<Signals>,
        admin_key: &str,
    ) -> anyhow::Result<Service> {
        let journal_id = format!("{:032x}", recovery.journal_id());
        let store::Opened { store, outboxes, history, stored, content, note, doubt } =
            store::open(config, &recovery, &*clock)?;
        let registry =
            Registry::new(config.workers, config.max_event_age_secs).with_series_max(config.series_max);
        let registry = Arc::new(RwLock::new(registry));
        let keys = Arc::new(Keys::new(config.dedup_horizon_secs));
        let options =
            EngineOptions { workers: config.workers, dedup_horizon_secs: config.dedup_horizon_secs };
        let (workers, shared) =
            Workers::start(&options, registry.clone(), keys.clone()).map_err(anyhow::Error::msg)?;
        let addresses = Arc::new(Addresses {
            journal_id: journal_id.clone(),
            registry: registry.clone(),
            webhooks: OnceLock::new(),
        });
        let messages = Some(sinks::Messages(addresses.clone()));
        let options = sinks::Options { messages, note, doubt, ..sinks::Options::new(journal_id) };
        let sink = HistorySink::start(store, shared.clone(), clock.clone(), options, health)?;
        let sink = Arc::new(sink);
        shared.write_to(sink.clone());
        let began = clock.monotonic();
        let mut replayed = engine::replay(&recovery, &shared, &stored)?;
        if let Some(content) = &content {
            hydrate(&shared, content, clock.wall());
            replayed.router.defined_anew();
        }
        let elapsed = clock.monotonic() - began;
        let (frames, updates) = (replayed.frames, replayed.updates);
        tracing::info!(frames, updates, seconds = elapsed.as_secs_f64(), "recovered");

        let calls = billing::runtime()?;
        let found = billing::Found::read(&registry, &shared, &calls);
        let stamps = Arc::new(Stamps::new(clock.clone(), recovery.last_stamp()));
        let journal = recovery.start(stamps.clone(), replayed.router, signals.clone())?;
        // What the sink lacks is in each snapshot: segments are kept for the snapshots alone.
        journal.forget_before(Epoch::MAX);
        let waker = journal.clone();
        shared.wake_with(move || waker.wake());
        let appender = journal.clone();
        let append = move |bytes, ticket| {
            let append = Append { kind: Kind::Definitions, bytes, companion: Ticket::Definitions(ticket) };
            appender.append(append).map_err(|(_, rejected)| rejected)
        };
        let (control, control_thread) =
            Control::start(registry.clone(), stamps.clone(), admin_key, Box::new(append))?;
        keys.recovered(control.clone());
        let admission = Admission::new(
            admission_options(config),
            journal.clone(),
            Queries::new(shared.clone()),
            stamps,
            keys,
        );
        if content.is_some() {
            // What came from the database is this journal's own from here on.
            engine::take_snapshot(&journal, &control, &shared)?;
        }
        let vault = Arc::new(Vault::new(config.secret_key.as_ref().map(|key| &key.0)));
        warn_of_unreadable_secrets(&control, &vault);
        let messages = Arc::new(MessageHealth::default());
        signals.attach(shared.clone(), journal.clone(), control.clone(), vault.clone(), messages.clone());
        let remarks = Arc::new(Remarks::default());
        let rooms = (&control, &registry, &shared, &vault);
        let out = outbound(config);
        let billing = billing::start(config, rooms, out, clock.clone(), (calls, found), remarks.clone())?;
        let [delivered, undelivered] = outboxes;
        // A way out of their own: no flood of proxied calls keeps messages from it.
        let signed = Signed::new(registry, vault.clone(), outbound(config), clock.clone())?;
        let webhooks = Arc::new(Webhooks::start(delivered, Arc::new(signed), clock.clone(), messages)?);
        let _ = addresses.webhooks.set(webhooks.clone());
        let looks = webhooks.clone();
        let undelivered = Arc::new(Undelivered::new(undelivered, move || looks.look()));
        let snapshots =
            Snapshots::start(config.snapshot_interval, journal.clone(), control.clone(), shared.clone())?;
        Ok(Service {
            control,
            control_thread,
            admission,
            shared,
            journal,
            sink,
            webhooks,
            billing,
            remarks,
            undelivered,
            workers,
            snapshots,
            history,
            vault,
            outbound: outbound(config),
            clock,
        })
    }

    /// What the routes need.
    pub fn rooms(&self, config: &Config) -> Rooms {
        Rooms {
            control: self.control.clone(),
            admission: self.admission.clone(),
            vault: self.vault.clone(),
            outbound: self.outbound.clone(),
            history: self.history.clone(),
            undelivered: self.undelivered.clone(),
            remark: {
                let remarks = self.remarks.clone();
                Box::new(move |business_id, price_id| remarks.of(business_id, price_id))
            },
            bounds: crate::admission::parse::series::Bounds {
                max_event_age_secs_max: config.max_event_age_secs_max(),
            },
            max_event_age_secs_default: config.max_event_age_secs,
            clock: self.clock.clone(),
            scans: tokio::sync::Semaphore::new(http::SCANS_MAX),
            patching: Patching::default(),
        }
    }

    /// Series that are not to be restored begin a new live period: a definition, so that a replay decides the same.
    async fn begin_anew(&self) -> anyhow::Result<()> {
        let cuts: Vec<_> = {
            let registry = self.control.registry();
            // What a plan holds strictly is not forgotten.
            let is_held = |handle: &SeriesHandle| {
                registry.effective_limit(handle).is_some_and(|held| held.limit.action == Action::Block)
            };
            let forgetful =
                registry.series().filter(|handle| !handle.record.spec.restore_on_startup && !is_held(handle));
            forgetful.map(|handle| Definition::SeriesCut { series: handle.series }).collect()
        };
        if !cuts.is_empty() {
            self.control.by(Origin::SERVER).define(cuts).await?;
        }
        Ok(())
    }

    /// Defines the demo business, unless it is there, and says how to try it.
    async fn define_demo(&self, config: &Config, address: SocketAddr) -> anyhow::Result<()> {
        let key = keys::kept(&config.data_dir, "dev-key", config.dev_key.as_ref(), BUSINESS_PREFIX)?;
        let missing = demo_definitions(&self.control.registry(), &key, self.admission.now());
        if !missing.is_empty() {
            self.control.by(Origin::SERVER).define(missing).await?;
        }
        let url = format!("http://{address}/api/v1/metrics");
        let headers = format!("-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'");
        announce(&format!("demo business {DEMO_BUSINESS} with customer {DEMO_CUSTOMER}, key {key}; try:"));
        announce(&format!("curl -X POST '{url}' {headers} -d '{{\"metric_name\": \"calls\"}}'"));
        announce(&format!("curl -X PUT '{url}/calls' {headers} -d '{{\"value\": 5}}'"));
        announce(&format!("curl '{url}/calls' {headers}"));
        Ok(())
    }

    /// Stops in reverse. After a failed journal nothing more is written. Blocking.
    pub fn stop(self, failed: bool) {
        // What has become of slices is a definition.
        self.billing.stop();
        self.control.stop();
        let _ = self.control_thread.join();
        self.snapshots.stop();
        self.webhooks.stop();
        if !failed {
            self.shared.flush();
            let waits = FLUSH_TIMEOUT.as_millis() / 10;
            for _ in 0..waits {
                if self.shared.is_flushed() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            if let Err(error) = engine::take_snapshot(&self.journal, &self.control, &self.shared) {
                tracing::warn!(%error, "no snapshot at the end: the next start replays the journal");
            }
            if let Err(error) = self.journal.close() {
                tracing::error!(%error, "the journal could not be sealed");
            }
        }
        self.sink.stop();
        self.workers.stop();
    }
}

/// The service runs without its tenants' secrets; who operates it must know that.
fn warn_of_unreadable_secrets(control: &Control, vault: &Vault) {
    let secrets = control.unreadable_secrets(vault);
    if secrets == 0 {
        return;
    }
    let why = if vault.has_key() { "another key than this one encrypted" } else { "there is no key for" };
    tracing::warn!(
        secrets,
        "{why} secrets of tenants, which cannot be used: start with the TRACKTAGS_SECRET_KEY (or --secret-key) that they \
         were made with, or set them anew"
    );
}

/// The way out, to public networks and those that are allowed.
fn outbound(config: &Config) -> Outbound {
    let cidr = |network: &Network| Cidr::new(network.address, network.prefix_bits);
    Outbound::new(OutboundOptions::new(config.proxy_allow.iter().map(cidr).collect()))
}

fn admission_options(config: &Config) -> AdmissionOptions {
    AdmissionOptions {
        bounds: Bounds {
            requests_max: config.requests_max,
            bytes_max: config.request_bytes_max,
            business_bytes_max: config.business_bytes_max,
        },
        dedup_ids_max: config.dedup_max_ids,
        max_event_age_secs: config.max_event_age_secs,
        resident_windows_max: config.resident_windows_max,
    }
}

/// Starts from what the database has.
fn hydrate(shared: &Shared, content: &Content, now: Micros) {
    let Content { definitions, next_series, states, rows } = content;
    engine::hydrate(shared, definitions, *next_series, states, rows, now);
    tracing::info!(
        definitions = definitions.len(),
        series_with_values = states.len(),
        windows = rows.len(),
        "started from the database, as of its last batches; what it does not have begins anew: event ids and \
         idempotency keys, bodies of repeated POSTs, values of metrics that are kept out of it"
    );
}

fn demo_definitions(registry: &Registry, key: &str, now: Micros) -> Vec<Definition> {
    let mut missing = Vec::new();
    if registry.business(DEMO_BUSINESS).is_none() {
        missing.push(Definition::BusinessPut(Business {
            business_id: DEMO_BUSINESS.into(),
            business_name: "Demo".into(),
            email: "demo@example.com".into(),
            created_at: now,
        }));
    }
    if registry.customer(DEMO_BUSINESS, DEMO_CUSTOMER).is_none() {
        missing.push(Definition::CustomerPut(Customer {
            business_id: DEMO_BUSINESS.into(),
            customer_id: DEMO_CUSTOMER.into(),
            customer_name: "Demo customer".into(),
            created_at: now,
        }));
    }
    let hash = crate::control::hash_key(key);
    let known = registry.key(DEMO_BUSINESS, &KeyKind::Business, DEMO_KEY_NAME);
    if known.is_none_or(|known| known.hash != hash) {
        missing.extend(known.map(|known| Definition::KeyEnded { hash: known.hash }));
        missing.push(Definition::KeyPut(dataflows::types::ApiKey {
            business_id: DEMO_BUSINESS.into(),
            key_name: DEMO_KEY_NAME.into(),
            kind: KeyKind::Business,
            hash,
            scopes: Scopes::ALL,
            expires_at: None,
            created_at: now,
        }));
    }
    missing
}
