//! Frames: how epochs lie in a segment, and the chain that they form.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of everything behind this field, payload included, begun with the journal's salt |
//! | 4 | 4 | length of the payload |
//! | 8 | 4 | CRC of the frame before: the chain |
//! | 12 | 1 | kind; then three zero bytes |
//! | 16 | 8 | lsn |
//! | 24 | 8 | epoch |
//! | 32 | 8 | stamp, microseconds |
//! | 40 | 8 | synced: every frame up to this lsn was durable before this one was written |
//! | 48 | length | payload |
//!
//! Little-endian. A frame is valid by itself (CRC) or also in its place (`Chain::accept`): the first is what tells a torn
//! tail from damage (`tail`). The salt is the CRC of the journal's random id, so that no client can place bytes in a
//! payload that look like a frame. Zeros are never a frame: kind 0 does not exist.

use dataflows::types::{Epoch, Micros};

use super::{Kind, Position};

/// Bytes before the payload.
pub(super) const HEAD_BYTES: usize = 48;

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub crc: u32,
    pub length: u32,
    pub previous: u32,
    pub kind: Kind,
    pub lsn: u64,
    pub epoch: Epoch,
    pub stamp: Micros,
    pub synced: u64,
}

/// Where a chain of frames has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Begins every CRC.
    pub salt: u32,
    /// The last frame.
    pub position: Position,
    /// Its CRC.
    pub crc: u32,
}

/// The salt of a journal.
pub(super) fn salt(journal_id: u128) -> u32 {
    crc32c::crc32c(&journal_id.to_le_bytes())
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Clock, Definitions, Seal, Start, Time, Updates};
        [Updates, Definitions, Time, Clock, Start, Seal].into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// Reads a little-endian field of `N` bytes. The caller has checked the length.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the caller has checked the length")
}

/// The payload's length as the head claims it, unchecked.
pub(super) fn claimed_length(head: &[u8; HEAD_BYTES]) -> u32 {
    u32::from_le_bytes(field(head, 4))
}

/// Reads a frame that is valid by itself; else says what is wrong.
pub(super) fn decode(head: &[u8; HEAD_BYTES], payload: &[u8], salt: u32) -> Result<Head, &'static str> {
    let crc = u32::from_le_bytes(field(head, 0));
    if crc32c::crc32c_append(crc32c::crc32c_append(salt, &head[4..]), payload) != crc {
        return Err("the checksum does not match");
    }
    Ok(Head {
        crc,
        length: claimed_length(head),
        previous: u32::from_le_bytes(field(head, 8)),
        kind: Kind::from_byte(head[12]).ok_or("the kind of the frame is unknown")?,
        lsn: u64::from_le_bytes(field(head, 16)),
        epoch: u64::from_le_bytes(field(head, 24)),
        stamp: Micros(i64::from_le_bytes(field(head, 32))),
        synced: u64::from_le_bytes(field(head, 40)),
    })
}

impl Chain {
    /// Completes the frame that begins at `start` of `buffer`: `HEAD_BYTES` of anything, then the payload to the end.
    pub fn append(&mut self, buffer: &mut [u8], start: usize, kind: Kind, stamp: Micros, synced: u64) {
        let frame = &mut buffer[start..];
        let length = u32::try_from(frame.len() - HEAD_BYTES).expect("appends are bounded far below 4 GiB");
        let (lsn, epoch) = (self.position.lsn + 1, self.position.epoch + 1);
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        frame[8..12].copy_from_slice(&self.crc.to_le_bytes());
        frame[12..16].copy_from_slice(&[kind as u8, 0, 0, 0]);
        frame[16..24].copy_from_slice(&lsn.to_le_bytes());
        frame[24..32].copy_from_slice(&epoch.to_le_bytes());
        frame[32..40].copy_from_slice(&stamp.0.to_le_bytes());
        frame[40..48].copy_from_slice(&synced.to_le_bytes());
        let crc = crc32c::crc32c_append(self.salt, &frame[4..]);
        frame[..4].copy_from_slice(&crc.to_le_bytes());
        self.pass(kind, lsn, epoch, stamp, crc);
    }

    /// Goes on to a frame that is valid by itself, if it is the next one; else says what is wrong.
    pub fn accept(&mut self, head: &Head) -> Result<(), &'static str> {
        if head.previous != self.crc || head.lsn != self.position.lsn + 1 || head.epoch <= self.position.epoch
        {
            return Err("the frame does not follow the one before it");
        }
        self.pass(head.kind, head.lsn, head.epoch, head.stamp, head.crc);
        Ok(())
    }

    fn pass(&mut self, kind: Kind, lsn: u64, epoch: Epoch, stamp: Micros, crc: u32) {
        let time = match kind {
            Kind::Time => stamp,
            // Time went back: T counts from there, or nothing would be due until the old time is reached again.
            Kind::Clock => self.position.time.min(Micros::from_seconds(stamp.seconds())),
            _ => self.position.time,
        };
        self.position = Position { epoch, lsn, stamp, time };
        self.crc = crc;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: u32 = 7;

    fn chain() -> Chain {
        let position = Position { epoch: 4, lsn: 9, stamp: Micros(8_500_000), time: Micros(8_000_000) };
        Chain { salt: SALT, position, crc: 99 }
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xee; HEAD_BYTES];
        bytes.extend_from_slice(payload);
        chain().append(&mut bytes, 0, Kind::Updates, Micros(8_600_000), 7);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Head, &'static str> {
        let (head, payload) = bytes.split_first_chunk().ok_or("short")?;
        decode(head, payload, SALT)
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_and_is_accepted_in_its_place(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let head = read(&frame(&payload)).expect("it was just written");
            prop_assert_eq!((head.lsn, head.epoch, head.synced, head.length), (10, 5, 7, payload.len() as u32));
            let mut next = chain();
            prop_assert_eq!(next.accept(&head), Ok(()));
            prop_assert_eq!(next.position.stamp, Micros(8_600_000));
            prop_assert!(next.accept(&head).is_err(), "not twice");
        }

        #[test]
        fn a_flipped_bit_or_a_missing_byte_is_never_a_frame(
            payload in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(),
        ) {
            let mut bytes = frame(&payload);
            let bit = at.index(bytes.len() * 8);
            prop_assert!(read(&bytes[..bytes.len() - 1]).is_err());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(read(&bytes).is_err());
        }
    }

    #[test]
    fn zeros_and_frames_of_another_journal_are_no_frames() {
        assert!(read(&[0; HEAD_BYTES]).is_err());
        let bytes = frame(b"payload");
        let (head, payload) = bytes.split_first_chunk().expect("longer than a head");
        assert!(decode(head, payload, SALT + 1).is_err());
    }

    #[test]
    fn a_valid_frame_in_another_place_is_not_accepted() {
        let head = read(&frame(b"payload")).expect("valid");
        let (mut other_crc, mut later, mut other_epoch) = (chain(), chain(), chain());
        other_crc.crc += 1;
        later.position.lsn -= 1;
        other_epoch.position.epoch += 1;
        for mut chain in [other_crc, later, other_epoch] {
            assert!(chain.accept(&head).is_err(), "{chain:?}");
        }
    }

    #[test]
    fn a_clock_entry_that_goes_back_takes_time_back_and_one_that_goes_forward_does_not() {
        let mut chain = chain();
        let mut bytes = vec![0; HEAD_BYTES];
        chain.append(&mut bytes, 0, Kind::Clock, Micros(5_700_000), 0);
        assert_eq!(chain.position.time, Micros(5_000_000));
        chain.append(&mut bytes, 0, Kind::Clock, Micros(95_700_000), 0);
        assert_eq!(chain.position.time, Micros(5_000_000));
    }
}
