//! What became of the items of a batch, and the answer that says it.

use dataflows::types::Outcome;

use super::super::error::{ApiError, Title};
use super::super::reply::Json;

/// Items that an answer explains, the first ones; the counts are of all.
const EXPLAINED_MAX: usize = 1_000;

/// The counts, and why items did not count.
pub struct Tally {
    seen: u32,
    accepted: u64,
    duplicates: u64,
    refused: u64,
    rejected: u64,
    /// Of items that were refused or rejected.
    explained: Vec<(u32, ApiError)>,
    /// All of it had been recorded before, as a chunk of its load.
    is_repeat: bool,
    /// By place, if the answer is to say it of every item.
    statuses: Option<Vec<&'static str>>,
}

const ACCEPTED: &str = "accepted";
const DUPLICATE: &str = "duplicate";
const REFUSED: &str = "refused";
const REJECTED: &str = "rejected";

impl Tally {
    /// Nothing yet. `wants_all`: whether the answer shall have an entry an item.
    pub fn new(wants_all: bool) -> Self {
        Tally {
            seen: 0,
            accepted: 0,
            duplicates: 0,
            refused: 0,
            rejected: 0,
            explained: Vec::new(),
            is_repeat: false,
            statuses: wants_all.then(Vec::new),
        }
    }

    /// An item was read.
    pub fn seen(&mut self, place: u32) {
        self.seen = place + 1;
        if let Some(statuses) = &mut self.statuses {
            statuses.push(ACCEPTED);
        }
    }

    /// Items from this place on were read, but not taken.
    pub fn stop_at(&mut self, place: u32) {
        self.seen = place;
        self.explained.retain(|(explained, _)| *explained < place);
    }

    /// It is none of ours: nothing was recorded, and nothing will be.
    pub fn reject(&mut self, place: u32, why: ApiError) {
        self.rejected += 1;
        self.explain(place, REJECTED, Some(why));
    }

    /// A part was decided: `places` are those of its items in the batch, `told` the places in the part of those that
    /// were not admitted.
    pub fn decided(&mut self, places: &[u32], told: &[(u32, Outcome)]) {
        self.accepted += (places.len() - told.len()) as u64;
        for &(at, outcome) in told {
            let place = places[at as usize];
            match outcome {
                Outcome::Admitted => self.accepted += 1,
                Outcome::Duplicate => {
                    self.duplicates += 1;
                    self.explain(place, DUPLICATE, None);
                }
                Outcome::Refused => {
                    self.refused += 1;
                    let detail = "the update would pass the limit of the metric";
                    let why = ApiError::new(Title::PlanLimitExceeded, "plan_limit_exceeded", detail);
                    self.explain(place, REFUSED, Some(why));
                }
                Outcome::Gone => {
                    self.reject(place, ApiError::not_found("metric_not_found", "there is no such metric"));
                }
                Outcome::TooLate => {
                    let detail = "the timestamp lies in a period whose limit is not decided any more";
                    self.reject(place, ApiError::new(Title::Unprocessable, "too_late", detail));
                }
            }
        }
    }

    /// The chunk had been applied before: nothing of it was looked at.
    pub fn repeated(&mut self) {
        let statuses = self.statuses.take().map(|statuses| vec![DUPLICATE; statuses.len()]);
        *self = Tally { seen: self.seen, is_repeat: true, statuses, ..Tally::new(false) };
    }

    fn explain(&mut self, place: u32, status: &'static str, why: Option<ApiError>) {
        if let Some(statuses) = &mut self.statuses {
            statuses[place as usize] = status;
        }
        if let Some(why) = why
            && (self.explained.len() < EXPLAINED_MAX || self.statuses.is_some())
        {
            self.explained.push((place, why));
        }
    }

    /// 422 if an item is not valid; what limits decide stays per item. An item that could not be looked at ends the batch as
    /// it would end a request.
    pub fn all_or_none(&mut self) -> Result<(), ApiError> {
        if self.rejected == 0 {
            return Ok(());
        }
        if let Some((_, why)) = self.explained.iter().find(|(_, why)| why.is_of_the_moment()) {
            return Err(why.clone());
        }
        let detail = format!("{} of {} items are not valid; nothing was recorded", self.rejected, self.seen);
        let errors = self.errors();
        Err(ApiError::new(Title::Unprocessable, "batch_rejected", detail).with_errors(&errors))
    }

    /// The batch broke off: what was read before is decided.
    pub fn broken(&mut self, why: ApiError) -> ApiError {
        let errors = self.errors();
        why.behind(self.seen).with_errors(&errors)
    }

    /// The answer.
    pub fn json(mut self) -> Json {
        let errors = self.errors();
        let mut json = Json::object()
            .set("accepted", self.accepted)
            .set("duplicates", self.duplicates)
            .set("refused", self.refused)
            .set("rejected", self.rejected)
            .set("errors", &errors[..])
            .set_some("duplicate", self.is_repeat.then_some(true));
        if let Some(statuses) = &self.statuses {
            let result =
                |(index, status): (u64, &&str)| Json::object().set("index", index).set("status", *status);
            let results: Vec<_> = (0..).zip(statuses).map(result).collect();
            json = json.set("results", &results[..]);
        }
        json
    }

    fn errors(&mut self) -> Vec<Json> {
        self.explained.sort_by_key(|(place, _)| *place);
        let error = |(place, why): &(u32, ApiError)| {
            Json::object().set("index", u64::from(*place)).set("code", why.code()).set("detail", why.detail())
        };
        self.explained.iter().take(EXPLAINED_MAX).map(error).collect()
    }
}
