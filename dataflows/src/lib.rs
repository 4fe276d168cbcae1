//! x
pub mod amount;
pub mod reference;
pub mod tally;
pub mod types;
pub mod window;
