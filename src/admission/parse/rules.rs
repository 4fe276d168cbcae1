//! What the fields of a definition mean together (semantics, sections 4, 7 and 8).
//!
//! In: a description with the fields of a request applied, and the one before. Out: the description with what follows
//! from them (the default of `reset_interval`), or 400 / 422 at the field that a client would change.

use dataflows::types::{Action, Limit, MetricType, Operation, Operator, SeriesSpec, Span};

use super::Fault;
use super::object::Object;

/// Applies every rule. `before` is the description that the request started from, `object` its body.
pub(super) fn check(
    mut spec: SeriesSpec,
    before: &SeriesSpec,
    object: &Object<'_>,
    warnings: &mut Vec<String>,
) -> Result<SeriesSpec, Fault> {
    spec.reset_interval = reset_interval(&spec, before, object.some("reset_interval").is_some())?;
    billable(&spec)?;
    let Some(limit) = &spec.limit else { return Ok(spec) };
    match limit.action {
        Action::Block => blocking(&spec, limit)?,
        Action::Allow => warnings.push(
            "plan_breach_action is allow: updates past the limit are recorded and reported, nothing is refused"
                .to_owned(),
        ),
        Action::AllowOverage | Action::Deny | Action::Webhook => {}
    }
    Ok(spec)
}

fn reset_interval(spec: &SeriesSpec, before: &SeriesSpec, given: bool) -> Result<Option<Span>, Fault> {
    if spec.metric_type != MetricType::Reset {
        let detail = "reset_interval goes only with metric_type reset";
        return if given {
            Err(Fault::malformed("reset_interval", "invalid_combination", detail))
        } else {
            Ok(None)
        };
    }
    // A live period that was the flush window stays the flush window.
    let followed = !given && before.reset_interval == Some(before.flush_interval);
    let reset = spec.reset_interval.filter(|_| !followed).unwrap_or(spec.flush_interval);
    if reset < spec.flush_interval {
        let detail = format!("reset_interval {reset} is shorter than flush_interval {}", spec.flush_interval);
        return Err(Fault::unacceptable("reset_interval", "interval_too_short", detail));
    }
    // Every longer span is a whole number of shorter ones (`dataflows::window`).
    Ok(Some(reset))
}

/// What is billed adds up: a slice of a greatest or a mean value is nothing.
fn billable(spec: &SeriesSpec) -> Result<(), Fault> {
    let is_billed = spec.stripe.as_ref().is_some_and(|stripe| stripe.enabled && stripe.price_id.is_some());
    let adds_up = matches!(spec.operation, Operation::Sum | Operation::Count);
    if is_billed && spec.metric_type == MetricType::StripeBilling && !adds_up {
        let detail = "usage is billed to a price_id with the operations SUM and COUNT only";
        return Err(Fault::unacceptable("operation", "invalid_combination", detail));
    }
    Ok(())
}

fn blocking(spec: &SeriesSpec, limit: &Limit) -> Result<(), Fault> {
    let fields = ("plan_limit_operator", "plan_breach_action");
    blockable(limit.operator, spec.operation, fields)?;
    let fault = |field, detail| Err(Fault::unacceptable(field, "invalid_combination", detail));
    if !spec.restore_on_startup {
        let detail = "block does not go with restore_on_startup false: a restart would forget what was used";
        return fault("metadata.integrations.supabase.restore_on_startup", detail);
    }
    Ok(())
}

/// `block` needs a side to stay on. `fields` are the names of the operator and of the action.
pub(super) fn blockable(
    operator: Operator,
    operation: Operation,
    fields: (&'static str, &'static str),
) -> Result<(), Fault> {
    let fault = |field, detail| Err(Fault::unacceptable(field, "invalid_combination", detail));
    if operator == Operator::Eq {
        return fault(fields.0, "block does not go with the operator eq");
    }
    if operation == Operation::Avg {
        return fault(fields.1, "block does not go with the operation AVG");
    }
    Ok(())
}
