//! Templates: what customers' series are made of at their first event, and how many are made at once.
//!
//! ```text
//! names ─▶ judge: there │ refused │ to be made ─▶ one change of at most `BATCH_SERIES_MAX` ─▶ one definition epoch ─▶ handles
//! ```
//! A template makes series of customers only: an event that forgot its customer must not count for the business. What is
//! wanted by several at once is made once: the control thread judges anew, by the same rule. A template that is changed or
//! deleted leaves the series that it made as they are. Nothing here is asked while a series is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use dataflows::types::{
    Customer, Definition, EffectiveLimit, MetricType, Micros, PlanLimit, SeriesId, SeriesKey, SeriesRecord,
    SeriesSpec, Standing, Tally, Template,
};

use super::change::{Change, Subject, signable};
use super::edit::Edits;
use super::slices::{billed_alone, is_billed};
use super::{Control, ControlError, Registry, SeriesHandle};

/// Series in one journal entry. The registry takes them under one lock, for which every request waits: some 20 ms, of
/// customers that are new twice that.
pub const BATCH_SERIES_MAX: usize = 8_192;
/// Series in a change that may share its epoch with others; a larger one has its own.
const SHARED_SERIES_MAX: usize = 16;
/// Names that are looked up under one lock of the registry.
const LOOK_UP_MAX: usize = 1_024;
/// Templates of a business.
const TEMPLATES_MAX: usize = 1_000;

/// The registry's templates.
#[derive(Default)]
pub struct Templates {
    businesses: HashMap<String, BTreeMap<String, Template>>,
}

impl Templates {
    /// The template of that name.
    pub fn get(&self, business_id: &str, metric_name: &str) -> Option<&Template> {
        self.businesses.get(business_id)?.get(metric_name)
    }

    pub(super) fn put(&mut self, template: &Template) {
        let of_business = self.businesses.entry(template.business_id.clone()).or_default();
        of_business.insert(template.metric_name.clone(), template.clone());
    }

    pub(super) fn end(&mut self, business_id: &str, metric_name: &str) {
        let Some(of_business) = self.businesses.get_mut(business_id) else { return };
        of_business.remove(metric_name);
        if of_business.is_empty() {
            self.businesses.remove(business_id);
        }
    }

    pub(super) fn forget(&mut self, business_id: &str) {
        self.businesses.remove(business_id);
    }

    fn count(&self, business_id: &str) -> usize {
        self.businesses.get(business_id).map_or(0, BTreeMap::len)
    }

    /// Definitions that bring all of it back.
    pub(super) fn export(&self) -> impl Iterator<Item = Definition> {
        self.businesses.values().flat_map(|of| of.values().cloned().map(Definition::TemplatePut))
    }
}

/// A template, or another one in its place.
pub(super) fn put(registry: &Registry, mut template: Template) -> Result<Vec<Definition>, ControlError> {
    registry.business(&template.business_id).ok_or(ControlError::NoSuchBusiness)?;
    signable(registry, &template.business_id, template.spec.webhook_url.as_deref())?;
    match registry.templates().get(&template.business_id, &template.metric_name) {
        Some(known) => template.created_at = known.created_at,
        None if registry.templates().count(&template.business_id) >= TEMPLATES_MAX => {
            return Err(ControlError::TooMany { what: "templates", max: TEMPLATES_MAX });
        }
        None => {}
    }
    let known = registry.templates().get(&template.business_id, &template.metric_name);
    let is_so = known == Some(&template);
    Ok(if is_so { Vec::new() } else { vec![Definition::TemplatePut(template)] })
}

pub(super) fn delete(
    registry: &Registry,
    business_id: String,
    metric_name: String,
) -> Result<Vec<Definition>, ControlError> {
    registry.templates().get(&business_id, &metric_name).ok_or(ControlError::NoSuchTemplate)?;
    Ok(vec![Definition::TemplateDeleted { business_id, metric_name }])
}

/// Series that are to be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose.
    pub business_id: String,
    /// Metric and customer of each, at most `BATCH_SERIES_MAX`.
    pub series: Vec<(String, String)>,
    /// Series of the business that the changes before this one begin in the same epoch: the control thread says it.
    pub taken: usize,
}

impl Wanted {
    /// Whether it needs an epoch of its own.
    pub fn stands_alone(&self) -> bool {
        self.series.len() > SHARED_SERIES_MAX
    }

    /// Claims the customers that it is about, unless one of them is claimed already.
    pub fn claim(&self, subjects: &mut HashSet<Subject>) -> bool {
        if self.stands_alone() {
            return subjects.insert(Subject::Business(self.business_id.clone()));
        }
        let own: HashSet<Subject> = self
            .series
            .iter()
            .map(|(_, customer_id)| Subject::Customer(self.business_id.clone(), customer_id.clone()))
            .collect();
        let is_free = own.is_disjoint(subjects);
        if is_free {
            subjects.extend(own);
        }
        is_free
    }

    /// Whether nothing is left to be made.
    pub fn is_done(&self, registry: &Registry) -> bool {
        let is_new = |(metric_name, customer_id): &(String, String)| {
            let judged = judge(registry, &self.business_id, metric_name, customer_id);
            matches!(judged, Ok(Judged::New { .. }))
        };
        !self.series.iter().any(is_new)
    }

    /// Customers and series, as far as there is room. Whoever asked finds out by the same rule why one is not there.
    pub(super) fn decide(
        self,
        registry: &Registry,
        next_series: &mut SeriesId,
        now: Micros,
    ) -> Result<Vec<Definition>, ControlError> {
        let Wanted { business_id, series: wanted, taken } = &self;
        let room = registry.quota().left(business_id).saturating_sub(*taken);
        let (mut begun, mut billed, mut made) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut customers, mut series) = (Vec::new(), Vec::new());
        for (metric_name, customer_id) in wanted {
            if series.len() == room {
                break;
            }
            let judged = judge(registry, business_id, metric_name, customer_id);
            let Ok(Judged::New { template, is_known }) = judged else { continue };
            if !begun.insert((metric_name, customer_id)) {
                continue;
            }
            let key = key(business_id, metric_name, customer_id);
            // Two templates of one price: the second finds the first one's series there.
            if is_billed(&key, &template.spec) && !billed.insert((customer_id, price(&template.spec))) {
                continue;
            }
            if !is_known && made.insert(customer_id) {
                let (customer_id, customer_name) = (customer_id.clone(), customer_id.clone());
                let business_id = business_id.clone();
                let customer = Customer { business_id, customer_id, customer_name, created_at: now };
                customers.push(Definition::CustomerPut(customer));
            }
            let number = *next_series;
            next_series.0 = number.0.checked_add(1).ok_or(ControlError::Overloaded)?;
            let spec = template.spec.clone();
            series.push(Definition::SeriesCreated(SeriesRecord {
                series: number,
                key,
                spec,
                created_at: now,
            }));
        }
        customers.append(&mut series);
        Ok(customers)
    }
}

fn price(spec: &SeriesSpec) -> Option<&str> {
    spec.stripe.as_ref()?.price_id.as_deref()
}

fn key(business_id: &str, metric_name: &str, customer_id: &str) -> SeriesKey {
    SeriesKey {
        business_id: business_id.to_owned(),
        customer_id: Some(customer_id.to_owned()),
        metric_name: metric_name.to_owned(),
    }
}

/// What comes of a name.
enum Judged<'a> {
    /// The series is there.
    Found(&'a SeriesHandle),
    /// It may be made.
    New { template: &'a Template, is_known: bool },
}

fn judge<'a>(
    registry: &'a Registry,
    business_id: &str,
    metric_name: &str,
    customer_id: &str,
) -> Result<Judged<'a>, ControlError> {
    if let Some(handle) = registry.find(business_id, Some(customer_id), metric_name) {
        return Ok(Judged::Found(handle));
    }
    let is_known = registry.customer(business_id, customer_id).is_some();
    match registry.templates().get(business_id, metric_name) {
        Some(template) if is_known || template.create_customers => {
            if template.spec.stripe.is_some() {
                billed_alone(registry, &key(business_id, metric_name, customer_id), &template.spec)?;
            }
            Ok(Judged::New { template, is_known })
        }
        _ if is_known => Err(ControlError::NoSuchSeries),
        _ => Err(ControlError::NoSuchCustomer),
    }
}

/// A series that is not there yet: its number is 0, which none has.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// What its first event would make it.
    pub record: Arc<SeriesRecord>,
    /// How it would stand before that.
    pub standing: Standing,
}

impl Control {
    /// What the first event of a name would find, if there is a template for it. Nothing is made.
    pub fn prospect(&self, wanted: &SeriesKey) -> Option<Prospect> {
        let customer_id = wanted.customer_id.as_deref()?;
        let (now, registry) = (self.now(), self.registry());
        let judged = judge(&registry, &wanted.business_id, &wanted.metric_name, customer_id).ok()?;
        let Judged::New { template, .. } = judged else { return None };
        let limit = registry.prospective_limit(wanted, &template.spec);
        let shape = template.spec.shape(0).limited(limit);
        let window = (shape.metric_type == MetricType::Reset).then(|| shape.reset.window(now));
        let standing = Standing {
            value: shape.value(&Tally::EMPTY),
            tally: Tally::EMPTY,
            period_start: window.map(|window| window.start),
            period_end: window.map(|window| window.end),
            breached: shape.is_breached(&Tally::EMPTY),
            limit: shape.limit,
            limit_source: shape.limit_source,
            touched: false,
            refused: 0,
        };
        let (series, spec) = (SeriesId(0), template.spec.clone());
        let record = Arc::new(SeriesRecord { series, key: wanted.clone(), spec, created_at: now });
        Some(Prospect { record, standing })
    }

    /// The template of that name.
    pub fn template(&self, business_id: &str, metric_name: &str) -> Option<Template> {
        self.registry().templates().get(business_id, metric_name).cloned()
    }
}

impl Registry {
    /// The limit that a customer's series would have, its customer known or not.
    fn prospective_limit(&self, key: &SeriesKey, spec: &SeriesSpec) -> Option<EffectiveLimit> {
        let inherited = || {
            let record = self.customer(&key.business_id, key.customer_id.as_deref()?);
            let plan = record.and_then(|record| self.plans().effective(record, self.has_lapsed(record)));
            self.plans().inherited(&key.business_id, plan, &key.metric_name).map(PlanLimit::effective)
        };
        spec.own_limit().or_else(inherited)
    }
}

impl Edits<'_> {
    /// Defines a template, or another one in its place.
    pub async fn put_template(&self, template: Template) -> Result<(), ControlError> {
        self.request(Change::PutTemplate(template)).await.map(drop)
    }

    /// Deletes a template. The series that it made stay.
    pub async fn delete_template(&self, business_id: &str, metric_name: &str) -> Result<(), ControlError> {
        let (business_id, metric_name) = (business_id.to_owned(), metric_name.to_owned());
        self.request(Change::DeleteTemplate { business_id, metric_name }).await.map(drop)
    }

    /// The series of these names, each a metric and a customer; those that are not there are made from the business's
    /// templates, every `BATCH_SERIES_MAX` of them in one epoch. One answer for each name, in their order:
    /// `NoSuchSeries` without a template, `NoSuchCustomer` for a customer that is not known and not to be made,
    /// `PriceTaken`, `SeriesLimit`; or why none could be made. Whoever wants the same at once gets the same.
    pub async fn create_from_template(
        &self,
        business_id: &str,
        names: &[(&str, &str)],
    ) -> Vec<Result<SeriesHandle, ControlError>> {
        let mut answers = Vec::with_capacity(names.len());
        for names in names.chunks(BATCH_SERIES_MAX) {
            answers.extend(self.create_batch(business_id, names).await);
        }
        answers
    }

    async fn create_batch(
        &self,
        business_id: &str,
        names: &[(&str, &str)],
    ) -> Vec<Result<SeriesHandle, ControlError>> {
        let mut answers = vec![None; names.len()];
        self.look_up(business_id, names, &mut answers).await;
        let missing = names.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let series: Vec<(String, String)> =
            missing.map(|((metric, customer), _)| ((*metric).to_owned(), (*customer).to_owned())).collect();
        let mut outcome = Ok(());
        if !series.is_empty() {
            let wanted = Wanted { business_id: business_id.to_owned(), series, taken: 0 };
            outcome = self.request(Change::CreateFromTemplates(wanted)).await.map(drop);
            self.look_up(business_id, names, &mut answers).await;
        }
        let why = outcome.err().unwrap_or_else(|| {
            let registry = self.control.registry();
            let max = registry.quota().series_max();
            // With room it was made, and deleted since.
            let is_full = registry.quota().left(business_id) == 0;
            if is_full { ControlError::SeriesLimit { max } } else { ControlError::NoSuchSeries }
        });
        answers.into_iter().map(|answer| answer.unwrap_or(Err(why))).collect()
    }

    /// Fills in the answers that are not there yet, but for those that need the series made.
    async fn look_up(
        &self,
        business_id: &str,
        names: &[(&str, &str)],
        answers: &mut [Option<Result<SeriesHandle, ControlError>>],
    ) {
        for (names, answers) in names.chunks(LOOK_UP_MAX).zip(answers.chunks_mut(LOOK_UP_MAX)) {
            let registry = self.control.registry();
            for ((metric_name, customer_id), answer) in names.iter().zip(answers) {
                if answer.is_none() {
                    *answer = match judge(&registry, business_id, metric_name, customer_id) {
                        Ok(Judged::Found(handle)) => Some(Ok(handle.clone())),
                        Ok(Judged::New { .. }) => None,
                        Err(error) => Some(Err(error)),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
