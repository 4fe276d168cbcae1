//! The export of usage, put together: what the exporter's thread asks of registry, workers and vault; and Stripe behind the
//! guarded way out.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dataflows::types::{Micros, SeriesId, Slice, SliceMove};
use tokio::runtime::Runtime;

use crate::clock::Clock;
use crate::config::{Config, Late as Configured};
use crate::control::slices::{CutRequest, Late, SeriesUsage};
use crate::control::{
    Control, ControlError, Origin, Owner, Purpose, Registry, ReportChange, SeriesHandle, Vault,
};
use crate::engine::{Queries, Shared};
use crate::outbound::Outbound;
use crate::sinks::Billing;
use crate::sinks::billing::{Books, NoAccount, NotNow, Remarks, Report, Waiting};
use crate::stripe::{Account, Spawned, Stripe, identifier};

/// Series whose usage one epoch of definitions cuts.
const PAGE: usize = 512;
/// When a series whose period may have ended is looked at once more.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Usage as the journal has it, read before anything new happens: the first time entry of a start may be that behind which a
/// period that ended long ago, or a series that was quiet for long, is forgotten.
pub(super) struct Found(Vec<SeriesUsage>);

impl Found {
    /// Reads the series whose usage is billed and not all in slices. Blocking.
    pub(super) fn read(registry: &RwLock<Registry>, shared: &Arc<Shared>, runtime: &Runtime) -> Found {
        aside(|| Found::look(registry, shared, runtime))
    }

    fn look(registry: &RwLock<Registry>, shared: &Arc<Shared>, runtime: &Runtime) -> Found {
        let (queries, mut found, mut after) = (Queries::new(shared.clone()), Vec::new(), None);
        loop {
            let (ids, handles) = {
                let registry = registry.read().unwrap_or_else(PoisonError::into_inner);
                let ids = registry.slices().exported(after, PAGE);
                (ids.clone(), handles(&registry, ids))
            };
            after = ids.last().copied();
            let Ok(usage) = runtime.block_on(usage_of(&queries, &handles)) else { break };
            let registry = registry.read().unwrap_or_else(PoisonError::into_inner);
            found.extend(usage.into_iter().filter(|usage| {
                let updates =
                    |start| registry.slices().period(usage.series, start).map_or(0, |it| it.updates);
                usage.periods.iter().any(|period| period.tally.count != updates(period.start))
            }));
            if ids.len() < PAGE {
                break;
            }
        }
        Found(found)
    }
}

/// What is billed, for the exporter's thread.
struct Ledger {
    control: Control,
    queries: Queries,
    registry: Arc<RwLock<Registry>>,
    vault: Arc<Vault>,
    late: Late,
    clock: Arc<dyn Clock>,
    /// Series whose period may have ended, and when they are looked at once more: the registry hears of an end before the
    /// worker does.
    again: Mutex<Vec<(Duration, SeriesId)>>,
    /// Of the calls as well; taken at the end only.
    runtime: Option<Runtime>,
}

/// Starts the exporter behind slices of what was found.
pub(super) fn start(
    config: &Config,
    (control, registry, shared, vault): (&Control, &Arc<RwLock<Registry>>, &Arc<Shared>, &Arc<Vault>),
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    (runtime, found): (Runtime, Found),
    remarks: Arc<Remarks>,
) -> anyhow::Result<Billing> {
    let late = match config.stripe_late {
        Configured::NextPeriod => Late::NextPeriod,
        Configured::Hold => Late::Hold,
    };
    let stripe = Stripe::new(outbound, &config.stripe_api_base)
        .map_err(|error| anyhow::anyhow!("--stripe-api-base is {}: {error}", config.stripe_api_base))?;
    let biller = Arc::new(Spawned::new(stripe, runtime.handle().clone()));
    let ledger = Ledger {
        control: control.clone(),
        queries: Queries::new(shared.clone()),
        registry: registry.clone(),
        vault: vault.clone(),
        late,
        clock: clock.clone(),
        again: Mutex::default(),
        runtime: Some(runtime),
    };
    let cut = || found.0.chunks(PAGE).try_for_each(|page| ledger.cut_usage(page.to_vec()));
    if let Err(error) = aside(cut) {
        tracing::warn!(%error, "usage from before the start is cut into slices later");
    }
    Ok(Billing::start(Box::new(ledger), biller, clock, config.stripe_export_interval, remarks)?)
}

/// Does something that blocks on a runtime, on a thread of its own: the caller's may belong to another one.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A runtime for calls. An error is the operating system's refusal of a thread.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("stripe").enable_all().build()
}

fn handles(registry: &Registry, ids: impl IntoIterator<Item = SeriesId>) -> Vec<SeriesHandle> {
    ids.into_iter().filter_map(|id| registry.by_id(id).cloned()).collect()
}

async fn usage_of(queries: &Queries, handles: &[SeriesHandle]) -> Result<Vec<SeriesUsage>, NotNow> {
    let periods = queries.periods(handles).await.map_err(|_| NotNow)?;
    let read = handles.iter().zip(periods);
    let read =
        read.filter_map(|(handle, periods)| Some(SeriesUsage { series: handle.series, periods: periods? }));
    Ok(read.collect())
}

impl Ledger {
    fn registry(&self) -> std::sync::RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, NotNow> {
        Ok(self.runtime.as_ref().ok_or(NotNow)?.block_on(future))
    }

    fn cut_usage(&self, usage: Vec<SeriesUsage>) -> Result<(), ControlError> {
        if usage.is_empty() {
            return Ok(());
        }
        let request = CutRequest { usage, late: self.late, identify: identifier };
        let cut = async { self.control.by(Origin::SERVER).cut_slices(request).await.map(drop) };
        self.block_on(cut).map_err(|_| ControlError::Draining)?
    }

    fn cut_series(&self, handles: &[SeriesHandle]) -> Result<(), NotNow> {
        let usage = self.block_on(usage_of(&self.queries, handles))??;
        self.cut_usage(usage).map_err(not_now)
    }
}

fn not_now(error: ControlError) -> NotNow {
    if error != ControlError::Draining {
        tracing::debug!(%error, "slices wait");
    }
    NotNow
}

impl Books for Ledger {
    fn cut(&self, after: Option<SeriesId>) -> Result<Option<SeriesId>, NotNow> {
        let (ids, handles) = {
            let registry = self.registry();
            let ids = registry.slices().exported(after, PAGE);
            (ids.clone(), handles(&registry, ids))
        };
        if !handles.is_empty() {
            self.cut_series(&handles)?;
        }
        Ok(ids.last().copied().filter(|_| ids.len() == PAGE))
    }

    fn cut_ended(&self) -> Result<(), NotNow> {
        let now = self.clock.monotonic();
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due: BTreeSet<SeriesId> =
            again.extract_if(.., |(at, _)| *at <= now).map(|(_, id)| id).collect();
        if self.registry().slices().has_ended() {
            let ended = self.registry.write().unwrap_or_else(PoisonError::into_inner).take_ended();
            again.extend(ended.iter().map(|id| (now + LOOK_AGAIN, *id)));
            due.extend(ended);
        }
        if due.is_empty() {
            return Ok(());
        }
        let handles = handles(&self.registry(), due);
        for (index, page) in handles.chunks(PAGE).enumerate() {
            if let Err(error) = self.cut_series(page) {
                again.extend(handles[index * PAGE..].iter().map(|handle| (now + LOOK_AGAIN, handle.series)));
                return Err(error);
            }
        }
        Ok(())
    }

    fn waiting(&self, from: u64, limit: usize) -> (Vec<Waiting>, u64) {
        let (kept, next) = self.registry().slices().waiting(from, limit);
        let waiting = kept.into_iter().map(|kept| Waiting {
            slice: kept.slice,
            state: kept.state,
            sent_at: kept.sent_at,
        });
        (waiting.collect(), next)
    }

    fn moved(&self, moves: Vec<SliceMove>) -> Result<(), NotNow> {
        self.block_on(async { self.control.by(Origin::SERVER).move_slices(moves).await })?.map_err(not_now)
    }

    fn awaited(&self) -> Vec<(String, String)> {
        let registry = self.registry();
        let awaited = registry.stripe_events().awaited();
        awaited.map(|(business_id, event_id)| (business_id.to_owned(), event_id.to_owned())).collect()
    }

    fn reported(&self, Report { business_id, event_id, slices }: Report) -> Result<(), NotNow> {
        let change = ReportChange { business_id, event_id, found: slices };
        self.block_on(async { self.control.by(Origin::SERVER).settle_report(change).await })?.map_err(not_now)
    }

    fn account(&self, business_id: &str) -> Result<Account, NoAccount> {
        let key = {
            let registry = self.registry();
            registry.business(business_id).ok_or(NoAccount::Gone)?;
            registry.secrets().stripe_keys(business_id).max_by_key(|key| key.created_at).cloned()
        };
        let unusable = |why: String| NoAccount::Unusable(why);
        let key = key.ok_or_else(|| unusable("the business has no credentials for Stripe".to_owned()))?;
        let owner = Owner { business_id, purpose: Purpose::StripeSecretKey, name: &key.key_name };
        let secret_key =
            self.vault.open(&owner, &key.secret_key).map_err(|error| unusable(error.to_string()))?;
        Ok(Account { business_id: business_id.to_owned(), secret_key })
    }

    fn acked_between(&self, slice: &Slice, from: Micros, until: Micros) -> i128 {
        self.registry().slices().acked_between(slice, from, until)
    }
}

impl Drop for Ledger {
    /// Waits for no call: what is under way is sent again by the next start.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
