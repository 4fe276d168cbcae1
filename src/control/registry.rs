//! The registry: what the journal's definitions add up to. In: definitions, in journal order. Out: who a key is, which
//! series a name is, and what each definition means to a worker.
//!
//! `apply` is a pure function of the registry and the definition; start-up and live path call the same one. Slots are
//! dense per worker and not used again within a process: a restart packs them. The registry decides nothing (the
//! control thread does, before it journals) and forgets nothing (the snapshot holds `export`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use dataflows::types::{
    ApiKey, Business, Command, Definition, Epoch, KeyKind, Micros, SeriesId, SeriesKey, SeriesRecord,
    SeriesSpec, Shape,
};
use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::events::StripeEvents;
use super::facts::Facts;
use super::key::{Credential, Principal, is_active};
use super::lapses::Lapses;
use super::plans::Plans;
use super::quota::{Quota, SERIES_MAX_DEFAULT};
use super::record::{CustomerRecord, SeriesFilter, SeriesHandle};
use super::secrets::Secrets;
use super::slices::Slices;
use super::subscriptions::Subscriptions;
use super::templates::Templates;

/// Everything that is defined. See the header.
pub struct Registry {
    pub(super) workers: usize,
    /// The server's `max_event_age` in seconds, for series without their own.
    max_event_age_secs: u32,
    businesses: HashMap<String, Business>,
    /// By business; never an empty set.
    proxy_targets: HashMap<String, BTreeSet<String>>,
    pub(super) customers: HashMap<String, BTreeMap<String, CustomerRecord>>,
    pub(super) plans: Plans,
    pub(super) lapses: Lapses,
    pub(super) facts: Facts,
    pub(super) subscriptions: Subscriptions,
    pub(super) stripe_events: StripeEvents,
    /// By the hash of the key, which is as random as it gets.
    keys: HashMap<[u8; 32], Credential, FixedState>,
    secrets: Secrets,
    pub(super) slices: Slices,
    templates: Templates,
    quota: Quota,
    /// Live series by the hash of their key.
    names: HashTable<SeriesHandle>,
    /// Live series in list order.
    ordered: BTreeMap<Arc<SeriesKey>, SeriesHandle>,
    live: HashMap<SeriesId, Arc<SeriesKey>, FixedState>,
    next_series: u32,
    next_slots: Vec<u32>,
    /// Bodies of repeated POSTs whose initial value has been recorded.
    posts: HashMap<SeriesId, Vec<u128>>,
    /// Definitions that the store does not have yet, in order.
    unprojected: VecDeque<(Epoch, Arc<Vec<Definition>>)>,
    /// The store has all definitions up to and including this epoch.
    projected: Epoch,
}

/// Hashes names; fixed, because nothing outside of the process sees it.
const NAME_HASHER: FixedState = FixedState::with_seed(0x7261_636b_7461_6773);

fn name_hash(business_id: &str, customer_id: Option<&str>, metric_name: &str) -> u64 {
    NAME_HASHER.hash_one((business_id, customer_id, metric_name))
}

impl Registry {
    /// An empty registry for so many workers.
    pub fn new(workers: usize, max_event_age_secs: u32) -> Self {
        Registry {
            workers,
            max_event_age_secs,
            businesses: HashMap::new(),
            proxy_targets: HashMap::new(),
            customers: HashMap::new(),
            plans: Plans::default(),
            lapses: Lapses::default(),
            subscriptions: Subscriptions::default(),
            stripe_events: StripeEvents::default(),
            facts: Facts::default(),
            keys: HashMap::default(),
            secrets: Secrets::default(),
            slices: Slices::default(),
            templates: Templates::default(),
            quota: Quota::new(SERIES_MAX_DEFAULT),
            names: HashTable::new(),
            ordered: BTreeMap::new(),
            live: HashMap::default(),
            next_series: 1,
            next_slots: vec![0; workers],
            posts: HashMap::new(),
            unprojected: VecDeque::new(),
            projected: 0,
        }
    }

    /// The same with another number of series that a business may have.
    #[must_use]
    pub fn with_series_max(self, series_max: usize) -> Self {
        Registry { quota: self.quota.with_series_max(series_max), ..self }
    }

    /// Applies one definition; what the owning worker must do about it, if anything. A definition about a series that
    /// is not live changes nothing.
    pub fn apply(&mut self, definition: &Definition) -> Option<(usize, Command)> {
        match definition {
            Definition::BusinessPut(business) => {
                self.businesses.insert(business.business_id.clone(), business.clone());
            }
            Definition::KeyPut(key) => {
                self.keys.insert(key.hash, Credential::new(key.clone()));
            }
            Definition::KeyDeleted { business_id, key_name } => {
                self.keys.retain(|_, Credential { key, .. }| {
                    &key.business_id != business_id || &key.key_name != key_name
                });
            }
            Definition::KeyEnded { hash } => {
                self.keys.remove(hash);
            }
            Definition::CustomerPut(_)
            | Definition::CustomerDescribed { .. }
            | Definition::CustomerPlanned { .. }
            | Definition::PlanPut(_)
            | Definition::PlanDeleted { .. }
            | Definition::PlanLimitPut(_)
            | Definition::PlanLimitDeleted { .. } => self.apply_to_relations(definition),
            Definition::CustomerDeleted { business_id, customer_id } => {
                self.apply_to_relations(definition);
                self.keys.retain(|_, Credential { key, .. }| {
                    let bound =
                        matches!(&key.kind, KeyKind::Customer { customer_id: id } if id == customer_id);
                    !bound || &key.business_id != business_id
                });
            }
            Definition::BusinessDeleted { business_id } => {
                self.apply_to_relations(definition);
                self.apply_to_billing(definition);
                self.businesses.remove(business_id);
                self.proxy_targets.remove(business_id);
                self.templates.forget(business_id);
                self.secrets.forget(business_id);
                self.slices.end_business(business_id);
                self.keys.retain(|_, Credential { key, .. }| &key.business_id != business_id);
            }
            Definition::SubscriptionPut(_)
            | Definition::StripeEventRead(_)
            | Definition::BillingPeriodEnded(_)
            | Definition::BillingPeriodFinal(_)
            | Definition::ReportAwaited { .. } => self.apply_to_billing(definition),
            Definition::StripeKeyPut(key) => self.secrets.put_stripe_key(key),
            Definition::StripeKeyEnded { business_id, key_name } => {
                self.secrets.end_stripe_key(business_id, key_name);
            }
            Definition::WebhookPut(webhook) => self.secrets.put_webhook(webhook),
            Definition::ProxyTargetsPut { business_id, origins } if origins.is_empty() => {
                self.proxy_targets.remove(business_id);
            }
            Definition::ProxyTargetsPut { business_id, origins } => {
                self.proxy_targets.insert(business_id.clone(), origins.clone());
            }
            Definition::TemplatePut(template) => self.templates.put(template),
            Definition::TemplateDeleted { business_id, metric_name } => {
                self.templates.end(business_id, metric_name);
            }
            // For the store alone: a log without a bound is nothing to keep in memory.
            Definition::Audited(_) => {}
            Definition::SeriesCreated(record) => return Some(self.create(record)),
            Definition::SeriesChanged { series, spec } => return self.change(*series, spec),
            Definition::SeriesDeleted { series } => {
                let handle = self.remove(*series)?;
                self.facts.series(&handle, -1);
                self.slices.end_series(*series);
                return Some((series.worker(self.workers), Command::Close { slot: handle.slot }));
            }
            Definition::SeriesCut { series } => {
                let slot = self.by_id(*series)?.slot;
                self.slices.note_ended(*series);
                return Some((series.worker(self.workers), Command::Cut { slot, at: None }));
            }
            Definition::PeriodsBilled { series, .. } if !self.live.contains_key(series) => {}
            Definition::PeriodsBilled { .. } | Definition::SlicesCut(_) | Definition::SlicesMoved(_) => {
                self.slices.apply(definition);
            }
            Definition::PostRecorded { series, body_hash } => {
                if self.live.contains_key(series) {
                    self.posts.entry(*series).or_default().push(*body_hash);
                }
            }
        }
        None
    }

    fn create(&mut self, record: &SeriesRecord) -> (usize, Command) {
        let series = record.series;
        let worker = series.worker(self.workers);
        let slot = self.next_slots[worker];
        self.next_slots[worker] += 1;
        self.next_series = self.next_series.max(series.0 + 1);
        let handle = SeriesHandle { series, slot, record: Arc::new(record.clone()) };
        self.facts.series(&handle, 1);
        self.quota.begin(&record.key.business_id);
        self.insert(handle);
        (worker, Command::Open { slot, series, shape: record.spec.shape(self.max_event_age_secs) })
    }

    fn change(&mut self, series: SeriesId, spec: &SeriesSpec) -> Option<(usize, Command)> {
        let old = self.remove_name(series)?;
        let record = SeriesRecord { spec: spec.clone(), ..(*old.record).clone() };
        let new = SeriesHandle { record: Arc::new(record), ..old };
        self.facts.series(&new, 1);
        self.facts.series(&old, -1);
        self.insert(new);
        let shape = spec.shape(self.max_event_age_secs);
        Some((series.worker(self.workers), Command::Reshape { slot: old.slot, shape }))
    }

    fn insert(&mut self, handle: SeriesHandle) {
        let key = Arc::new(handle.record.key.clone());
        self.slices.describe(&handle.record);
        self.live.insert(handle.series, key.clone());
        self.ordered.insert(key, handle.clone());
        self.names.insert_unique(hash_of(&handle), handle, hash_of);
    }

    fn remove_name(&mut self, series: SeriesId) -> Option<SeriesHandle> {
        let key = self.live.remove(&series)?;
        let handle = self.ordered.remove(&key)?;
        if let Ok(entry) = self.names.find_entry(hash_of(&handle), |found| found.series == series) {
            entry.remove();
        }
        Some(handle)
    }

    fn remove(&mut self, series: SeriesId) -> Option<SeriesHandle> {
        self.posts.remove(&series);
        self.subscriptions.forget_series(series);
        let handle = self.remove_name(series)?;
        self.quota.end(&handle.record.key.business_id);
        Some(handle)
    }

    /// The live series of that name.
    pub fn find(
        &self,
        business_id: &str,
        customer_id: Option<&str>,
        metric_name: &str,
    ) -> Option<&SeriesHandle> {
        self.names.find(name_hash(business_id, customer_id, metric_name), |handle| {
            let key = &handle.record.key;
            key.metric_name == metric_name
                && key.customer_id.as_deref() == customer_id
                && key.business_id == business_id
        })
    }

    /// The live series of that number.
    pub fn by_id(&self, series: SeriesId) -> Option<&SeriesHandle> {
        self.ordered.get(self.live.get(&series)?)
    }

    /// The business of that id.
    pub fn business(&self, business_id: &str) -> Option<&Business> {
        self.businesses.get(business_id)
    }

    /// The origins that the business's customer keys are bound to; none if they are not.
    pub fn proxy_targets(&self, business_id: &str) -> Option<&BTreeSet<String>> {
        self.proxy_targets.get(business_id)
    }

    /// The customer of that business.
    pub fn customer(&self, business_id: &str, customer_id: &str) -> Option<&CustomerRecord> {
        self.customers.get(business_id)?.get(customer_id)
    }

    /// Customers of that business in the order of their ids, strictly behind `after`.
    pub fn customers(&self, business_id: &str, after: Option<&str>) -> impl Iterator<Item = &CustomerRecord> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let of_business = self.customers.get(business_id).into_iter();
        of_business
            .flat_map(move |customers| customers.range::<str, _>((start, Bound::Unbounded)))
            .map(|entry| entry.1)
    }

    /// Whom a key's hash acts for; none once it has expired. It was used at `used_at`; `now` decides about expiry.
    pub fn principal(
        &self,
        hash: &[u8; 32],
        used_at: Micros,
        now: impl Fn() -> Micros,
    ) -> Option<&Principal> {
        self.keys.get(hash)?.principal(hash, used_at, now)
    }

    /// The key of that name that acts for the same, expired or not.
    pub fn key(&self, business_id: &str, kind: &KeyKind, key_name: &str) -> Option<&ApiKey> {
        let mut keys = self.keys.values().map(|credential| &credential.key);
        keys.find(|key| key.business_id == business_id && key.kind == *kind && key.key_name == key_name)
    }

    /// When keys were last used, by hash; those that never were are left out.
    pub fn used(&self) -> Vec<([u8; 32], Micros)> {
        let used = |(hash, key): (&[u8; 32], &Credential)| Some((*hash, key.last_used_at()?));
        self.keys.iter().filter_map(used).collect()
    }

    /// What `used` gave before a restart.
    pub fn set_used(&self, used: &[([u8; 32], Micros)]) {
        for (hash, at) in used {
            self.keys.get(hash).into_iter().for_each(|key| key.used(*at));
        }
    }

    /// When a key was last used since the start.
    pub fn last_used_at(&self, key: &ApiKey) -> Option<Micros> {
        self.keys.get(&key.hash)?.last_used_at()
    }

    /// The keys of a business that have not expired, in no order.
    pub fn keys(&self, business_id: &str, now: Micros) -> impl Iterator<Item = &ApiKey> {
        let of_business = self
            .keys
            .values()
            .map(|credential| &credential.key)
            .filter(move |key| key.business_id == business_id);
        of_business.filter(move |key| is_active(key, || now))
    }

    /// Credentials and webhooks of tenants, sealed.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What is billed of usage, and what is on its way.
    pub fn slices(&self) -> &Slices {
        &self.slices
    }

    /// What customers' series are made of.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// How many series businesses have, and may have.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Series whose live period may have ended since the last call.
    pub fn take_ended(&mut self) -> std::collections::BTreeSet<SeriesId> {
        self.slices.take_ended()
    }

    /// Series in the order (scope, customer, name), strictly behind `after`, at most `limit`.
    pub fn list(&self, filter: &SeriesFilter, after: Option<&SeriesKey>, limit: usize) -> Vec<SeriesHandle> {
        let first = SeriesKey {
            business_id: filter.business_id.clone(),
            customer_id: filter.customer_id.clone(),
            metric_name: String::new(),
        };
        let start = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(&first),
        };
        let range = self.ordered.range::<SeriesKey, _>((start, Bound::Unbounded));
        let asked_for = range.take_while(|(key, _)| {
            // The series of one customer stand together.
            let is_own = filter.customer_id.is_none() || key.customer_id == filter.customer_id;
            key.business_id == filter.business_id && is_own
        });
        asked_for
            .map(|(_, handle)| handle)
            .filter(|handle| filter.shows(&handle.record))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Every live series.
    pub fn series(&self) -> impl Iterator<Item = &SeriesHandle> {
        self.ordered.values()
    }

    /// How a series counts, the server's defaults filled in.
    pub fn shape(&self, handle: &SeriesHandle) -> Shape {
        handle.record.spec.shape(self.max_event_age_secs)
    }

    /// The number that the next new series gets.
    pub fn next_series(&self) -> SeriesId {
        SeriesId(self.next_series)
    }

    /// Whether the initial value of a POST with this body has been recorded.
    pub fn post_recorded(&self, series: SeriesId, body_hash: u128) -> bool {
        self.posts.get(&series).is_some_and(|bodies| bodies.contains(&body_hash))
    }

    /// Remembers that the store lacks these definitions.
    pub fn queue_projection(&mut self, epoch: Epoch, definitions: Arc<Vec<Definition>>) {
        self.unprojected.push_back((epoch, definitions));
    }

    /// The store has all definitions up to and including `epoch`.
    pub fn set_projected(&mut self, epoch: Epoch) {
        self.projected = self.projected.max(epoch);
        while self.unprojected.front().is_some_and(|(queued, _)| *queued <= epoch) {
            self.unprojected.pop_front();
        }
    }

    /// The store has all definitions up to and including this epoch.
    pub fn projected(&self) -> Epoch {
        self.projected
    }

    /// Definitions that the store lacks, in order.
    pub fn unprojected(&self) -> impl Iterator<Item = &(Epoch, Arc<Vec<Definition>>)> {
        self.unprojected.iter()
    }

    /// How many definition epochs the store lacks.
    pub fn unprojected_len(&self) -> usize {
        self.unprojected.len()
    }

    /// Definitions that build this registry anew, series in the order of their numbers.
    pub fn export(&self) -> Vec<Definition> {
        let businesses = self.businesses.values().cloned().map(Definition::BusinessPut);
        let proxy_targets = self.proxy_targets.iter().map(|(business_id, origins)| {
            Definition::ProxyTargetsPut { business_id: business_id.clone(), origins: origins.clone() }
        });
        let customers = self.customers.values().flat_map(BTreeMap::values).flat_map(CustomerRecord::export);
        let keys = self.keys.values().map(|credential| Definition::KeyPut(credential.key.clone()));
        let mut records: Vec<_> = self.ordered.values().map(|handle| &handle.record).collect();
        records.sort_unstable_by_key(|record| record.series);
        let series = records.into_iter().map(|record| Definition::SeriesCreated((**record).clone()));
        let posts = self.posts.iter().flat_map(|(&series, bodies)| {
            bodies.iter().map(move |&body_hash| Definition::PostRecorded { series, body_hash })
        });
        let secrets = self.secrets.export();
        businesses
            .chain(proxy_targets)
            .chain(self.plans.export())
            .chain(self.templates.export())
            .chain(customers)
            .chain(keys)
            .chain(secrets)
            .chain(series)
            .chain(posts)
            .chain(self.subscriptions.export())
            .chain(self.stripe_events.export())
            .chain(self.slices.export())
            .collect()
    }

    /// Continues numbering where the exported registry stood: deleted series may have had greater numbers.
    pub fn continue_from(&mut self, next_series: SeriesId) {
        self.next_series = self.next_series.max(next_series.0);
    }
}

fn hash_of(handle: &SeriesHandle) -> u64 {
    let key = &handle.record.key;
    name_hash(&key.business_id, key.customer_id.as_deref(), &key.metric_name)
}
