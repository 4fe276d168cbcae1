//! Decompression in front of the reader, chunk by chunk: gzip (RFC 1952, several members) and zstd (RFC 8878, several
//! frames, skippable ones too).
//!
//! In: chunks as they came. Out: pieces of at most `PIECE_BYTES`, never more together than the caller's bound. Memory: one
//! piece and the window of the format (gzip 32 KiB, zstd at most 8 MiB). Checksums are verified by the crates. A bomb is
//! known by its ratio long before it has filled the bound; at which byte it is known depends on the chunks. The encodings
//! are not nested.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::{Broken, Encoding};

/// Bytes that one compressed byte may become. Events with ids and times of their own come to 10 to 50, one line
/// repeated without end to 300 and more.
pub const RATIO_MAX: u64 = 200;
/// Bytes for which the ratio is not asked, so that some ten thousand equal events pass: they are cheap to write and to read.
pub const RATIO_FREE_BYTES: u64 = 4_194_304;
/// The greatest window of a zstd frame, as a power of two: what RFC 8878 recommends to support, and what every level but the
/// `--ultra` ones stays below.
pub const WINDOW_LOG_MAX: u32 = 23;
/// Bytes handed on at once.
const PIECE_BYTES: usize = 65_536;

pub struct Inflate {
    machine: Machine,
    /// Whether the stream may end here: behind a member or a frame.
    is_between: bool,
    bytes_max: u64,
    taken: u64,
    given: u64,
    /// The last piece was full: the machine may hold more.
    is_full: bool,
    piece: Vec<u8>,
}

enum Machine {
    Identity,
    Gzip(Decompress),
    Zstd(Decoder<'static>),
}

/// What a stream is stopped by.
pub enum Stop {
    /// It is broken: how.
    Malformed(String),
    /// It ends within a member or a frame, or before the first one.
    Truncated,
    /// More than the caller's bound.
    TooLarge,
    /// A bomb.
    TooMuch,
    /// By the reader of what comes out.
    Reader(Broken),
}

impl Inflate {
    /// A stream that may become at most so many bytes.
    pub fn new(encoding: Encoding, bytes_max: u64) -> Self {
        let machine = match encoding {
            Encoding::Identity => Machine::Identity,
            Encoding::Gzip => Machine::Gzip(gzip()),
            Encoding::Zstd => Machine::Zstd(zstd()),
        };
        let piece = if encoding == Encoding::Identity { Vec::new() } else { vec![0; PIECE_BYTES] };
        let is_between = encoding == Encoding::Identity;
        Inflate { machine, is_between, bytes_max, taken: 0, given: 0, is_full: false, piece }
    }

    /// Hands on a piece of what a chunk becomes and leaves the rest of the chunk; whether there is more to come of it.
    pub fn push(
        &mut self,
        bytes: &mut &[u8],
        hand_on: &mut impl FnMut(&[u8]) -> Result<(), Broken>,
    ) -> Result<bool, Stop> {
        if matches!(self.machine, Machine::Identity) {
            return self.give(std::mem::take(bytes), hand_on).map(|()| false);
        }
        if bytes.is_empty() && !self.is_full {
            return Ok(false);
        }
        let (read, written) = self.step(bytes)?;
        if read + written == 0 && !bytes.is_empty() {
            return Err(Stop::Malformed("it stands still".to_owned()));
        }
        *bytes = &bytes[read..];
        self.taken += read as u64;
        self.is_full = written == PIECE_BYTES && !self.is_between;
        if self.given + written as u64 > RATIO_FREE_BYTES.max(self.taken.saturating_mul(RATIO_MAX)) {
            return Err(Stop::TooMuch);
        }
        let piece = std::mem::take(&mut self.piece);
        let given = self.give(&piece[..written], hand_on);
        self.piece = piece;
        given.map(|()| !bytes.is_empty() || self.is_full)
    }

    /// The stream has ended.
    pub fn finish(&self) -> Result<(), Stop> {
        if self.is_between { Ok(()) } else { Err(Stop::Truncated) }
    }

    /// One step of the machine into the piece: bytes read and written.
    fn step(&mut self, bytes: &[u8]) -> Result<(usize, usize), Stop> {
        match &mut self.machine {
            Machine::Identity => Ok((bytes.len(), 0)),
            Machine::Gzip(machine) => {
                if self.is_between {
                    *machine = gzip();
                }
                let (before_in, before_out) = (machine.total_in(), machine.total_out());
                let status = machine
                    .decompress(bytes, &mut self.piece, FlushDecompress::None)
                    .map_err(|error| Stop::Malformed(error.to_string()))?;
                self.is_between = status == Status::StreamEnd;
                Ok(((machine.total_in() - before_in) as usize, (machine.total_out() - before_out) as usize))
            }
            Machine::Zstd(decoder) => {
                let status = decoder
                    .run_on_buffers(bytes, &mut self.piece)
                    .map_err(|error| Stop::Malformed(error.to_string()))?;
                self.is_between = status.remaining == 0;
                Ok((status.bytes_read, status.bytes_written))
            }
        }
    }

    /// Hands on what is within the bound, so that the items before it do not depend on the chunks.
    fn give(
        &mut self,
        piece: &[u8],
        hand_on: &mut impl FnMut(&[u8]) -> Result<(), Broken>,
    ) -> Result<(), Stop> {
        let room = usize::try_from(self.bytes_max - self.given).unwrap_or(usize::MAX);
        let within = &piece[..piece.len().min(room)];
        self.given += within.len() as u64;
        hand_on(within).map_err(Stop::Reader)?;
        if within.len() < piece.len() { Err(Stop::TooLarge) } else { Ok(()) }
    }
}

impl Stop {
    /// The same to the caller of the batch, of which so many items have been given.
    pub fn into_broken(self, items: u32) -> Broken {
        match self {
            Stop::Malformed(how) => Broken::malformed(
                items,
                "malformed_encoding",
                format!("the compressed body is broken: {how}"),
            ),
            Stop::Truncated => {
                Broken::malformed(items, "truncated_encoding", "the compressed body ends before its end")
            }
            Stop::TooLarge => {
                Broken::too_large(items, "inflated_too_large", "the body is larger than a batch may be")
            }
            Stop::TooMuch => {
                let detail = format!("the body becomes more than {RATIO_MAX} times as large as it came");
                Broken::too_large(items, "inflated_too_much", detail)
            }
            Stop::Reader(broken) => broken,
        }
    }
}

fn gzip() -> Decompress {
    /// The window of every gzip stream, as a power of two.
    const WINDOW_LOG: u8 = 15;
    Decompress::new_gzip(WINDOW_LOG)
}

fn zstd() -> Decoder<'static> {
    let mut decoder = Decoder::new().expect("the allocator aborts where memory ends");
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).expect("10 to 31 is legal");
    decoder
}
