//! The oracle tests: the dataflow against `dataflows::reference`, which recomputes everything from scratch.
//!
//! | file | |
//! |---|---|
//! | `plan` | what proptest draws |
//! | `happen`, `script` | journal entries, time entries, a sink, snapshots and restarts made of a plan |
//! | `life` | runs a script on 1 to 4 workers through the `Driver` |
//! | `store`, `judge` | the store that it leaves; the comparison, at every epoch |
//! | `block` | limits that refuse: by hand, and how often histories do |
//! | `limits` | which limit applies: histories of relations that proptest draws, run with and without snapshots |
//! | `examples` | the reference against the text, by hand |
//! | `order` | what must not depend on the order of updates or the number of workers |
//! | `differential` | meter against differential dataflow's own `count` and `reduce` |
//!
//! `PROPTEST_CASES` sets the number of histories. Failing seeds are kept in `tests/proptest-regressions/oracle.txt`.

mod block;
mod differential;
mod examples;
mod happen;
mod judge;
mod life;
mod limits;
mod order;
mod plan;
mod script;
mod store;

use plan::{Kind, plan};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Where failing seeds are kept: proptest would look beside the manifest, which is not beside these tests.
pub fn config() -> ProptestConfig {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/proptest-regressions/oracle.txt");
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_epoch_matches_the_reference(plan in plan(Kind::Uninterrupted)) {
        judge::judge(&plan)?;
    }

    #[test]
    fn restarts_and_replays_match_the_reference(plan in plan(Kind::Full)) {
        judge::judge(&plan)?;
    }
}
