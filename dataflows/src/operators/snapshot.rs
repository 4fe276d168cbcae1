//! A snapshot of meter: the state as of one epoch, shown piece by piece while updates go on.
//!
//! Ordinary series are copied on write, by chunks (`chunks`); ledgers are few and are exported when the snapshot begins,
//! and so are cleanups on their way; ids that come meanwhile go to an overlay (`ids`). In the worst case every chunk is copied once.

use super::cleanup::Cleanups;
use super::convert::When;
use super::ledger::Ledger;
use super::meter::Meter;
use super::tick::Tick;
use crate::types::{EventId, SeriesState};

/// A snapshot that is being taken.
pub(crate) struct Snapshot {
    /// When it began.
    tick: Tick,
    /// Series that were in ledgers then, and have not been shown.
    ledgers: Vec<SeriesState>,
    /// Cleanups that the store did not have then.
    cleanups: Cleanups,
    next_slot: u32,
    end_slot: u32,
}

impl Meter {
    /// Begins a snapshot of the state as it is now. One that is running is given up.
    pub fn begin_snapshot(&mut self) {
        let export =
            |(&slot, ledger): (&u32, &Ledger)| self.cleanup.complete_now(slot, ledger.export(&self.tick));
        let ledgers = self.ledgers.iter().map(export).collect();
        let cleanups = self.cleanup.freeze();
        self.plain.freeze();
        self.ids.begin_walk();
        let (tick, next_slot, end_slot) = (self.tick, 0, self.plain.slots());
        self.snapshot = Some(Snapshot { tick, ledgers, cleanups, next_slot, end_slot });
    }

    /// Shows the snapshot up to `series_max` more series; true when it has seen all.
    pub fn snapshot_step(&mut self, series_max: usize, each: &mut dyn FnMut(&SeriesState)) -> bool {
        let Some(snapshot) = &mut self.snapshot else { return true };
        let mut left = series_max;
        while left > 0 {
            let Some(state) = snapshot.ledgers.pop() else { break };
            each(&state);
            left -= 1;
        }
        while left > 0 && snapshot.next_slot < snapshot.end_slot {
            let exported = self.plain.export(snapshot.next_slot, When::Begun, &snapshot.tick);
            let slot = snapshot.next_slot;
            snapshot.next_slot += 1;
            left -= 1;
            let Some((mut state, in_flight)) = exported else { continue };
            self.cleanup.complete_begun(slot, &snapshot.cleanups, &mut state);
            for (window, _) in state.windows.iter_mut().zip(in_flight).filter(|(_, in_flight)| *in_flight) {
                window.dirty.insert(state.shape.batch);
            }
            each(&state);
        }
        let is_done = snapshot.ledgers.is_empty() && snapshot.next_slot == snapshot.end_slot;
        if is_done {
            self.snapshot = None;
            self.plain.thaw();
            self.cleanup.thaw();
        }
        is_done
    }

    /// Shows the snapshot some more ids, grouped by generation; true when it has seen all.
    pub fn snapshot_ids(&mut self, each: &mut dyn FnMut(u64, &[EventId])) -> bool {
        self.ids.walk(each)
    }
}
