//! The seam between who decides what is billed and who bills it. In: usage and questions. Out: what became of them, told to
//! a closure, so that the thread that asks never waits.
//!
//! What this does not do: bound what is under way, or keep an order: who asks does.

use tokio::runtime::Handle;

use super::calls::{Account, Stripe};
use super::event::ErrorReport;
use super::outcome::{CallError, Outcome};
use super::usage::{Counted, Meter, Usage};

/// Is told an answer, once, on some thread; must not block. Not told if the service stops before.
pub type Done<T> = Box<dyn FnOnce(T) + Send>;

/// Whoever bills usage. No call blocks.
pub trait Biller: Send + Sync {
    /// How usage at a price is reported. A price that is not metered is `CallError::Refused`.
    fn meter(&self, account: Account, price_id: String, done: Done<Result<Meter, CallError>>);
    /// Reports a slice of usage.
    fn send(&self, account: Account, usage: Usage, done: Done<Outcome>);
    /// What has been counted, in whole units.
    fn total(&self, account: Account, of: Counted, done: Done<Result<i128, CallError>>);
    /// What an event says that was not counted.
    fn error_report(&self, account: Account, event_id: String, done: Done<Result<ErrorReport, CallError>>);
}

/// Stripe's calls, each in a task of its own.
pub struct Spawned {
    stripe: Stripe,
    runtime: Handle,
}

impl Spawned {
    /// Calls in a runtime that somebody else keeps.
    pub fn new(stripe: Stripe, runtime: Handle) -> Spawned {
        Spawned { stripe, runtime }
    }
}

impl Biller for Spawned {
    fn meter(&self, account: Account, price_id: String, done: Done<Result<Meter, CallError>>) {
        let stripe = self.stripe.clone();
        self.runtime.spawn(async move { done(stripe.meter_of(&account, &price_id).await) });
    }

    fn send(&self, account: Account, usage: Usage, done: Done<Outcome>) {
        let stripe = self.stripe.clone();
        self.runtime.spawn(async move { done(stripe.send(&account, &usage).await) });
    }

    fn total(&self, account: Account, of: Counted, done: Done<Result<i128, CallError>>) {
        let stripe = self.stripe.clone();
        self.runtime.spawn(async move { done(stripe.total(&account, &of).await) });
    }

    fn error_report(&self, account: Account, event_id: String, done: Done<Result<ErrorReport, CallError>>) {
        let stripe = self.stripe.clone();
        self.runtime.spawn(async move { done(stripe.error_report(&account, &event_id).await) });
    }
}
