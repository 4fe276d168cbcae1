//! The main path, top to bottom, once on every worker.
//!
//! ```text
//!   works ─▶ meter ─▶ batch ─▶ probe
//!              │         └─▶ batches     ┐ the driver's output
//!              └─▶ decisions             ┘
//! ```
//!
//! * A record of `works` is one worker's share of one epoch. The engine has routed it, so all channels are `Pipeline`.
//!   What another process owns will enter through an `Exchange` before meter, and meter will then apply an epoch when the
//!   frontier has passed it.
//! * The timestamp is the epoch of the last definition or time entry. Progress is a message to every worker, which wakes
//!   it; a group of updates changes nothing that a frontier is asked for.
//! * `limits`, a differential graph of its own that only definition epochs advance, will hand meter the effective limit
//!   of a series; until then it is the one in the shape.
//! * Meter applies on arrival: the records of a worker are in epoch order. Only the probe waits for the frontier.

use std::cell::RefCell;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::probe::{Handle as ProbeHandle, Probe};
use timely::dataflow::operators::{Input as _, Operator as _};
use timely::dataflow::{InputHandle, Scope, Stream};
use timely::worker::Worker;

use crate::operators::batch::PackedBatch;
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
}

/// Builds the graph on this worker.
pub(crate) fn build(worker: &mut Worker, shared: &Rc<RefCell<Shared>>) -> (Input, ProbeHandle<Epoch>) {
    let mut works = Input::new();
    let probe = ProbeHandle::new();
    worker.dataflow_named("metering", |graph: Scope<'_, Epoch>| {
        let changes = meter(graph.input_from(&mut works), shared);
        batch(changes, shared).probe_with(&probe);
    });
    (works, probe)
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
