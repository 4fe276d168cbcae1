//! What is billed, in every store: each period as it was decided last, each slice with what became of it, whatever comes again.

use dataflows::types::{
    Amount, BilledPeriod, Business, Definition, Epoch, Micros, SeriesId, Slice, SliceMove, SliceState,
};
use tracktags::control::Registry;
use tracktags::store::{Part, Store};

use super::support::{JOURNAL, T0, at, created, define, deleted, on_every_store};

const SLICES: &str = "SELECT identifier, number, quantity, state, reason FROM slices ORDER BY identifier";
const PERIODS: &str =
    "SELECT series_id, units, next_number FROM billing_periods ORDER BY series_id, period_start";

fn business() -> Definition {
    let (business_id, business_name) = ("biz_1".to_owned(), "B".to_owned());
    Definition::BusinessPut(Business { business_id, business_name, email: "b".into(), created_at: T0 })
}

fn slice(number: u64, period_start: Option<Micros>) -> Slice {
    Slice {
        identifier: format!("tt_{number}"),
        series: SeriesId(1),
        business_id: "biz_1".into(),
        customer_id: "c".into(),
        metric_name: "m".into(),
        stripe_customer_id: "cus_1".into(),
        price_id: "price_1".into(),
        period_start,
        number,
        quantity: -5 + number as i64,
        scale: Amount(1_500_000_000),
        remainder: Amount(-250_000_000),
        dated_at: at(number),
        cut_at: at(number),
    }
}

fn billed(start: Option<Micros>, units: i128) -> BilledPeriod {
    BilledPeriod {
        start,
        end: start.map(|start| Micros(start.0 + 1)),
        usage: Amount(i128::MAX / 2),
        updates: u64::MAX,
        cleaned: Amount(1),
        free: start.map(|_| Amount(-3)),
        billable: Amount(7),
        carried_in: Amount(8),
        carried_out: Amount(9),
        units,
        scale: Amount(1_500_000_000),
        next_number: 4,
        billed_at: at(9),
    }
}

fn bill(periods: Vec<BilledPeriod>) -> Definition {
    Definition::PeriodsBilled { series: SeriesId(1), periods }
}

fn moved(number: u64, state: SliceState, epoch: Epoch, reason: Option<&str>) -> Definition {
    let (identifier, reason) = (format!("tt_{number}"), reason.map(str::to_owned));
    Definition::SlicesMoved(vec![SliceMove { identifier, state, at: at(epoch), reason }])
}

use SliceState::{Acked, Dead, New, Sending, Unknown};

/// What a journal may say: slices that move in the stretch that cut them, and later; one that begins anew.
fn story() -> Vec<Vec<Definition>> {
    let start = Some(at(3));
    vec![
        vec![business(), created(1), bill(vec![billed(None, 3), billed(start, 5)])],
        vec![
            Definition::SlicesCut(vec![slice(0, None), slice(1, None), slice(2, start)]),
            moved(0, Sending, 2, None),
        ],
        vec![moved(0, Unknown, 3, Some("lost")), moved(1, Sending, 3, None), moved(1, Acked, 4, None)],
        vec![
            moved(0, New, 5, Some("not counted")),
            moved(0, Sending, 6, None),
            moved(2, Dead, 6, Some("no\u{e9}")),
        ],
        vec![
            bill(vec![billed(None, i128::from(i64::MAX) * 4)]),
            Definition::SlicesCut(vec![slice(3, start)]),
        ],
        vec![moved(3, Sending, 7, None), moved(3, Unknown, 8, Some("lost"))],
    ]
}

fn registry(definitions: impl IntoIterator<Item = Definition>) -> Registry {
    let mut registry = Registry::new(1, 0);
    for definition in definitions {
        registry.apply(&definition);
    }
    registry
}

/// All of it, as far as it is remembered.
fn known(registry: &Registry) -> String {
    let kept: Vec<_> =
        (0..4).map(|number| registry.slices().of_identifier(&format!("tt_{number}"))).collect();
    format!("{kept:#?} {:#?}", registry.slices().periods(SeriesId(1)).collect::<Vec<_>>())
}

#[test]
fn slices_and_billed_periods_are_in_every_store_once_and_come_back() {
    on_every_store(|database| {
        let mut store = database.store();
        let story: Vec<(Epoch, Definition)> = story()
            .into_iter()
            .zip(1..)
            .flat_map(|(definitions, epoch)| {
                definitions.into_iter().map(move |definition| (epoch, definition))
            })
            .collect();
        store.progress().expect("readable, once the tables are made");
        let mut commit = |definitions: &[(Epoch, Definition)]| {
            let part = Part { journal_id: JOURNAL, definitions, rows: None };
            store.commit(&part).expect("committed");
        };
        story.chunk_by(|(one, _), (next, _)| one == next).for_each(&mut commit);
        let slices =
            ["tt_0|0|-5|sending|-", "tt_1|1|-4|acked|-", "tt_2|2|-3|dead|no\u{e9}", "tt_3|3|-2|unknown|lost"];
        assert_eq!(database.lines(SLICES), slices);
        assert_eq!(database.lines(PERIODS), ["1|36893488147419103228|4", "1|5|4"]);
        let expected = known(&registry(story.iter().map(|(_, definition)| definition.clone())));
        if let Some(content) = store.content() {
            assert_eq!(known(&registry(content.definitions)), expected);
        }
        // As if the store had been given back its past: everything comes again, in one part, and then from nothing.
        for sql in ["", "DELETE FROM slices", "DELETE FROM billing_periods"] {
            if !sql.is_empty() {
                database.execute(sql);
            }
            database.execute("UPDATE sink_progress SET upper = 0 WHERE class = 'definitions'");
            let part = Part { journal_id: JOURNAL, definitions: &story, rows: None };
            store.commit(&part).expect("committed");
            assert_eq!(database.lines(SLICES), slices, "{sql}");
            assert_eq!(database.lines(PERIODS).len(), 2, "{sql}");
            if let Some(content) = store.content() {
                assert_eq!(known(&registry(content.definitions)), expected, "{sql}");
            }
        }
        define(&mut store, 10, vec![deleted(1)]);
        assert_eq!(database.lines(PERIODS), [""; 0]);
        assert_eq!(database.lines(SLICES).len(), 4, "a slice outlives its series");
        define(&mut store, 11, vec![Definition::BusinessDeleted { business_id: "biz_1".into() }]);
        assert_eq!(database.lines(SLICES), [""; 0]);
    });
}
