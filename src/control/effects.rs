//! What a changed plan limit does to which series, worked out one by one from the registry: for `dry_run`, and for what
//! answers say. The limits graph maintains the same incrementally, and tests hold the two against each other.

use dataflows::types::{Definition, EffectiveLimit, PlanLimit, SeriesSpec, Span};

use super::change::Change;
use super::quota::Taken;
use super::{Control, ControlError, CustomerRecord, Registry, SeriesHandle};

/// A change of one plan limit.
#[derive(Clone, Debug)]
pub enum LimitEdit {
    /// It is made.
    Create(PlanLimit),
    /// It is made anew.
    Change(PlanLimit),
    /// It goes: (business, id).
    Delete(String, String),
}

/// What a change would do.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Series whose limit would become another, and the other.
    pub touched: Vec<(SeriesHandle, Option<EffectiveLimit>)>,
    /// Series that would begin.
    pub begun: usize,
    /// Those of them that the limit applies to: not yet, where a customer may only fall to its plan.
    pub begun_limited: usize,
}

impl Control {
    /// What a change would do, and whether it would be taken at all.
    pub fn effects(&self, edit: &LimitEdit) -> Result<Effects, ControlError> {
        let (now, registry) = (self.now(), self.registry());
        let change = match edit.clone() {
            LimitEdit::Create(limit) => Change::PutPlanLimit { limit, must_exist: false },
            LimitEdit::Change(limit) => Change::PutPlanLimit { limit, must_exist: true },
            LimitEdit::Delete(business_id, limit_id) => Change::DeletePlanLimit { business_id, limit_id },
        };
        let decided = change.decide(&registry, &mut registry.next_series(), now)?;
        Taken::default().take(registry.quota(), &decided, false)?;
        let begun: Vec<_> = decided
            .iter()
            .filter_map(|definition| match definition {
                Definition::SeriesCreated(record) => record.key.customer_id.as_deref(),
                _ => None,
            })
            .collect();
        let (known, after) = match edit {
            LimitEdit::Create(limit) | LimitEdit::Change(limit) => (limit, Some(limit)),
            LimitEdit::Delete(business_id, limit_id) => {
                let known = registry.plans().limit(business_id, limit_id);
                (known.ok_or(ControlError::NoSuchPlanLimit)?, None)
            }
        };
        let is_limited = |customer_id: &&&str| {
            let record = registry.customer(&known.business_id, customer_id);
            let plan = record.and_then(|it| registry.plans().effective(it, registry.has_lapsed(it)));
            plan.is_some_and(|plan| Some(&plan.plan_id) == known.plan_id.as_ref())
        };
        let begun_limited = begun.iter().filter(is_limited).count();
        Ok(Effects { touched: registry.touched(known, after), begun: begun.len(), begun_limited })
    }

    /// How many series that a plan limit applies to count in another way than it asks for: they keep it.
    pub fn kept_shapes(&self, limit: &PlanLimit) -> usize {
        let registry = self.registry();
        let wanted = shape(&limit.spec());
        let of_limit = registry.concerned(limit).filter(|(handle, _)| shape(&handle.record.spec) != wanted);
        of_limit.count()
    }
}

fn shape(spec: &SeriesSpec) -> (dataflows::types::Operation, dataflows::types::MetricType, Option<Span>) {
    (spec.operation, spec.metric_type, spec.reset_interval)
}

impl Registry {
    /// Series without a limit of their own that a limit applies to if it is there, with their customers.
    fn concerned<'a>(
        &'a self,
        limit: &'a PlanLimit,
    ) -> impl Iterator<Item = (&'a SeriesHandle, &'a CustomerRecord)> {
        let PlanLimit { business_id, metric_name, plan_id, .. } = limit;
        self.customers(business_id, None).filter_map(move |record| {
            let handle = self.find(business_id, Some(&record.customer.customer_id), metric_name)?;
            let effective = self.plans().effective(record, self.has_lapsed(record));
            let applies = match plan_id {
                Some(plan_id) => effective.is_some_and(|plan| plan.plan_id == *plan_id),
                None => effective.is_none_or(|plan| {
                    self.plans().term(business_id, Some(&plan.plan_id), metric_name).is_none()
                }),
            };
            (applies && handle.record.spec.limit.is_none()).then_some((handle, record))
        })
    }

    fn touched(
        &self,
        known: &PlanLimit,
        after: Option<&PlanLimit>,
    ) -> Vec<(SeriesHandle, Option<EffectiveLimit>)> {
        let default = self.plans().term(&known.business_id, None, &known.metric_name);
        // A plan's limit that goes leaves the default.
        let after = after.or(default.filter(|_| known.plan_id.is_some())).map(PlanLimit::effective);
        let changed = self.concerned(known).filter(|(handle, _)| self.effective_limit(handle) != after);
        changed.map(|(handle, _)| (handle.clone(), after)).collect()
    }
}
