//! The main path, top to bottom, once on every worker.
//!
//! ```text
//!   works ─▶ meter ─▶ batch ─▶ probe
//!     ▲        │         └─▶ batches     ┐ the driver's output
//!     │        └─▶ decisions             ┘
//!     └──── commands ◀──┐
//!   facts ─▶ limits ────┘                  a graph of its own, with a probe of its own
//! ```
//!
//! * A record of `works` is one worker's share of one epoch. The engine has routed it, so all channels are `Pipeline`.
//!   What another process owns will enter through an `Exchange` before meter, and meter will then apply an epoch when the
//!   frontier has passed it.
//! * The timestamp is the epoch of the last definition or time entry. Progress is a message to every worker, which wakes
//!   it; a group of updates changes nothing that a frontier is asked for.
//! * `limits`, a differential graph that only facts advance, says which limit a series has. Each worker waits until it
//!   has passed the epoch, and hands meter what came of it to its series as commands of the same epoch, in the order of
//!   their numbers: what meter sees depends on the facts alone. An idle graph costs updates nothing.
//! * Meter applies on arrival: the records of a worker are in epoch order. Only the probe waits for the frontier.

use std::cell::RefCell;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::probe::{Handle as ProbeHandle, Probe};
use timely::dataflow::operators::{Input as _, Inspect as _, Operator as _};
use timely::dataflow::{InputHandle, Scope, Stream};
use timely::worker::Worker;

use crate::operators::batch::PackedBatch;
use crate::operators::limits::{Changed, Entrance, limits};
use crate::operators::meter::{Meter, Output};
use crate::types::{Epoch, Work};

/// Where the driver puts works.
pub(crate) type Input = InputHandle<Epoch, CapacityContainerBuilder<Vec<Work>>>;

/// What the operators of one worker share with its driver: the worker is one thread, and borrows end with each record.
pub(crate) struct Shared {
    /// The series.
    pub meter: Meter,
    /// What has been decided and emitted and not been fetched.
    pub output: Output,
    /// Emissions on their way from meter to the output.
    pub emitting: usize,
    /// Changed limits of this worker's series, of the epoch of facts under way and, where other workers are ahead, of
    /// later ones.
    pub limited: Vec<(Changed, Epoch, isize)>,
}

/// The driver's end of the graph.
pub(crate) struct Ends {
    /// Works in.
    pub works: Input,
    /// Everything behind meter has passed.
    pub probe: ProbeHandle<Epoch>,
    /// Facts in.
    pub facts: Entrance,
    /// All limits have passed.
    pub limits: ProbeHandle<Epoch>,
}

/// Builds the graph on this worker.
pub(crate) fn build(worker: &mut Worker, shared: &Rc<RefCell<Shared>>) -> Ends {
    let mut works = Input::new();
    let probe = ProbeHandle::new();
    worker.dataflow_named("metering", |graph: Scope<'_, Epoch>| {
        let changes = meter(graph.input_from(&mut works), shared);
        batch(changes, shared).probe_with(&probe);
    });
    let of_limits = Rc::clone(shared);
    let (facts, limits) = worker.dataflow_named("limits", |graph: Scope<'_, Epoch>| {
        let (entrance, limits) = limits(graph);
        let changed = limits.inner.inspect(move |row| of_limits.borrow_mut().limited.push(row.clone()));
        (entrance, changed.probe().0)
    });
    Ends { works, probe, facts, limits }
}

/// Applies each work and passes on what is due.
fn meter<'graph>(
    works: Stream<'graph, Epoch, Vec<Work>>,
    shared: &Rc<RefCell<Shared>>,
) -> Stream<'graph, Epoch, Vec<PackedBatch>> {
    let shared = Rc::clone(shared);
    works.unary::<CapacityContainerBuilder<Vec<PackedBatch>>, _, _, _>(Pipeline, "meter", move |_, _| {
        move |input, output| {
            input.for_each(|capability, works| {
                let shared = &mut *shared.borrow_mut();
                for work in works.drain(..) {
                    let mut session = output.session(&capability);
                    shared.meter.apply(work, &mut shared.output, &mut |batch| {
                        shared.emitting += 1;
                        session.give(batch);
                    });
                }
            });
        }
    })
}

/// Hands each batch to the driver.
fn batch<'graph>(
    batches: Stream<'graph, Epoch, Vec<PackedBatch>>,
    shared: &Rc<RefCell<Shared>>,
) -> Stream<'graph, Epoch, Vec<PackedBatch>> {
    let shared = Rc::clone(shared);
    batches.unary::<CapacityContainerBuilder<Vec<PackedBatch>>, _, _, _>(Pipeline, "batch", move |_, _| {
        move |input, _output| {
            input.for_each(|_capability, batches| {
                let shared = &mut *shared.borrow_mut();
                shared.emitting -= batches.len();
                shared.output.batches.append(batches);
            });
        }
    })
}
