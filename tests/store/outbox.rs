//! The outbox: what of a commit gets in, in which order it comes out, and what becomes of what was sent or given up. On every
//! store, by example and against a naive model.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use dataflows::types::{Definition, Epoch};
use proptest::prelude::*;
use proptest::{option, sample};
use tracktags::sinks::webhooks::PASSED_MAX;
use tracktags::store::{
    Claim, DeadMessage, DueMessages, Look, Message, Outbox, Place, PostgresStore, Store, StoreError,
};

use super::support::*;
use super::support_postgres::Cluster;

const ODD: &str = "{\"quote ' \\\" back \\\\ \": \"\u{1F4C8} \u{202e} $1 {schema} | --\"}";

/// A message of an epoch that is tried at the T of another one.
fn message(id: &str, epoch: Epoch, next: Epoch) -> Message {
    Message {
        id: id.into(),
        epoch,
        business_id: "biz_1".into(),
        url: "https://example.test/hook?a=b".into(),
        body: ODD.into(),
        created_at: at(epoch),
        attempts: 0,
        next_at: at(next),
    }
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.id.as_str()).collect()
}

/// Everything that is due.
fn due(outbox: &mut dyn Outbox, now: Epoch) -> Vec<Message> {
    let due = looked(outbox, now, None, usize::MAX, usize::MAX);
    assert_eq!(due.end, None);
    due.messages
}

fn looked(
    outbox: &mut dyn Outbox,
    now: Epoch,
    after: Option<&Place>,
    passed_max: usize,
    of_business_max: usize,
) -> DueMessages {
    outbox.due(&Look { now: at(now), after, passed_max, of_business_max }).expect("readable")
}

fn place(message: &Message) -> Place {
    Place { next_at: message.next_at, id: message.id.clone() }
}

/// The whole table, and the progress of the class.
fn table(database: &Database) -> Vec<String> {
    let (created_at, next_at) = (database.seconds("created_at"), database.seconds("next_at"));
    let query = format!(
        "SELECT message_id, epoch, business_id, url, body, {created_at}, attempts, {next_at}, state, last_error
         FROM messages ORDER BY message_id"
    );
    let progress = "SELECT upper, through_series, whole_upper FROM sink_progress WHERE class = 'messages'";
    [database.lines(&query), database.lines(progress)].concat()
}

/// A store that has claimed its database, and its outbox.
fn opened(database: &Database) -> (AnyStore, Box<dyn Outbox>) {
    let mut store = database.store();
    define(&mut store, 1, vec![created(1)]);
    let outbox = store.outbox();
    (store, outbox)
}

#[test]
fn a_message_is_there_once_however_often_it_is_committed() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        let first = [message("a", 5, 5), message("b", 5, 6), message("a", 5, 7)];
        for _ in 0..2 {
            store.commit_messages(5, &first).expect("committed");
            assert_eq!(due(&mut *outbox, 9), first[..2], "as it came first, with every field");
        }
        // Epoch 5 is not in whole yet: what is new of it gets in, what is there stays.
        store.commit_messages(6, &[message("a", 5, 8), message("c", 5, 8)]).expect("committed");
        assert_eq!(due(&mut *outbox, 9), [&first[..2], &[message("c", 5, 8)]].concat());
        assert_eq!(store.progress().expect("readable").classes, BTreeMap::new(), "no batch class");
        let (mut again, _) = opened(database);
        again.commit_messages(7, &first).expect("committed by another start");
        assert_eq!(again.outbox().counts(), Ok((3, 0)));
    });
}

#[test]
fn progress_keeps_old_epochs_out_and_never_goes_back() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        store.commit_messages(7, &[message("early", 3, 3), message("ahead", 7, 3)]).expect("committed");
        store.commit_messages(2, &[message("old", 6, 3), message("new", 8, 3)]).expect("committed");
        store.commit_messages(0, &[]).expect("committed");
        assert_eq!(ids(&due(&mut *outbox, 9)), ["ahead", "early", "new"]);
        assert_eq!(table(database).last().map(String::as_str), Some("7|4294967295|7"));
    });
}

#[test]
fn what_was_sent_stays_out_until_it_is_forgotten_and_behind_that_by_its_epoch() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        let both = [message("a", 5, 5), message("b", 6, 5)];
        store.commit_messages(5, &both).expect("committed");
        outbox.sent("a").expect("written");
        outbox.sent("a").expect("repeated");
        outbox.sent("nobody").expect("passed over");
        outbox.failed("a", 3, Some(at(9)), "late").expect("passed over");
        store.commit_messages(5, &both).expect("committed");
        assert_eq!(ids(&due(&mut *outbox, 9)), ["b"]);
        let sent = format!("a|5|biz_1|https://example.test/hook?a=b||{}|0|-|sent|-", at(5).seconds());
        assert_eq!(table(database)[0], sent, "without its body");
        outbox.sent("b").expect("written");
        outbox.forget_sent(at(5)).expect("written");
        assert_eq!(table(database).len(), 3, "strictly before");
        outbox.forget_sent(at(6)).expect("written");
        assert_eq!(database.lines("SELECT message_id FROM messages"), ["b"]);
        store.commit_messages(6, &[]).expect("committed");
        store.commit_messages(6, &both).expect("committed");
        assert_eq!(database.lines("SELECT message_id FROM messages"), ["b"], "its epoch is in whole");
    });
}

#[test]
fn only_what_was_sent_is_forgotten() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        store.commit_messages(1, &[message("a", 1, 1), message("b", 1, 1)]).expect("committed");
        outbox.failed("b", 9, None, "gone").expect("written");
        outbox.forget_sent(at(1_000)).expect("written");
        assert_eq!(outbox.counts(), Ok((1, 1)));
    });
}

#[test]
fn messages_go_with_their_business_whatever_became_of_them() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        let mut commit = |business_id: &str, epoch| {
            let ids = ["waiting", "sent", "dead"].map(|state| format!("{state} {business_id}"));
            let of_it = ids.map(|id| Message { business_id: business_id.into(), ..message(&id, epoch, 1) });
            store.commit_messages(epoch, &of_it).expect("committed");
            outbox.sent(&of_it[1].id).expect("written");
            outbox.failed(&of_it[2].id, 1, None, "no").expect("written");
        };
        commit("biz_1", 1);
        commit("biz_2", 2);
        commit("biz_3", 3);
        let kept = |of: &[&str]| {
            let ids =
                of.iter().flat_map(|of| ["dead", "sent", "waiting"].map(|state| format!("{state} {of}")));
            let mut ids: Vec<_> = ids.collect();
            ids.sort();
            ids
        };
        let there = || database.lines("SELECT message_id FROM messages ORDER BY message_id");
        assert_eq!(there(), kept(&["biz_1", "biz_2", "biz_3"]));
        define(&mut store, 2, vec![Definition::BusinessDeleted { business_id: "biz_2".into() }]);
        assert_eq!(there(), kept(&["biz_1", "biz_3"]));
        outbox.drop_of("biz_3").expect("written");
        outbox.drop_of("nobody").expect("passed over");
        assert_eq!(there(), kept(&["biz_1"]));
    });
}

#[test]
fn what_is_due_comes_oldest_first_and_not_before_its_time() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        assert_eq!(outbox.next_at(), Ok(None));
        assert_eq!(looked(&mut *outbox, 1_000_000, None, 10, 10), DueMessages::default());
        // More than one statement brings; three of a time.
        let many: Vec<_> =
            (0..2_500).map(|n| message(&format!("{:04}", n * 7 % 2_500), 1, 100 + n / 3)).collect();
        store.commit_messages(1, &many).expect("committed");
        assert_eq!(outbox.next_at(), Ok(Some(at(100))));
        assert_eq!(due(&mut *outbox, 99), []);
        let mut expected = many.clone();
        expected.sort_by(|one, other| (one.next_at, &one.id).cmp(&(other.next_at, &other.id)));
        assert_eq!(ids(&due(&mut *outbox, 101)), ids(&expected[..6]));
        assert_eq!(due(&mut *outbox, 5_000), expected);
        assert_eq!(looked(&mut *outbox, 5_000, None, 0, 9), DueMessages::default());
        // Stretch by stretch it is the same.
        let (mut after, mut all) = (None, Vec::new());
        loop {
            let due = looked(&mut *outbox, 5_000, after.as_ref(), 600, usize::MAX);
            all.extend(due.messages);
            after = due.end;
            if after.is_none() {
                break;
            }
            assert_eq!(after.as_ref(), all.last().map(place).as_ref());
        }
        assert_eq!(ids(&all), ids(&expected));
        assert_eq!(outbox.counts(), Ok((2_500, 0)));
    });
}

#[test]
fn a_business_with_many_messages_due_takes_a_few_places_and_hides_no_other_for_long() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        let of = |business_id: &str, id: String, next: Epoch| Message {
            business_id: business_id.into(),
            ..message(&id, 1, next)
        };
        let first = PASSED_MAX as u64 - 1;
        let mut all: Vec<_> = (0..2 * first).map(|n| of("loud", format!("{n:05}"), n)).collect();
        all.push(of("quiet", "within".into(), 100));
        all.push(of("quiet", "behind".into(), first + 50));
        store.commit_messages(1, &all).expect("committed");
        let due = looked(&mut *outbox, 100_000, None, PASSED_MAX, 3);
        assert_eq!(ids(&due.messages), ["00000", "00001", "00002", "within"]);
        let end = due.end.expect("there are more");
        assert_eq!(end.id, format!("{:05}", first - 1), "as far as that, passed ones included");
        let due = looked(&mut *outbox, 100_000, Some(&end), PASSED_MAX, 1);
        assert_eq!(ids(&due.messages), [format!("{first:05}").as_str(), "behind"]);
        let end = due.end.expect("it has passed as many as it may");
        assert_eq!(end.id, format!("{:05}", 2 * first - 1));
        assert_eq!(looked(&mut *outbox, 100_000, Some(&end), PASSED_MAX, 1), DueMessages::default());
    });
}

#[test]
fn a_failed_one_waits_then_dies_and_is_tried_again_when_asked_for() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        // "B" is before "a" by its bytes.
        let all = [message("a", 1, 1), message("B", 1, 2), message("c", 1, 3)];
        store.commit_messages(1, &all).expect("committed");
        outbox.failed("a", 1, Some(at(8)), "503 \0 told").expect("written");
        outbox.failed("nobody", 1, Some(at(8)), "").expect("passed over");
        assert_eq!(ids(&due(&mut *outbox, 7)), ["B", "c"]);
        assert_eq!(
            database.lines("SELECT last_error FROM messages WHERE message_id = 'a'"),
            ["503 \u{FFFD} told"]
        );
        let later = Message { attempts: 1, next_at: at(8), ..all[0].clone() };
        assert_eq!(due(&mut *outbox, 8)[2], later);
        for id in ["a", "B", "c"] {
            outbox.failed(id, 4, None, &format!("no {id}")).expect("written");
        }
        outbox.failed("a", 5, Some(at(9)), "it is dead").expect("passed over");
        assert_eq!(outbox.counts(), Ok((0, 3)));
        assert_eq!(outbox.next_at(), Ok(None));
        let dead = |outbox: &mut dyn Outbox, after, limit| {
            let dead = outbox.dead(after, limit).expect("readable");
            dead.into_iter().map(|dead| dead.message.id).collect::<Vec<_>>()
        };
        assert_eq!(dead(&mut *outbox, None, 2), ["B", "a"]);
        assert_eq!(dead(&mut *outbox, Some("a"), 2), ["c"]);
        assert_eq!(dead(&mut *outbox, Some("Z"), 9), ["a", "c"]);
        let message = Message { attempts: 4, next_at: at(1), ..all[0].clone() };
        let given_up = DeadMessage { message, last_error: "no a".into() };
        assert_eq!(outbox.dead(Some("Z"), 1), Ok(vec![given_up]));
        store.commit_messages(1, &all).expect("committed");
        assert_eq!(outbox.counts(), Ok((0, 3)), "a dead one does not come to life by being committed");
        assert_eq!(outbox.retry("a", at(20)), Ok(true));
        assert_eq!(outbox.retry("a", at(21)), Ok(false), "it waits");
        assert_eq!(outbox.retry("nobody", at(21)), Ok(false));
        let anew = Message { created_at: at(20), next_at: at(20), ..all[0].clone() };
        assert_eq!(due(&mut *outbox, 20), [anew]);
        outbox.sent("c").expect("it arrived, whatever was thought");
        assert_eq!(outbox.counts(), Ok((1, 1)));
    });
}

#[test]
fn who_has_lost_the_store_changes_nothing_in_the_outbox() {
    on_every_store(|database| {
        let (mut store, mut outbox) = opened(database);
        let all = ["dead", "sent", "waiting"].map(|id| message(id, 5, 5));
        store.commit_messages(5, &all).expect("committed");
        outbox.failed("dead", 1, None, "no").expect("written");
        outbox.sent("sent").expect("written");
        database.give_away();
        let before = table(database);
        let refused = [
            store.commit_messages(9, &[message("new", 6, 6)]),
            outbox.sent("waiting"),
            outbox.failed("waiting", 1, None, "no"),
            outbox.retry("dead", at(9)).map(drop),
            outbox.drop_of("biz_1"),
            outbox.forget_sent(at(9)),
        ];
        for refused in refused {
            assert!(matches!(refused, Err(StoreError::Fenced(_))), "{refused:?}");
        }
        assert_eq!(table(database), before);
    });
}

#[test]
fn an_outbox_waits_for_its_store_to_claim_the_schema() {
    let cluster = Cluster::start();
    let mut store = store_of(&cluster.url(), JOURNAL);
    let mut outbox = store.outbox().expect("opened");
    assert!(matches!(outbox.counts(), Err(StoreError::Unavailable(_))));
    assert!(matches!(outbox.sent("a"), Err(StoreError::Unavailable(_))));
    store.progress().expect("claimed");
    assert_eq!(outbox.counts(), Ok((0, 0)));
    outbox.sent("a").expect("behind the store's fence");
    store.heartbeat().expect("which it did not raise");
}

#[test]
fn a_journal_that_takes_over_begins_with_epochs_of_its_own_and_sends_what_waits() {
    let cluster = Cluster::start();
    let mut first = store_of(&cluster.url(), JOURNAL);
    first.commit_messages(50, &[message("of the first", 49, 1)]).expect("committed");
    let claim = Claim { journal_id: "journal-2".into(), take_over: true, adopt: true };
    let mut second = PostgresStore::new(target(&cluster.url()), claim).expect("a runtime");
    second.commit_messages(3, &[message("of the second", 2, 2)]).expect("committed");
    let mut outbox = second.outbox().expect("opened");
    assert_eq!(ids(&due(&mut *outbox, 9)), ["of the first", "of the second"]);
    second.commit_messages(3, &[message("late", 2, 2)]).expect("committed");
    assert_eq!(outbox.counts(), Ok((2, 0)));
}

/// What is there, found naively.
#[derive(Default)]
struct Model {
    upper: Epoch,
    kept: BTreeMap<String, (Message, State)>,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Waiting,
    Sent,
    Dead(String),
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Epoch, Vec<Message>),
    Sent(String),
    Failed(String, u32, Option<Epoch>),
    Retry(String, Epoch),
    Drop(&'static str),
    Forget(Epoch),
}

impl Model {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Commit(upper, messages) => {
                for message in messages.iter().filter(|message| message.epoch >= self.upper) {
                    self.kept.entry(message.id.clone()).or_insert((message.clone(), State::Waiting));
                }
                self.upper = self.upper.max(*upper);
            }
            Step::Sent(id) => {
                self.kept.entry(id.clone()).and_modify(|kept| kept.1 = State::Sent);
            }
            Step::Failed(id, attempts, next) => {
                if let Some((message, state @ State::Waiting)) = self.kept.get_mut(id) {
                    message.attempts = *attempts;
                    message.next_at = next.map_or(message.created_at, at);
                    *state = if next.is_some() { State::Waiting } else { State::Dead(attempts.to_string()) };
                }
            }
            Step::Retry(id, now) => {
                if let Some((message, state @ State::Dead(_))) = self.kept.get_mut(id) {
                    (message.attempts, *state) = (0, State::Waiting);
                    (message.created_at, message.next_at) = (at(*now), at(*now));
                }
            }
            Step::Drop(business_id) => {
                self.kept.retain(|_, (message, _)| message.business_id != *business_id)
            }
            Step::Forget(before) => {
                self.kept
                    .retain(|_, (message, state)| *state != State::Sent || message.created_at >= at(*before));
            }
        }
    }

    fn due(&self, now: Epoch) -> Vec<Message> {
        let waiting = self.kept.values().filter(|(_, state)| *state == State::Waiting);
        let mut due: Vec<_> = waiting
            .map(|(message, _)| message.clone())
            .filter(|message| message.next_at <= at(now))
            .collect();
        due.sort_by_key(|message| (message.next_at, message.id.clone()));
        due
    }

    fn look(&self, look: &Look<'_>) -> DueMessages {
        let due = self.due(1_000).into_iter().filter(|it| look.after.is_none_or(|after| place(it) > *after));
        let passed: Vec<_> = due.filter(|it| it.next_at <= look.now).take(look.passed_max).collect();
        let end = passed.last().filter(|_| passed.len() == look.passed_max).map(place);
        let mut of_business: BTreeMap<String, usize> = BTreeMap::new();
        let mut is_taken = |message: &Message| {
            let count = of_business.entry(message.business_id.clone()).or_default();
            *count += 1;
            *count <= look.of_business_max
        };
        DueMessages { end, messages: passed.iter().filter(|it| is_taken(it)).cloned().collect() }
    }

    fn dead(&self) -> Vec<DeadMessage> {
        let dead = |(message, state): &(Message, State)| match state {
            State::Dead(error) => Some(DeadMessage { message: message.clone(), last_error: error.clone() }),
            _ => None,
        };
        self.kept.values().filter_map(dead).collect()
    }

    fn sent(&self) -> Vec<String> {
        let sent = self.kept.iter().filter(|(_, (_, state))| *state == State::Sent);
        sent.map(|(id, _)| id.clone()).collect()
    }
}

/// Takes one step in a store.
fn take(store: &mut AnyStore, outbox: &mut dyn Outbox, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::Commit(upper, messages) => store.commit_messages(*upper, messages),
        Step::Sent(id) => outbox.sent(id),
        Step::Failed(id, attempts, next) => outbox.failed(id, *attempts, next.map(at), &attempts.to_string()),
        Step::Retry(id, now) => outbox.retry(id, at(*now)).map(drop),
        Step::Drop(business_id) => outbox.drop_of(business_id),
        Step::Forget(before) => outbox.forget_sent(at(*before)),
    }
}

fn step() -> impl Strategy<Value = Step> {
    // Few, so that they meet; their order by bytes is not that of a dictionary.
    let id = || sample::select(vec!["a", "B", "c", "D", "_e", "-f"]).prop_map(str::to_owned);
    let messages = proptest::collection::vec((id(), 0u64..20, 0u64..20), 0..4);
    let committed = (0u64..20, messages).prop_map(|(upper, messages)| {
        let messages = messages.iter().map(|(id, epoch, next)| {
            let business_id = if id.contains(char::is_uppercase) { "biz_2" } else { "biz_1" };
            Message { business_id: business_id.into(), ..message(id, *epoch, *next) }
        });
        Step::Commit(upper.saturating_sub(5), messages.collect())
    });
    prop_oneof![
        4 => committed,
        2 => id().prop_map(Step::Sent),
        3 => (id(), 0u32..9, option::of(0u64..20)).prop_map(|(id, attempts, next)| Step::Failed(id, attempts, next)),
        2 => (id(), 0u64..20).prop_map(|(id, now)| Step::Retry(id, now)),
        1 => sample::select(vec!["biz_1", "biz_2"]).prop_map(Step::Drop),
        1 => (0u64..20).prop_map(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_an_outbox_equals_the_model(steps in proptest::collection::vec(step(), 0..30), now in 0u64..20) {
        static STORES: OnceLock<Vec<Database>> = OnceLock::new();
        for database in STORES.get_or_init(every_store) {
            database.lose_everything();
            let (mut store, mut outbox) = opened(database);
            let mut model = Model::default();
            for step in &steps {
                model.take(step);
                take(&mut store, &mut *outbox, step).expect("taken");
                let (waiting, dead) = (model.due(1_000), model.dead());
                prop_assert_eq!(outbox.counts(), Ok((waiting.len() as u64, dead.len() as u64)));
                prop_assert_eq!(outbox.next_at(), Ok(waiting.first().map(|message| message.next_at)));
                prop_assert_eq!(outbox.oldest(), Ok(waiting.iter().map(|message| message.created_at).min()));
                prop_assert_eq!(due(&mut *outbox, now), model.due(now));
                let after = waiting.first().map(place);
                for (after, passed_max, of_business_max) in [(None, 4, 1), (after.as_ref(), 3, 2)] {
                    let look = Look { now: at(now), after, passed_max, of_business_max };
                    prop_assert_eq!(outbox.due(&look), Ok(model.look(&look)));
                }
                prop_assert_eq!(due(&mut *outbox, 1_000), waiting);
                prop_assert_eq!(outbox.dead(None, 1_000), Ok(dead));
            }
            let sent = "SELECT message_id FROM messages WHERE state = 'sent' AND body = ''";
            let mut found = database.lines(sent);
            found.sort();
            prop_assert_eq!(found, model.sent());
        }
    }
}
