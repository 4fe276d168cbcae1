//! Reports of what the biller has not counted: where an event only names one, it is asked for until it is there, or there is
//! none. In: the books' list of those that are awaited. Out: what each said, for the books.
//!
//! What is awaited is in the journal: a start goes on asking. What this does not do: know what a slice is.

use std::collections::HashSet;
use std::time::Duration;

use super::lanes::pause;
use super::{ACCOUNT_PAUSE, Asked, LOOK_AGAIN, NoAccount, Report, Said, Worker};
use crate::stripe::{CallError, ErrorReport};

/// Reports that are asked for at a time: they are few, and slices come first.
const ASKED_MAX: usize = 8;
/// How often the biller may say that there is none until that is believed: over a minute or two, in which an event that was
/// just delivered has become one that can be had.
const REFUSALS_MAX: u32 = 8;

impl Worker {
    /// Asks for reports that are awaited, once a second at most.
    pub(super) fn ask_for_reports(&mut self, now: Duration) {
        if now < self.reports_at {
            return;
        }
        self.reports_at = now + LOOK_AGAIN;
        let awaited = self.books.awaited();
        if !self.reports.is_empty() {
            let still: HashSet<_> = awaited.iter().collect();
            self.reports.retain(|name, _| still.contains(name));
        }
        for name in awaited {
            let under_way = self.reports.values().filter(|asked| asked.due.is_none()).count();
            if under_way >= ASKED_MAX {
                return;
            }
            let known = self.reports.get(&name);
            if known.is_some_and(|asked| asked.due.is_none_or(|due| now < due)) {
                continue;
            }
            let failures = known.map_or(0, |asked| asked.failures);
            match self.books.account(&name.0) {
                Ok(account) => {
                    self.reports.insert(name.clone(), Asked { due: None, failures });
                    let (inbox, event_id) = (self.inbox.clone(), name.1.clone());
                    let done = move |answer| drop(inbox.send(Said::Reported(name, answer)));
                    self.biller.error_report(account, event_id, Box::new(done));
                }
                Err(NoAccount::Gone) => {}
                Err(NoAccount::Unusable(reason)) => {
                    self.remarks.set(&name.0, "", Some(reason));
                    self.reports.insert(name, Asked { due: Some(now + ACCOUNT_PAUSE), failures });
                }
            }
        }
    }

    /// What the biller has answered.
    pub(super) fn reported(&mut self, name: (String, String), answer: Result<ErrorReport, CallError>) {
        let now = self.clock.monotonic();
        let Some(asked) = self.reports.get_mut(&name) else { return };
        let least = match answer {
            Ok(report) => return self.found(name, Ok(report.slices())),
            Err(CallError::Again { after, .. }) => after.unwrap_or_default(),
            // The credential is at fault, not the report.
            Err(CallError::Refused { status: Some(401 | 403), reason }) => {
                self.remarks.set(&name.0, "", Some(reason));
                ACCOUNT_PAUSE
            }
            Err(CallError::Refused { reason, .. }) if asked.failures >= REFUSALS_MAX => {
                return self.found(name, Err(reason));
            }
            Err(CallError::Refused { .. }) => Duration::ZERO,
        };
        asked.due = Some(now + pause(asked.failures).max(least));
        asked.failures += 1;
    }

    /// Under way still, until the books have it.
    fn found(
        &mut self,
        (business_id, event_id): (String, String),
        slices: Result<Vec<(String, String)>, String>,
    ) {
        self.untold_reports.push(Report { business_id, event_id, slices });
    }
}
