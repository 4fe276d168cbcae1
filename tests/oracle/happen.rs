//! Where a plan meets the clock: turns "three windows back" into a moment, and knows what control and admission would
//! let through.

use dataflows::reference::{Arrival, Change};
use dataflows::types::{BRIEF, EventId, MetricType, Micros, NO_REPLY, SeriesId, Shape, Span, Window};

use crate::plan::{Advance, Cut, Happening, Moment, Patch, Place, PlannedUpdate, Quiet, Reply};

/// What control knows of a series.
#[derive(Clone, Debug)]
pub struct Known {
    series: SeriesId,
    shape: Shape,
    cuts: Vec<Micros>,
    is_closed: bool,
    last_update: Option<Micros>,
    newest_event: Option<Micros>,
}

impl Known {
    /// The class that the rows of the series are in, or will be.
    pub fn batch(&self) -> Span {
        self.shape.batch
    }
}

/// The clock after an advance.
pub fn moved(now: Micros, advance: Advance, known: &[Known]) -> Micros {
    match advance {
        Advance::Micros(micros) => Micros(now.0 + micros),
        Advance::Seconds(seconds) => Micros(now.0 + seconds * Micros::PER_SECOND),
        Advance::Boundary(span, off) => Micros(span.window(now).end.0 + off).max(now),
        Advance::Cleanup(series, quiet, off) => cleaned_at(&known[series % known.len()], quiet, off).max(now),
    }
}

fn cleaned_at(known: &Known, quiet: Quiet, off: i64) -> Micros {
    let (Some(last), Some(days)) = (known.last_update, known.shape.cleanup_after_days) else {
        return Micros(i64::MIN);
    };
    let since = match quiet {
        Quiet::Update => last,
        Quiet::Window => known.shape.flush.window(last).end,
    };
    Micros(since.0 + i64::from(days) * 86_400 * Micros::PER_SECOND + off)
}

/// The definition that a happening changes, if control lets it through.
pub fn change(known: &mut Vec<Known>, happening: &Happening, now: Micros) -> Option<Change> {
    let series = match *happening {
        Happening::Open(shape) => {
            let series = SeriesId(known.len() as u32 + 1);
            known.push(Known {
                series,
                shape,
                cuts: Vec::new(),
                is_closed: false,
                last_update: None,
                newest_event: None,
            });
            return Some(Change::Open(series, shape));
        }
        Happening::Patch(series, _) | Happening::Cut(series, _) | Happening::Close(series) => {
            series % known.len()
        }
        _ => return None,
    };
    let known = &mut known[series];
    if known.is_closed {
        return None;
    }
    Some(match *happening {
        Happening::Patch(_, patch) => {
            known.shape = patched(known, patch);
            Change::Reshape(known.series, known.shape)
        }
        Happening::Cut(_, cut) => {
            let at = match cut {
                Cut::Now => now,
                // One that comes late finds nothing counted behind it: control makes it before that can be.
                Cut::Off(seconds) => {
                    let at = Micros(now.0 + seconds * Micros::PER_SECOND);
                    let is_free = seconds >= 0 || known.newest_event.is_none_or(|newest| newest < at);
                    if is_free { at } else { now }
                }
                Cut::Again => known.cuts.last().copied().unwrap_or(now),
            };
            if cut != Cut::Again {
                known.cuts.push(at);
            }
            Change::Cut(known.series, (at != now).then_some(at))
        }
        _ => {
            known.is_closed = true;
            Change::Close(known.series)
        }
    })
}

fn patched(known: &Known, patch: Patch) -> Shape {
    let shape = known.shape;
    match patch {
        Patch::Limit(None) => shape.limited(None),
        Patch::Limit(limit) => Shape { limit, ..shape },
        Patch::Batch(batch) => Shape { batch, ..shape },
        Patch::Stored(stored) => Shape { stored, ..shape },
        Patch::Cleanup(cleanup_after_days) => Shape { cleanup_after_days, ..shape },
        Patch::MaxEventAge(secs) => Shape { max_event_age_secs: secs.min(shape.max_event_age_secs), ..shape },
        Patch::Everything(_) if known.last_update.is_some() => shape,
        Patch::Everything(other) => other,
    }
}

/// The update that a client sends now, if admission lets it through; its event time is moved to where it would.
pub fn arrival(known: &mut [Known], item: usize, update: &PlannedUpdate, now: Micros) -> Arrival {
    let index = update.series % known.len();
    let known = &mut known[index];
    known.last_update = Some(now);
    let age_max = i64::from(known.shape.max_event_age_secs) * Micros::PER_SECOND;
    let ahead_max = 300 * Micros::PER_SECOND;
    let wanted = moment(known, update.moment, now);
    // With an age of 0 the event time does not matter, so admission does not look at it.
    let is_free = age_max == 0;
    // What is loaded may be of any age; but not of a series that was cut: of rows long before a cut, which memory has let go,
    // `window_end` and `value` are not always the reference's yet.
    let is_loaded = matches!(update.reply, Reply::OfMany) && known.cuts.is_empty();
    let oldest = if is_loaded { i64::MIN } else { now.0 - age_max };
    let event_at = if is_free { wanted } else { Micros(wanted.0.clamp(oldest, now.0 + ahead_max)) };
    known.newest_event = known.newest_event.max(Some(if is_free { now } else { event_at }));
    let id = update.id.map(|id| EventId::new(((u128::from(id) + 1) * 0x0101_0101) << 96, known.series));
    let item = match update.reply {
        Reply::Nobody => NO_REPLY,
        Reply::Alone => item as u32,
        Reply::OfMany => BRIEF | item as u32,
    };
    Arrival { series: known.series, item, event_at, amount: update.amount, id }
}

fn moment(known: &Known, moment: Moment, now: Micros) -> Micros {
    let shape = &known.shape;
    match moment {
        Moment::Arrival => now,
        Moment::Windows(back, at) if back >= 0 => place(shape.flush.back(now, back as u32), at),
        Moment::Windows(ahead, at) => {
            let next = (0..-ahead).fold(now, |moment, _| shape.flush.window(moment).end);
            place(shape.flush.window(next), at)
        }
        Moment::Periods(back, at) => {
            let span = if shape.metric_type == MetricType::Reset { shape.reset } else { shape.flush };
            place(span.back(now, back), at)
        }
        Moment::Cut(last, off) => known.cuts.iter().rev().nth(last).map_or(now, |cut| Micros(cut.0 + off)),
        Moment::SecondsAgo(seconds) => Micros(now.0 - seconds * Micros::PER_SECOND),
    }
}

fn place(window: Window, place: Place) -> Micros {
    match place {
        Place::First => window.start,
        Place::Middle => Micros(window.start.0 + (window.end.0 - window.start.0) / 2),
        Place::Last => Micros(window.end.0 - 1),
    }
}
