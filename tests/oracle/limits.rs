//! Limits in histories: which applies, whom a change touches, and what it refuses, against `reference::Relations`.
//!
//! A history is a list of definitions, time entries at which subscriptions end, and updates. Each run is held against the
//! reference when its workers have come to rest: effective limit, its source and percentages, and the standing of every
//! series; how many series the change touched, and how many it moved past their limit; every decision. Three runs: one
//! worker or more, rest behind every entry; another number of workers, rest now and then, facts spread over them; and
//! one that starts behind a snapshot, where all facts come at once.

mod run;
mod world;

use std::collections::BTreeMap;

use dataflows::reference::{Arrival, Change, Reference, Relations};
use dataflows::types::{
    Action, Amount, ClassSet, EffectiveLimit, Epoch, Fact, Limit, LimitSource, Micros, Notify, Operator,
    Place, SeriesId, Shape, Standing,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use run::{DEDUP_HORIZON_SECS, Entry, Lived, Manner, Seen, Start, Step, run};
use world::{CUSTOMERS, Draw, World, beginning, draw};

/// What proptest draws.
#[derive(Clone, Debug)]
struct History {
    entries: Vec<Drawn>,
    manners: [Manner; 3],
    /// Behind which entry, of those there are, the snapshot is.
    snapshot: prop::sample::Index,
}

#[derive(Clone, Debug)]
enum Drawn {
    /// Changes of one epoch; whether each is taken back in it.
    Definitions(Vec<(Draw, bool)>),
    /// Subscriptions of these customers end, or go on.
    Time(Vec<(u32, bool)>),
    /// (series, units, seconds ago).
    Updates(Vec<(prop::sample::Index, i64, i64)>),
}

fn history() -> impl Strategy<Value = History> {
    let changes = vec((draw(), prop::bool::weighted(0.1)), 0..6);
    let drawn = prop_oneof![
        6 => changes.prop_map(Drawn::Definitions),
        1 => vec((0..CUSTOMERS, any::<bool>()), 0..3).prop_map(Drawn::Time),
        3 => vec((any::<prop::sample::Index>(), -4i64..24, 0i64..90), 1..10).prop_map(Drawn::Updates),
    ];
    let manner = |pace: std::ops::Range<usize>| {
        (1usize..=4, pace, any::<bool>()).prop_map(|(workers, pace, is_spread)| Manner {
            workers,
            pace,
            is_spread,
        })
    };
    let begun = beginning().prop_map(|draws| draws.into_iter().map(|draw| (draw, false)).collect());
    let entries = (begun, vec(drawn, 0..30)).prop_map(|(begun, mut entries)| {
        entries.insert(0, Drawn::Definitions(begun));
        entries
    });
    (entries, [manner(1..2), manner(1..5), manner(1..4)], any::<prop::sample::Index>())
        .prop_map(|(entries, manners, snapshot)| History { entries, manners, snapshot })
}

/// The journal of a history.
fn steps(entries: &[Drawn]) -> Vec<Step> {
    let (mut world, mut opened) = (World::default(), 1);
    let step = |(epoch, drawn): (Epoch, Drawn)| {
        let stamp = Micros::from_seconds(1_000_000 + 7 * epoch as i64);
        let entry = match drawn {
            Drawn::Definitions(changes) => {
                let (mut commands, mut facts) = (Vec::new(), Vec::new());
                for (draw, is_undone) in &changes {
                    define(&mut world, draw, *is_undone, &mut commands, &mut facts);
                }
                let opens = commands.iter().filter(|change| matches!(change, Change::Open(..)));
                opened += opens.count();
                // With none, the engine hands in none.
                let is_none = facts.is_empty() && epoch % 2 == 0;
                Entry::Definitions(commands, (!is_none).then_some(facts))
            }
            Drawn::Time(changes) => {
                let mut facts = Vec::new();
                for (customer, lapsed) in changes {
                    let draw = Draw::Lapsed(customer, lapsed);
                    define(&mut world, &draw, false, &mut Vec::new(), &mut facts);
                }
                Entry::Time((!facts.is_empty()).then_some(facts))
            }
            Drawn::Updates(updates) => {
                let arrivals = updates.iter().enumerate().map(|(item, (series, units, ago_secs))| Arrival {
                    series: SeriesId(series.index(opened) as u32),
                    item: item as u32,
                    event_at: Micros(stamp.0 - ago_secs * Micros::PER_SECOND),
                    amount: Amount::from_units(*units),
                    id: None,
                });
                Entry::Updates(arrivals.collect())
            }
        };
        Step { epoch, stamp, entry }
    };
    (1..).zip(entries.iter().cloned()).map(step).collect()
}

/// Applies one change and takes it back if it is to be; adds what that makes of the facts.
fn define(
    world: &mut World,
    draw: &Draw,
    is_undone: bool,
    commands: &mut Vec<Change>,
    facts: &mut Vec<(Fact, isize)>,
) {
    let before = world.clone();
    let mut note = |from: &World, to: &World| {
        let (from, to) = (from.facts(), to.facts());
        facts.extend(from.difference(&to).map(|&fact| (fact, -1)));
        facts.extend(to.difference(&from).map(|&fact| (fact, 1)));
    };
    // A series cannot be opened again as the same.
    if is_undone && matches!(draw, Draw::Close(_) | Draw::CustomerDeleted(_)) {
        return;
    }
    let commanded = commands.len();
    world.apply(draw, commands);
    note(&before, world);
    if is_undone {
        let after = world.clone();
        match (draw, commands.len() > commanded) {
            (Draw::Open(key, ..), true) => world.apply(&Draw::Close(*key), commands),
            _ => *world = before,
        }
        note(&after, world);
    }
}

/// The reference, told of limits by the naive recomputation alone.
struct Court {
    reference: Reference,
    relations: Relations,
    /// Open series, with the limits that were found last.
    shapes: BTreeMap<SeriesId, Shape>,
}

impl Court {
    fn new() -> Court {
        let (reference, relations) = (Reference::new(DEDUP_HORIZON_SECS), Relations::default());
        Court { reference, relations, shapes: BTreeMap::new() }
    }

    /// What the step must lead to.
    fn hear(&mut self, step: &Step) -> Seen {
        let mut seen = Seen::default();
        match &step.entry {
            Entry::Definitions(changes, facts) => {
                changes.iter().for_each(|change| self.change(step.stamp, change));
                seen.limited = self.limit(step.stamp, facts.as_deref().unwrap_or_default());
            }
            Entry::Time(facts) => {
                seen.limited = self.limit(step.stamp, facts.as_deref().unwrap_or_default());
                self.reference.time(step.epoch, step.stamp, ClassSet::default(), &[]);
            }
            Entry::Updates(arrivals) => {
                for arrival in arrivals {
                    let decision = self.reference.update(step.stamp, arrival);
                    seen.decisions.insert((step.epoch, arrival.item), decision);
                }
            }
        }
        let standing = |(&series, shape): (&SeriesId, &Shape)| {
            self.reference.standing(series, step.stamp).map(|standing| (series, (standing, shape.notify)))
        };
        seen.standings = self.shapes.iter().filter_map(standing).collect();
        seen
    }

    fn change(&mut self, stamp: Micros, change: &Change) {
        match *change {
            Change::Open(series, shape) => drop(self.shapes.insert(series, shape)),
            Change::Close(series) => drop(self.shapes.remove(&series)),
            // Nothing but the limit is described anew here, and that is for the facts to say.
            Change::Reshape(..) | Change::Cut(..) => return,
        }
        self.reference.change(stamp, change);
    }

    /// How many series the facts touch, and how many of them they move past their limit.
    fn limit(&mut self, stamp: Micros, facts: &[(Fact, isize)]) -> (u64, u64) {
        facts.iter().for_each(|&(fact, difference)| self.relations.change(fact, difference));
        let (mut touched, mut breached) = (0, 0);
        for (&series, shape) in &mut self.shapes {
            let limited = shape.limited(self.relations.effective(series));
            if limited == *shape {
                continue;
            }
            *shape = limited;
            let is_breached = |reference: &Reference| {
                reference.standing(series, stamp).is_some_and(|standing| standing.breached)
            };
            let before = is_breached(&self.reference);
            self.reference.change(stamp, &Change::Reshape(series, limited));
            touched += 1;
            breached += u64::from(is_breached(&self.reference) && !before);
        }
        (touched, breached)
    }
}

/// What must have been seen where a run settles.
fn settled(expected: &[Seen], manner: Manner) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut sum = Seen::default();
    for (at, seen) in expected.iter().enumerate() {
        sum.limited = (sum.limited.0 + seen.limited.0, sum.limited.1 + seen.limited.1);
        sum.decisions.extend(seen.decisions.clone());
        sum.standings.clone_from(&seen.standings);
        if manner.settles(at, expected.len()) {
            all.push(std::mem::take(&mut sum));
        }
    }
    all
}

fn compare(what: &str, lived: &[Seen], expected: &[Seen]) -> Result<(), TestCaseError> {
    prop_assert_eq!(lived.len(), expected.len());
    for (at, (seen, expected)) in lived.iter().zip(expected).enumerate() {
        for (series, expected) in &expected.standings {
            prop_assert_eq!(
                seen.standings.get(series),
                Some(expected),
                "{}, rest {}, {:?}",
                what,
                at,
                series
            );
        }
        prop_assert_eq!(
            seen.standings.len(),
            expected.standings.len(),
            "{}, rest {}: closed series",
            what,
            at
        );
        prop_assert_eq!(&seen.decisions, &expected.decisions, "{}, rest {}", what, at);
        prop_assert_eq!(seen.limited, expected.limited, "{}, rest {}: touched, breached", what, at);
    }
    Ok(())
}

/// A process that starts has refused nobody.
fn forget_refused(seen: &mut [Seen]) {
    seen.iter_mut()
        .flat_map(|seen| seen.standings.values_mut())
        .for_each(|(standing, _)| standing.refused = 0);
}

/// The third run: from the states and facts behind a step.
fn start_behind(
    step: usize,
    steps: &[Step],
    whole: &Lived,
    expected: &[Seen],
    manner: Manner,
) -> Result<(), TestCaseError> {
    let mut relations = Relations::default();
    for step in &steps[..=step] {
        if let Entry::Definitions(_, Some(facts)) | Entry::Time(Some(facts)) = &step.entry {
            facts.iter().for_each(|&(fact, difference)| relations.change(fact, difference));
        }
    }
    let Step { epoch, stamp, .. } = steps[step];
    let start = Start { epoch, stamp, states: whole.states.clone(), facts: relations.facts().collect() };
    let mut lived = run(&steps[step + 1..], manner, Some(start), None).seen;
    // Only what a snapshot does not keep is new.
    let is_new = |(standing, notify): &&(Standing, Notify)| {
        standing.limit.is_some() && (standing.limit_source != LimitSource::Series || *notify != Notify::NONE)
    };
    let touched = expected[step].standings.values().filter(is_new).count() as u64;
    let restored = Seen {
        limited: (touched, 0),
        decisions: BTreeMap::new(),
        standings: expected[step].standings.clone(),
    };
    let mut expected: Vec<_> = [restored].into_iter().chain(settled(&expected[step + 1..], manner)).collect();
    forget_refused(&mut expected);
    forget_refused(&mut lived);
    compare("from a snapshot", &lived, &expected)
}

fn judge(history: &History) -> Result<(), TestCaseError> {
    let steps = steps(&history.entries);
    let mut court = Court::new();
    let expected: Vec<_> = steps.iter().map(|step| court.hear(step)).collect();
    let [first, second, third] = history.manners;
    let snapshot_behind = history.snapshot.index(steps.len());
    let whole = run(&steps, first, None, Some(snapshot_behind));
    compare("at every entry", &whole.seen, &settled(&expected, first))?;
    compare("now and then", &run(&steps, second, None, None).seen, &settled(&expected, second))?;
    start_behind(snapshot_behind, &steps, &whole, &expected, third)
}

proptest! {
    #![proptest_config(crate::config())]

    #[test]
    fn limits_match_the_reference_at_every_epoch(history in history()) {
        judge(&history)?;
    }
}

/// Histories must do often what the property is about.
#[test]
fn histories_touch_and_refuse_often() {
    let mut runner = TestRunner::deterministic();
    let (mut sources, mut outcomes) = (BTreeMap::<_, usize>::new(), BTreeMap::<_, usize>::new());
    let (mut touched, mut breached) = (0, 0);
    for _ in 0..200 {
        let history = history().new_tree(&mut runner).expect("a history").current();
        let mut court = Court::new();
        for step in steps(&history.entries) {
            let seen = court.hear(&step);
            touched += seen.limited.0;
            breached += seen.limited.1;
            for (standing, _) in seen.standings.values() {
                *sources.entry(standing.limit.map(|_| standing.limit_source)).or_default() += 1;
            }
            for decision in seen.decisions.values() {
                *outcomes.entry(format!("{:?}", decision.outcome)).or_default() += 1;
            }
        }
    }
    let told = format!("{sources:?} {outcomes:?} {touched} {breached}");
    let all: usize = sources.values().sum();
    for source in [LimitSource::Series, LimitSource::Plan, LimitSource::Default] {
        assert!(sources[&Some(source)] * 20 > all, "{told}");
    }
    let all: usize = outcomes.values().sum();
    assert!(outcomes["Refused"] * 20 > all && outcomes["Admitted"] * 2 > all, "{told}");
    assert!(touched > 1_500 && breached > 200, "{told}");
}

/// The text, by hand: one customer of business 0 on a plan, paying another, with defaults and a free plan beside it.
#[test]
fn the_most_specific_limit_applies() {
    let limit = |units, source| {
        let limit = Limit { value: Amount::from_units(units), operator: Operator::Gte, action: Action::Deny };
        EffectiveLimit { limit, source, notify: Notify::NONE }
    };
    let place = Place { series: SeriesId(1), slot: 0 };
    let (business, customer, name) = (0, 0, 0);
    let on = |lapsed, plan, price| Fact::Customer { customer, business, lapsed, plan, price };
    let of_plan = |plan, units| Fact::PlanLimit { plan, name, limit: limit(units, LimitSource::Plan) };
    let free = Fact::Plan { plan: 3, business, price: None };
    let common = [
        Fact::Inherits { place, customer, name },
        Fact::Plan { plan: 1, business, price: Some(11) },
        Fact::Plan { plan: 2, business, price: Some(12) },
        of_plan(1, 100),
        of_plan(2, 200),
        of_plan(3, 300),
        Fact::Default { business, name, limit: limit(400, LimitSource::Default) },
        // Another tenant's, and another name's.
        Fact::Default { business: 1, name: 1, limit: limit(1, LimitSource::Default) },
        Fact::Default { business, name: 2, limit: limit(2, LimitSource::Default) },
    ];
    let units = |changed: &[Fact]| {
        let mut relations = Relations::default();
        common.iter().chain(changed).for_each(|&fact| relations.change(fact, 1));
        relations.effective(place.series).map(|limit| limit.limit.value.0 / Amount::UNIT)
    };
    assert_eq!(units(&[on(false, Some(1), Some(12)), free]), Some(100), "its plan before its price");
    assert_eq!(units(&[on(false, None, Some(12)), free]), Some(200), "the plan of its price");
    assert_eq!(units(&[on(false, None, Some(13)), free]), Some(400), "no plan: the default");
    assert_eq!(units(&[on(true, Some(1), None), free]), Some(300), "lapsed: the free plan");
    assert_eq!(units(&[on(true, Some(1), None)]), Some(100), "lapsed, without a free plan");
    let own = Fact::Own { place, limit: limit(7, LimitSource::Series) };
    let mut relations = Relations::default();
    [own, on(false, Some(1), None), of_plan(1, 100)].iter().for_each(|&fact| relations.change(fact, 1));
    assert_eq!(relations.effective(place.series), Some(limit(7, LimitSource::Series)), "its own");
    relations.change(own, -1);
    assert_eq!(relations.effective(place.series), None);
}
