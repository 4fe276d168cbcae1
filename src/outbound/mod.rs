//! Requests to wherever a tenant says: the proxy's and the webhooks'. In: a request with a target that nobody trusts. Out: the
//! target's answer, bounded in time and size, or an error that tells nothing about this network.
//!
//! ```text
//!  Target (URL) ─▶ Request ─▶ Outbound ─▶ pooled client ─▶ connector: resolve ─▶ guard ─▶ TCP ─▶ TLS
//!    target         request     client       hyper-util                 once     all of    what was
//!                               slots                                            it        checked
//! ```
//! # Invariants
//! 1. Only a `Checked` address is connected to, and only `Guard` makes one: there is no second resolution in between.
//! 2. A name is refused whole if one of its addresses is.
//! 3. Whatever is refused reads the same; why is in the log at `debug` only.
//! 4. Time, size of an answer, its headers and exchanges in flight for a business are bounded.
//!
//! What this room does not do: follow redirects, decompress, keep cookies, read proxy variables, retry what a target has
//! begun to read, know what a business may reach (`proxy_targets`) or whether a limit is breached.

mod client;
mod connect;
mod guard;
mod headers;
mod request;
mod resolve;
mod signature;
mod slots;
mod target;

use thiserror::Error;

pub use client::{
    ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES_MAX, ANSWER_HEADERS_MAX, Answer, EXCHANGE_TIMEOUT, IN_FLIGHT_MAX,
    Outbound, OutboundOptions, native_roots,
};
pub use guard::{Checked, Cidr, Guard, Refusal};
pub use headers::{end_to_end, forwarded};
pub use request::{METHODS, REQUEST_HEADER_BYTES_MAX, REQUEST_HEADERS_MAX, Request, RequestError};
pub use resolve::{Resolve, Resolving, SystemResolver};
pub use signature::{SecretError, SigningKey, sign};
pub use target::{ORIGIN_BYTES_MAX, TARGET_BYTES_MAX, Target, TargetError};

/// Why there is no answer. No text names an address, a secret or a part of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OutboundError {
    /// The guard refused an address of the target, or its port. Nothing was sent, nothing was connected to.
    #[error("the target may not be reached from here")]
    NotAllowed,
    /// No connection: the name has no address, nobody listens, the certificate is not trusted, or the connection broke
    /// before there was an answer.
    #[error("the target cannot be reached")]
    Unreachable,
    /// The exchange took longer than it may.
    #[error("the target has not answered in time")]
    TimedOut,
    /// The answer has more than `ANSWER_BYTES_MAX` bytes, `ANSWER_HEADERS_MAX` headers or `ANSWER_HEAD_BYTES_MAX` bytes of
    /// them together.
    #[error("the target's answer is too large")]
    TooLarge,
    /// The answer is not HTTP/1, or ends early.
    #[error("the target's answer is not valid HTTP")]
    Malformed,
    /// The business has as many exchanges in flight as it may.
    #[error("too many requests to targets are under way")]
    Busy,
}
