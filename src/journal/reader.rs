//! Reading the chain back, one frame in memory at a time. A segment ends where no frame follows; whether that is its
//! end or damage says the next segment's header, which must begin exactly there.
//!
//! It never allocates more than the file is long, whatever a length field claims.

use std::fs::File;
use std::io::{self, BufReader, Read};

use dataflows::types::{Epoch, Micros};

use super::error::{OpenError, open_error};
use super::frame::{Chain, HEAD_BYTES, Head, claimed_length, decode};
use super::segment::{Found, HEADER_BYTES};
use super::{Kind, Position};

/// A frame that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number.
    pub lsn: u64,
    /// Arrival of everything in it; T for `Time`.
    pub stamp: Micros,
    /// What it is.
    pub kind: Kind,
    /// What was appended.
    pub payload: &'a [u8],
}

/// Frames in order, those of the writer included.
pub struct Frames {
    segments: Vec<Found>,
    /// Which of them is being read.
    index: usize,
    segment: SegmentReader,
    chain: Chain,
    /// Frames up to here are read and not given.
    after: u64,
    /// The end, where it is known: less than this is damage.
    end: Option<Position>,
    head: Option<Head>,
}

impl Frames {
    /// Reads `segments`, of which there is at least one, and gives what lies behind `after`.
    pub(super) fn open(segments: Vec<Found>, after: u64, end: Option<Position>) -> Result<Frames, OpenError> {
        let segment = SegmentReader::open(&segments[0])?;
        let chain = segments[0].header.chain;
        Ok(Frames { segments, index: 0, segment, chain, after, end, head: None })
    }

    /// The next frame; none at the end of the journal.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, OpenError> {
        while self.advance()? {
            if self.chain.position.lsn > self.after {
                return Ok(self.head.map(|head| Frame {
                    epoch: head.epoch,
                    lsn: head.lsn,
                    stamp: head.stamp,
                    kind: head.kind,
                    payload: &self.segment.payload,
                }));
            }
        }
        Ok(None)
    }

    /// Where the last frame read ends: the index of the segment, the offset in it, the chain.
    pub(super) fn reached(&self) -> (usize, u64, Chain) {
        (self.index, self.segment.offset, self.chain)
    }

    /// What kind of frame was read last.
    pub(super) fn last_kind(&self) -> Option<Kind> {
        self.head.map(|head| head.kind)
    }

    /// The refusal of the frame that should come next.
    pub(super) fn refuse(&self, why: &'static str) -> OpenError {
        OpenError::Damaged {
            segment: self.segments[self.index].name.clone(),
            offset: self.segment.offset,
            lsn: self.chain.position.lsn + 1,
            why,
        }
    }

    /// Why no frame follows the last one in its segment.
    pub(super) fn why(&self) -> &'static str {
        self.segment.why
    }

    fn advance(&mut self) -> Result<bool, OpenError> {
        loop {
            let read = self.segment.next(&mut self.chain);
            let path = &self.segments[self.index].path;
            if let Some(head) = read.map_err(open_error("read", path))? {
                self.head = Some(head);
                return Ok(true);
            }
            let Some(next) = self.segments.get(self.index + 1) else {
                let end = self.end.unwrap_or(self.chain.position);
                return if self.chain.position == end {
                    Ok(false)
                } else {
                    Err(self.refuse(self.segment.why))
                };
            };
            if next.header.chain != self.chain {
                return Err(self.refuse(self.segment.why));
            }
            self.segment = SegmentReader::open(next)?;
            self.index += 1;
        }
    }
}

struct SegmentReader {
    file: BufReader<File>,
    /// Where the next frame is expected.
    offset: u64,
    bytes: u64,
    payload: Vec<u8>,
    /// Why the last `next` gave nothing.
    why: &'static str,
}

impl SegmentReader {
    fn open(found: &Found) -> Result<SegmentReader, OpenError> {
        let mut file = File::open(&found.path).map_err(open_error("read", &found.path))?;
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact(&mut header).map_err(open_error("read", &found.path))?;
        Ok(SegmentReader {
            file: BufReader::with_capacity(1 << 18, file),
            offset: HEADER_BYTES,
            bytes: found.bytes,
            payload: Vec::new(),
            why: "",
        })
    }

    /// The next frame, its payload in `self.payload`; none where no frame follows, and then never again.
    fn next(&mut self, chain: &mut Chain) -> io::Result<Option<Head>> {
        if !self.why.is_empty() {
            return Ok(None);
        }
        let head = self.read()?.and_then(|head| {
            let head = decode(&head, &self.payload, chain.salt)?;
            chain.accept(&head).map(|()| head)
        });
        match head {
            Ok(head) => self.offset += HEAD_BYTES as u64 + u64::from(head.length),
            Err(why) => self.why = why,
        }
        Ok(head.ok())
    }

    fn read(&mut self) -> io::Result<Result<[u8; HEAD_BYTES], &'static str>> {
        const ENDS: &str = "the file ends within the frame";
        let mut head = [0; HEAD_BYTES];
        let left = self.bytes.saturating_sub(self.offset);
        if left < HEAD_BYTES as u64 {
            return Ok(Err(ENDS));
        }
        self.file.read_exact(&mut head)?;
        if head == [0; HEAD_BYTES] {
            return Ok(Err("there are zeros instead of the frame"));
        }
        let length = u64::from(claimed_length(&head));
        if length > left - HEAD_BYTES as u64 {
            return Ok(Err(ENDS));
        }
        self.payload.clear();
        let read = (&mut self.file).take(length).read_to_end(&mut self.payload)?;
        Ok(if read as u64 == length { Ok(head) } else { Err(ENDS) })
    }
}
