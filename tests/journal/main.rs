//! The journal, from outside: what runs, what a start reads back, what surgery on its files does.

mod disk_full;
mod running;
mod snapshots;
mod support;
mod surgery;
mod time;
