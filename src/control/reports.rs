//! Reports of Stripe that usage was not counted: the slices that they name are dead. Pure.
//!
//! ```text
//! event with its samples ─────────────────────────────▶ slices dead, event read
//! event without ─▶ event read, report awaited ─▶ (the exporter asks Stripe) ─▶ slices dead, event read once more
//! ```
//! What was answered 200 is in the journal by then: a report is awaited until it is there, or Stripe has none, or the event is
//! forgotten, over any number of restarts.

use dataflows::types::{Definition, Micros, SliceMove, SliceState, StripeEvent};

use super::stripe::Effect;
use super::{ControlError, Registry};

/// Reports of a business that are awaited at once; more are taken when there are fewer. Stripe sums up what it has not counted
/// and sends few.
const AWAITED_MAX: usize = 1_000;

/// The samples of a report: identifiers of slices, and why each was not counted.
pub type Samples = Vec<(String, String)>;

/// What has become of a report that is awaited.
#[derive(Clone, Debug)]
pub struct ReportChange {
    /// Whose.
    pub business_id: String,
    /// The event that named it.
    pub event_id: String,
    /// Its samples, or why there is none.
    pub found: Result<Samples, String>,
}

/// Slices that Stripe took and has not counted are dead. A report names samples only.
pub(super) fn uncounted(
    registry: &Registry,
    business_id: &str,
    samples: Samples,
    at: Micros,
    effect: &mut Effect,
) {
    let is_own = |(identifier, _): &(String, String)| {
        let known = registry.slices().of_identifier(identifier);
        known.is_some_and(|known| known.slice.business_id == business_id)
    };
    let dead = |(identifier, why)| SliceMove { identifier, state: SliceState::Dead, at, reason: Some(why) };
    let moves: Vec<_> = samples.into_iter().filter(is_own).map(dead).collect();
    if moves.is_empty() {
        return effect.say("it names no slice that is known here");
    }
    effect.applied = true;
    effect.say(format!("slices that are dead now: {}", moves.len()));
    effect.definitions.push(Definition::SlicesMoved(moves));
}

/// An event that only names its report; behind the event itself the report is awaited.
pub(super) fn named(
    registry: &Registry,
    event: &StripeEvent,
    effect: &mut Effect,
) -> Result<Definition, ControlError> {
    let StripeEvent { business_id, event_id, .. } = event;
    if registry.stripe_events().awaited_of(business_id) >= AWAITED_MAX {
        return Err(ControlError::Overloaded);
    }
    effect.say("its report is asked for");
    Ok(Definition::ReportAwaited { business_id: business_id.clone(), event_id: event_id.clone() })
}

/// The definitions of a report that is there; none if nobody awaits it.
pub(super) fn settle(registry: &Registry, change: ReportChange, now: Micros) -> Vec<Definition> {
    let ReportChange { business_id, event_id, found } = change;
    let events = registry.stripe_events();
    let known = events.get(&business_id, &event_id).filter(|_| events.is_awaited(&business_id, &event_id));
    let Some(event) = known.cloned() else { return Vec::new() };
    let mut effect = Effect::default();
    match found {
        Ok(samples) => uncounted(registry, &business_id, samples, now, &mut effect),
        Err(why) => effect.say(format!("Stripe gives no report: {why}")),
    }
    effect.read(event)
}
