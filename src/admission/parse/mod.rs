//! From the text of a request to typed requests: every rule that needs nothing but the text.
//!
//! ```text
//!  body, query, header ─▶ object (fields, strict) ─▶ names (syntax of one value) ─▶ series | update | customer (whole)
//!                                                                └──────▶ Fault ──▶ 400 or 422, naming the field
//! ```
//! Invariants: an amount is read from its digits, never through `f64`; a field is known, known only to the original
//! service (ignored with a warning), or refused; the first fault wins; no input panics or recurses. What needs the
//! registry, the clock or the engine (absent customers, ages, changes of a used series) is decided behind this.

pub mod business;
pub mod check;
pub mod customer;
pub mod events;
pub mod key;
pub mod metadata;
pub mod names;
pub mod object;
pub mod plan;
pub mod proxy;
mod rules;
pub mod series;
pub mod template;
pub mod update;
pub mod webhook;

use thiserror::Error;

/// Why a request is refused before anything has happened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct Fault {
    /// 400 or 422.
    pub kind: FaultKind,
    /// Stable, `snake_case`.
    pub code: &'static str,
    /// The field at fault, dotted, items by their places: `metadata.integrations.supabase.batch_interval`,
    /// `[3].metric_name`; none if it is the whole body.
    pub field: Option<String>,
    /// What the field (or, for an unknown field, its object) may be; empty where there is no closed list.
    pub valid: Vec<&'static str>,
    /// A sentence for people, lowercase, without a full stop.
    pub detail: String,
}

/// How a request is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// 400: not what the API describes.
    Malformed,
    /// 422: well-formed, but not acceptable.
    Unacceptable,
}

impl Fault {
    /// 400 at a field.
    pub fn malformed(field: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Fault {
            kind: FaultKind::Malformed,
            code,
            field: Some(field.into()),
            valid: Vec::new(),
            detail: detail.into(),
        }
    }

    /// 422 at a field.
    pub fn unacceptable(field: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Fault { kind: FaultKind::Unacceptable, ..Fault::malformed(field, code, detail) }
    }

    /// 400 for the body as a whole.
    pub fn body(code: &'static str, detail: impl Into<String>) -> Self {
        Fault { kind: FaultKind::Malformed, code, field: None, valid: Vec::new(), detail: detail.into() }
    }

    /// The same with the options that would have been right.
    #[must_use]
    pub fn with_valid(mut self, valid: impl IntoIterator<Item = &'static str>) -> Self {
        self.valid = valid.into_iter().collect();
        self
    }
}
