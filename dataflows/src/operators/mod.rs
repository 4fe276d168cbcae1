//! What happens to an update: `meter` applies it, `batch` hands on what has changed.
//!
//! `calendar` says which row and which live period a moment belongs to; `ledger` keeps one series in full generality;
//! `ids` remembers event ids; `dirty` remembers which series changed.

pub mod batch;
pub(crate) mod calendar;
pub(crate) mod dirty;
pub(crate) mod ids;
pub(crate) mod ledger;
pub mod meter;
