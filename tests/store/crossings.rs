//! Crossings on their way into the outbox: in parts, each message once, whatever fails between and within them and however
//! often they are handed over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dataflows::types::{Amount, Crossing, Edge, Epoch, SeriesId};
use proptest::prelude::*;
use tracktags::engine::Sink;
use tracktags::sinks::{Messages, Recipients};
use tracktags::store::{Message, Part, Progress, Store, StoreError};

use super::support::*;

/// What an outbox takes at a time here.
const PART_MAX: usize = 3;

fn crossing(series: u32) -> Crossing {
    Crossing {
        series: SeriesId(series),
        period_start: None,
        period_end: None,
        count: 1,
        edge: Edge::Breached,
        value: Amount::ZERO,
        limit: None,
        at: T0,
    }
}

/// As many messages of a crossing as its number says: none, one or two.
struct OneOrTwo;

impl Recipients for OneOrTwo {
    fn messages(&self, epoch: Epoch, crossing: &Crossing) -> Vec<Message> {
        let message = |copy| Message {
            id: format!("{epoch:02}.{}.{copy}", crossing.series.0),
            epoch,
            business_id: "biz_1".into(),
            url: "https://example.test/".into(),
            body: "{}".into(),
            created_at: T0,
            attempts: 0,
            next_at: T0,
        };
        (0..crossing.series.0 % 3).map(message).collect()
    }

    fn posted(&self) {}
}

/// A store whose commits of messages go as its script says, one entry each, and that remembers them.
struct Scripted {
    store: AnyStore,
    script: VecDeque<Fault>,
    taken: Arc<Mutex<Vec<(Epoch, usize)>>>,
}

impl Store for Scripted {
    fn progress(&mut self) -> Result<Progress, StoreError> {
        self.store.progress()
    }

    fn commit(&mut self, part: &Part<'_>) -> Result<(), StoreError> {
        self.store.commit(part)
    }

    fn commit_messages(&mut self, upper: Epoch, messages: &[Message]) -> Result<(), StoreError> {
        let fault = self.script.pop_front().unwrap_or(Fault::Works);
        if matches!(fault, Fault::Works | Fault::UnknownKept) {
            self.store.commit_messages(upper, messages)?;
            self.taken.lock().expect("not poisoned").push((upper, messages.len()));
        }
        match fault {
            Fault::Works => Ok(()),
            Fault::UnknownKept | Fault::UnknownLost => Err(StoreError::Ambiguous("as ordered".into())),
            Fault::Unavailable | Fault::Fatal => Err(StoreError::Unavailable("as ordered".into())),
        }
    }
}

/// Hands batches over to a store that fails to order and ends the sink, which gives up if it cannot go on. The parts that the
/// store took, and what the engine was told.
fn live(
    database: &Database,
    batches: &[(Epoch, Vec<(Epoch, Crossing)>)],
    script: Vec<Fault>,
) -> (Vec<(Epoch, usize)>, Vec<Epoch>) {
    let mut store = database.store();
    define(&mut store, 1, vec![created(1)]);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let store = Scripted { store, script: script.into(), taken: taken.clone() };
    let running = run(Box::new(store), |options| {
        options.messages = Some(Messages(Arc::new(OneOrTwo)));
        options.part_crossings_max = PART_MAX;
        options.stop_timeout = Duration::from_millis(2);
    });
    batches.iter().for_each(|(upper, crossings)| running.sink.cross(*upper, crossings.clone()));
    running.sink.stop();
    let told = running.told.crossings.lock().expect("not poisoned").clone();
    (taken.lock().expect("not poisoned").clone(), told)
}

fn kept(database: &Database) -> Vec<String> {
    database.lines("SELECT message_id FROM messages ORDER BY message_id")
}

/// A message is delivered.
fn deliver(database: &Database, id: &str) {
    let mut store = database.store();
    store.progress().expect("claimed");
    store.outbox().sent(id).expect("written");
}

fn upper(database: &Database) -> Vec<String> {
    database.lines("SELECT upper FROM sink_progress WHERE class = 'messages'")
}

/// The ids of all messages of crossings of these epochs.
fn ids<'a>(crossings: impl Iterator<Item = &'a (Epoch, Crossing)>) -> BTreeSet<String> {
    crossings.flat_map(|(epoch, it)| OneOrTwo.messages(*epoch, it)).map(|message| message.id).collect()
}

#[test]
fn a_batch_of_crossings_is_cut_between_epochs_and_within_large_ones_and_a_stop_in_between_repeats_nothing() {
    use Fault::*;
    on_every_store(|database| {
        // Two of epoch 4, two of 5, seven of 7; each of one message.
        let epochs = [4, 4, 5, 5, 7, 7, 7, 7, 7, 7, 7];
        let crossings: Vec<_> = epochs.into_iter().zip((0..).map(|n| crossing(3 * n + 1))).collect();
        let batches = [(9, crossings.clone())];
        let script = [vec![Works, UnknownKept, UnknownLost, Works, Works], vec![Unavailable; 1_000]].concat();
        let (taken, told) = live(database, &batches, script);
        assert_eq!(taken, [(5, 2), (7, 2), (7, 2), (7, 3)], "the second one twice: nobody knew of it");
        assert_eq!((told, upper(database)), (vec![5, 7, 7], vec!["7".to_owned()]));
        assert_eq!(kept(database), ids(crossings[..7].iter()).into_iter().collect::<Vec<_>>());
        deliver(database, "07.13.0");
        let (taken, told) = live(database, &batches, Vec::new());
        assert_eq!(taken, [(5, 2), (7, 2), (7, 3), (7, 3), (9, 1)]);
        assert_eq!((told.last(), upper(database)), (Some(&9), vec!["9".to_owned()]));
        assert_eq!(kept(database), ids(crossings.iter()).into_iter().collect::<Vec<_>>());
        let sent = "SELECT message_id FROM messages WHERE state = 'sent'";
        assert_eq!(database.lines(sent), ["07.13.0"], "what was sent between the parts stays sent");
    });
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::Works),
        1 => Just(Fault::Unavailable),
        1 => Just(Fault::UnknownLost),
        1 => Just(Fault::UnknownKept),
    ]
}

/// Batches in the order of their epochs; few epochs, so that some are larger than a part.
fn batches() -> impl Strategy<Value = Vec<(Epoch, Vec<(Epoch, Crossing)>)>> {
    let found = proptest::collection::btree_set((1u64..8, 0u32..12), 1..40);
    (found, proptest::collection::btree_set(1u64..8, 0..3)).prop_map(|(found, cuts)| {
        let mut batches: BTreeMap<Epoch, Vec<(Epoch, Crossing)>> = BTreeMap::new();
        for (epoch, series) in found {
            let upper = cuts.range(epoch + 1..).next().copied().unwrap_or(9);
            batches.entry(upper).or_default().push((epoch, crossing(series)));
        }
        batches.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_each_message_is_there_once(
        batches in batches(),
        lives in proptest::collection::vec(proptest::collection::vec(fault(), 0..9), 0..4),
    ) {
        static STORES: OnceLock<Vec<Database>> = OnceLock::new();
        let all = || batches.iter().flat_map(|(_, crossings)| crossings);
        for database in STORES.get_or_init(every_store) {
            database.lose_everything();
            let mut sent = BTreeSet::new();
            for script in &lives {
                let script = [script.clone(), vec![Fault::Unavailable; 1_000]].concat();
                let (taken, told) = live(database, &batches, script);
                prop_assert!(taken.iter().all(|(_, messages)| *messages <= 2 * PART_MAX));
                let now: BTreeSet<String> = kept(database).into_iter().collect();
                let told = told.last().copied().unwrap_or(0);
                prop_assert!(ids(all().filter(|(epoch, _)| *epoch < told)).is_subset(&now), "told of {}", told);
                // Something is delivered before the next start hands all of it over again.
                if let Some(first) = now.first() {
                    deliver(database, first);
                    sent.insert(first.clone());
                }
            }
            live(database, &batches, Vec::new());
            prop_assert_eq!(kept(database).into_iter().collect::<BTreeSet<_>>(), ids(all()));
            let last = batches.last().map(|(upper, _)| upper.to_string());
            prop_assert_eq!(upper(database), Vec::from_iter(last));
            let found = database.lines("SELECT message_id FROM messages WHERE state = 'sent' ORDER BY message_id");
            prop_assert_eq!(found, Vec::from_iter(sent));
        }
    }
}
