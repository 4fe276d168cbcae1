//! What happens to an update: `meter` applies it, `batch` hands on what has changed.
//!
//! ```text
//!                 ┌─▶ plain: ordinary series   cells (layout) · older (windows) · rows (emission) ┐ convert
//!   meter ─▶ ids ─┤                            log · chunks · shapes                              ├─────────
//!                 └─▶ ledger: all others       cuts (what rearranges one)                              ┘
//! ```
//!
//! `limits` says which limit a series has, from relations of its own; `crossings` what values do to them, `block` which updates a limit refuses, `calendar` which row and which live period a moment belongs to, `tick` when that is, `dirty` which series have
//! something to emit, `cleanup` which series nobody sends to any more, `snapshot` shows all of it as of one epoch.

pub(crate) mod batch;
pub(crate) mod block;
pub(crate) mod calendar;
pub(crate) mod cells;
pub(crate) mod chunks;
pub(crate) mod cleanup;
pub(crate) mod convert;
pub(crate) mod crossings;
pub(crate) mod cuts;
pub(crate) mod dirty;
pub(crate) mod ids;
pub(crate) mod ledger;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod meter;
pub(crate) mod older;
pub(crate) mod plain;
pub(crate) mod rows;
pub(crate) mod shapes;
pub(crate) mod snapshot;
pub(crate) mod tick;
