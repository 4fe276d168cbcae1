//! What proptest draws: the intentions of a history, free of times and numbers, so that they shrink well.
//!
//! A plan says "an update three windows back, at the window's last microsecond"; `script` knows the windows, the cuts
//! and the clock, and makes journal entries of it. Spans are short and moments sit on edges, so that a few entries cross
//! many boundaries.

use dataflows::types::{
    Action, Amount, Limit, LimitSource, MetricType, Notify, Operation, Operator, Shape, Span,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// How far the clock moves before an entry.
#[derive(Clone, Copy, Debug)]
pub enum Advance {
    Micros(i64),
    /// To the next boundary of this span, so many microseconds off.
    Boundary(Span, i64),
    Seconds(i64),
    /// To when a series may be cleaned, so many microseconds off.
    Cleanup(usize, Quiet, i64),
}

/// From when on a series is quiet.
#[derive(Clone, Copy, Debug)]
pub enum Quiet {
    /// From its last update.
    Update,
    /// From the end of the window that an update of then would open.
    Window,
}

/// A moment in relation to the windows, cuts and clock of a series.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    Arrival,
    /// So many flush windows back (ahead, if negative), at a place inside.
    Windows(i64, Place),
    /// So many live periods back, at a place inside.
    Periods(u32, Place),
    /// So many microseconds off the n-th last cut.
    Cut(usize, i64),
    SecondsAgo(i64),
}

/// A place in a window.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    First,
    Middle,
    Last,
}

/// Who waits for an update.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    Nobody,
    Alone,
    OfMany,
}

/// One update.
#[derive(Clone, Copy, Debug)]
pub struct PlannedUpdate {
    /// Index of the series among all that were ever opened.
    pub series: usize,
    pub moment: Moment,
    pub amount: Amount,
    pub id: Option<u8>,
    pub reply: Reply,
}

/// A change of a definition that a PATCH may make.
#[derive(Clone, Copy, Debug)]
pub enum Patch {
    Limit(Option<Limit>),
    Batch(Span),
    Stored(bool),
    Cleanup(Option<u16>),
    /// Never raised: what may still arrive decides what is forgotten.
    MaxEventAge(u32),
    /// All of the shape, if the series has had no update.
    Everything(Shape),
}

/// Where a new live period begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Now,
    /// So many seconds off: an end known before, or that comes late.
    Off(i64),
    /// At the last one once more.
    Again,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Happening {
    Updates(Vec<PlannedUpdate>),
    Open(Shape),
    Patch(usize, Patch),
    Cut(usize, Cut),
    Close(usize),
    Idle,
    /// A snapshot begins; so many series of it are taken after each entry that follows.
    Snapshot(usize),
    Restart(Restart),
}

/// What a restart finds, and on how many workers.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    pub workers: usize,
    /// Whether it begins from the last snapshot and replays, instead of from the state of now.
    pub replays: bool,
    /// What became of the emissions on their way.
    pub fate: Fate,
}

/// What became of the emissions that were not acknowledged.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Lost,
    /// So many (modulo their number) are in the store, and the next one up to and including a series (from 1).
    Stored {
        emissions: usize,
        through: u32,
    },
}

/// One happening, with when it happens and how the store keeps up.
#[derive(Clone, Debug)]
pub struct Event {
    pub advance: Advance,
    pub happening: Happening,
    /// The sink is not ready at a time entry before it.
    pub is_withheld: bool,
    /// The acknowledgement of an emission before it comes that many events later.
    pub acknowledged_after: usize,
    /// The next entry is submitted before this one has been applied.
    pub is_burst: bool,
}

/// A whole history.
#[derive(Clone, Debug)]
pub struct Plan {
    pub began_at_secs: i64,
    pub dedup_horizon_secs: u32,
    pub workers: usize,
    pub shapes: Vec<Shape>,
    pub events: Vec<Event>,
}

/// Which happenings a plan may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything.
    Full,
    /// No snapshots and no restarts.
    Uninterrupted,
}

pub fn plan(kind: Kind) -> impl Strategy<Value = Plan> {
    let seconds_of_day = 86_400;
    // A noon, the end of a week, the end of a month (2026-11-30), and the first minutes of all time.
    let began_at_secs = proptest::sample::select(vec![
        20_781 * seconds_of_day + 43_203,
        20_787 * seconds_of_day - 7,
        20_788 * seconds_of_day - 20,
        100,
    ]);
    (began_at_secs, 8u32..60, 1usize..=4, vec(shape(), 1..4), vec(event(kind), 1..40)).prop_map(
        |(began_at_secs, dedup_horizon_secs, workers, shapes, events)| Plan {
            began_at_secs,
            dedup_horizon_secs,
            workers,
            shapes,
            events,
        },
    )
}

fn event(kind: Kind) -> impl Strategy<Value = Event> {
    let late = if kind == Kind::Full { 3 } else { 1 };
    let acknowledged_after = prop_oneof![4 => Just(0usize), late => 1usize..8];
    (advance(), happening(kind), prop::bool::weighted(0.2), acknowledged_after, prop::bool::weighted(0.2))
        .prop_map(|(advance, happening, is_withheld, acknowledged_after, is_burst)| Event {
            advance,
            happening,
            is_withheld,
            acknowledged_after,
            is_burst,
        })
}

fn advance() -> impl Strategy<Value = Advance> {
    let boundary =
        proptest::sample::select(vec![Span::S1, Span::S5, Span::S15, Span::M1, Span::M5, Span::H1]);
    prop_oneof![
        2 => Just(Advance::Micros(0)),
        3 => (1i64..1_500_000).prop_map(Advance::Micros),
        4 => (boundary, -1i64..=1).prop_map(|(span, off)| Advance::Boundary(span, off)),
        4 => (1i64..20).prop_map(Advance::Seconds),
        2 => (1i64..20).prop_map(|minutes| Advance::Seconds(minutes * 60)),
        1 => (1i64..800).prop_map(|hours| Advance::Seconds(hours * 3_600)),
        2 => cleanup(),
    ]
}

fn cleanup() -> impl Strategy<Value = Advance> {
    let quiet = prop_oneof![3 => Just(Quiet::Update), 1 => Just(Quiet::Window)];
    let off = prop_oneof![
        2 => Just(0i64),
        2 => -1i64..=1,
        2 => -1_500_000i64..1_500_000,
        1 => (-90i64..90).prop_map(|seconds| seconds * 1_000_000),
    ];
    (0usize..8, quiet, off).prop_map(|(series, quiet, off)| Advance::Cleanup(series, quiet, off))
}

fn happening(kind: Kind) -> impl Strategy<Value = Happening> {
    let interrupted = if kind == Kind::Full { 2 } else { 0 };
    let fate = prop_oneof![
        1 => Just(Fate::Lost),
        4 => (0usize..30, 1u32..4).prop_map(|(emissions, through)| Fate::Stored { emissions, through }),
    ];
    let restart = (1usize..=4, prop::bool::weighted(0.7), fate)
        .prop_map(|(workers, replays, fate)| Happening::Restart(Restart { workers, replays, fate }));
    let anyone = 0usize..8;
    prop_oneof![
        20 => vec(update(), 1..6).prop_map(Happening::Updates),
        1 => shape().prop_map(Happening::Open),
        3 => (anyone.clone(), patch()).prop_map(|(series, patch)| Happening::Patch(series, patch)),
        4 => (anyone.clone(), cut()).prop_map(|(series, cut)| Happening::Cut(series, cut)),
        1 => anyone.prop_map(Happening::Close),
        2 => Just(Happening::Idle),
        interrupted => (1usize..4).prop_map(Happening::Snapshot),
        interrupted => restart,
    ]
}

fn cut() -> impl Strategy<Value = Cut> {
    prop_oneof![3 => Just(Cut::Now), 2 => (0i64..=300).prop_map(Cut::Off), 1 => (-90i64..0).prop_map(Cut::Off), 2 => Just(Cut::Again)]
}

pub fn update() -> impl Strategy<Value = PlannedUpdate> {
    let id = proptest::option::weighted(0.4, 0u8..4);
    let reply = prop_oneof![4 => Just(Reply::Alone), 1 => Just(Reply::Nobody), 2 => Just(Reply::OfMany)];
    (0usize..8, moment(), amount(), id, reply).prop_map(|(series, moment, amount, id, reply)| PlannedUpdate {
        series,
        moment,
        amount,
        id,
        reply,
    })
}

fn moment() -> impl Strategy<Value = Moment> {
    let place = || prop_oneof![Just(Place::First), Just(Place::Middle), Just(Place::Last)];
    prop_oneof![
        4 => Just(Moment::Arrival),
        4 => (0i64..=3, place()).prop_map(|(back, place)| Moment::Windows(back, place)),
        4 => (6i64..=9, place()).prop_map(|(back, place)| Moment::Windows(back, place)),
        3 => (-3i64..=-1, place()).prop_map(|(back, place)| Moment::Windows(back, place)),
        2 => (0u32..=9, place()).prop_map(|(back, place)| Moment::Periods(back, place)),
        2 => (0usize..3, -1i64..=1).prop_map(|(cut, off)| Moment::Cut(cut, off)),
        2 => (0i64..600).prop_map(Moment::SecondsAgo),
        1 => (0i64..72).prop_map(|hours| Moment::SecondsAgo(hours * 3_600)),
    ]
}

pub fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        8 => (-5i64..30).prop_map(Amount::from_units),
        2 => (-30i64..0).prop_map(Amount::from_units),
        4 => (-9i128..9).prop_map(Amount),
        1 => (-Amount::LIMIT.0..=Amount::LIMIT.0).prop_map(Amount),
    ]
}

fn patch() -> impl Strategy<Value = Patch> {
    prop_oneof![
        2 => limit().prop_map(Patch::Limit),
        3 => batch().prop_map(Patch::Batch),
        2 => any::<bool>().prop_map(Patch::Stored),
        2 => cleanup_after_days().prop_map(Patch::Cleanup),
        1 => max_event_age_secs().prop_map(Patch::MaxEventAge),
        1 => shape().prop_map(Patch::Everything),
    ]
}

fn limit() -> impl Strategy<Value = Option<Limit>> {
    let operator = [Operator::Gte, Operator::Gt, Operator::Lte, Operator::Lt, Operator::Eq];
    let action = prop_oneof![
        4 => Just(Action::Block),
        1 => proptest::sample::select(vec![
            Action::Allow, Action::AllowOverage, Action::Deny, Action::Webhook,
        ]),
    ];
    let limit = (-5i64..40, proptest::sample::select(operator.to_vec()), action)
        .prop_map(|(units, operator, action)| Limit { value: Amount::from_units(units), operator, action });
    proptest::option::weighted(0.6, limit)
}

fn limit_source() -> impl Strategy<Value = LimitSource> {
    proptest::sample::select(vec![LimitSource::Series, LimitSource::Series, LimitSource::Plan])
}

fn notify() -> impl Strategy<Value = Notify> {
    proptest::collection::vec(proptest::sample::select(vec![50, 80, 100, 150]), 0..3)
        .prop_map(|percentages| Notify::new(&percentages))
}

fn batch() -> impl Strategy<Value = Span> {
    proptest::sample::select(vec![Span::S1, Span::S5, Span::S15, Span::S30, Span::M1])
}

fn max_event_age_secs() -> impl Strategy<Value = u32> {
    proptest::sample::select(vec![0, 30, 3_600, 86_400, 3 * 86_400])
}

fn cleanup_after_days() -> impl Strategy<Value = Option<u16>> {
    proptest::sample::select(vec![None, Some(1), Some(1), Some(7)])
}

/// Any series that a client could define.
pub fn shape() -> impl Strategy<Value = Shape> {
    let operation = [Operation::Sum, Operation::Count, Operation::Avg, Operation::Max, Operation::Min];
    let metric_type =
        [MetricType::Reset, MetricType::Reset, MetricType::Checkpoint, MetricType::StripeBilling];
    let flush = vec![Span::S1, Span::S1, Span::S5, Span::S5, Span::S15, Span::M1, Span::H1, Span::D1];
    let how = (
        proptest::sample::select(operation.to_vec()),
        proptest::sample::select(metric_type.to_vec()),
        proptest::sample::select(flush),
        // How many spans longer the live period is.
        prop_oneof![3 => Just(0usize), 3 => 1usize..4, 1 => 4usize..13],
    );
    let initial_value = prop_oneof![2 => Just(Amount::ZERO), 1 => amount()];
    let ages = (max_event_age_secs(), cleanup_after_days(), notify());
    (how, initial_value, batch(), prop::bool::weighted(0.85), (limit(), limit_source()), ages).prop_map(
        |(
            (operation, metric_type, flush, longer),
            initial_value,
            batch,
            stored,
            (limit, limit_source),
            (max_event_age_secs, cleanup_after_days, notify),
        )| {
            let is_reset = metric_type == MetricType::Reset;
            let reset = if is_reset { Span::ALL[(flush as usize + longer).min(12)] } else { flush };
            Shape {
                operation,
                metric_type,
                flush,
                reset,
                initial_value,
                batch,
                stored,
                limit,
                limit_source: if limit.is_some() { limit_source } else { LimitSource::Series },
                notify,
                max_event_age_secs,
                cleanup_after_days,
            }
        },
    )
}
