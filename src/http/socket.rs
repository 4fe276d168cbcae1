//! A connection's socket and its pace: how long it may idle, send a header, or linger.
//!
//! ```text
//!            bytes arrive            header complete              answered
//!   Idle ──────────────────▶ Head ──────────────────▶ Busy ──────────────────▶ Idle      any ──▶ Lingering ──▶ closed
//!   idle time-out            header time-out          the service's own         idle time-out
//! ```
//! One lazy timer per connection watches the pace, instead of one per request. *Lingering*: after an answer that leaves
//! a body unread, the rest is read and thrown away for a moment, since closing a socket with unread bytes resets it, and
//! a reset can destroy the answer before the client has read it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::{Clock, SystemClock};

/// How long unread bytes are thrown away.
const LINGER: Duration = Duration::from_secs(2);
/// `Pace::due_millis` when nothing is due.
const NEVER: u64 = u64::MAX;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const LINGERING: u8 = 3;

/// Where a connection stands and when it is overdue. Only the connection's own task touches it; the atomics are for the
/// compiler, hence relaxed.
pub(super) struct Pace {
    since_connect: SystemClock,
    header_timeout: Duration,
    idle_timeout: Duration,
    phase: AtomicU8,
    due_millis: AtomicU64,
    lingers: AtomicBool,
}

impl Pace {
    /// A new connection: its first header is due.
    pub(super) fn new(header_timeout: Duration, idle_timeout: Duration) -> Self {
        let pace = Pace {
            since_connect: SystemClock::default(),
            header_timeout,
            idle_timeout,
            phase: AtomicU8::new(HEAD),
            due_millis: AtomicU64::new(NEVER),
            lingers: AtomicBool::new(false),
        };
        pace.enter(HEAD, Some(header_timeout));
        pace
    }

    fn enter(&self, phase: u8, timeout: Option<Duration>) {
        let due = timeout.map_or(NEVER, |timeout| (self.age() + timeout).as_millis() as u64);
        self.phase.store(phase, Ordering::Relaxed);
        self.due_millis.store(due, Ordering::Relaxed);
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    /// A header is complete.
    pub(super) fn begin(&self) {
        self.enter(BUSY, None);
    }

    /// The answer is ready; `closes`: the connection ends with it, perhaps with bytes unread.
    pub(super) fn answered(&self, closes: bool) {
        self.enter(IDLE, Some(self.idle_timeout));
        self.lingers.store(closes, Ordering::Relaxed);
    }

    /// How long a silent connection is kept.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// How old the connection is.
    pub(super) fn age(&self) -> Duration {
        self.since_connect.monotonic()
    }

    /// At which age the connection is to be closed, as things stand; none while a request is being answered.
    pub(super) fn due(&self) -> Option<Duration> {
        let due = self.due_millis.load(Ordering::Relaxed);
        (due != NEVER).then(|| Duration::from_millis(due))
    }
}

/// The socket; tells the pace of arriving bytes.
pub(super) struct Socket {
    stream: TcpStream,
    pace: Arc<Pace>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, pace: Arc<Pace>) -> Self {
        Socket { stream, pace }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if self.pace.phase() == IDLE && into.filled().len() > before {
            self.pace.enter(HEAD, Some(self.pace.header_timeout));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pace.phase() != LINGERING {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.pace.lingers.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.pace.enter(LINGERING, Some(LINGER));
        }
        let mut scratch = [0; 16_384];
        loop {
            let mut into = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
            if into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
