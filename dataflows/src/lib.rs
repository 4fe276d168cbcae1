//! x
pub mod amount;
pub mod tally;
pub mod types;
pub mod window;
