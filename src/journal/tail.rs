//! A torn tail or damage: what lies behind the last frame of the chain.
//!
//! A group is one write and one fsync, and nothing is written before the group before it is durable: each frame says
//! so in `synced`. A power cut can leave any sectors of the last group unwritten, in any order; these read as zeros,
//! because the segment was written with zeros. So, at the first frame that is not valid in its place:
//!
//! | behind it | verdict |
//! |---|---|
//! | only zeros | clean |
//! | a valid frame that was written when this one was already durable | damage |
//! | valid frames of its own group, and a lost sector between | torn |
//! | valid frames of its own group, no sector lost | damage |
//! | no valid frame | torn |
//!
//! What cannot be told: damage to the last group itself, with nothing valid behind it, looks torn.

use super::frame::{Chain, HEAD_BYTES, Head, claimed_length, decode, field};

/// The least unit that a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// What the bytes behind the chain are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Zeros.
    Clean,
    /// A group that never became durable.
    Torn,
    /// Something that was durable is not there any more.
    Damaged,
}

/// Judges `rest`, which begins at `offset` of the segment and reaches to its end.
pub(super) fn judge(rest: &[u8], offset: u64, chain: &Chain) -> Tail {
    if rest.iter().all(|&byte| byte == 0) {
        return Tail::Clean;
    }
    let missing = chain.position.lsn + 1;
    let (mut at, mut first_valid) = (0, None);
    while let Some(frame) = rest.get(at..).filter(|frame| frame.len() >= HEAD_BYTES) {
        match valid(frame, chain.salt, missing) {
            Some(head) if head.synced >= missing => return Tail::Damaged,
            Some(head) => {
                first_valid.get_or_insert(at);
                at += HEAD_BYTES + head.length as usize;
            }
            None => at += 1,
        }
    }
    match first_valid {
        Some(at) if !sector_lost(&rest[..at], offset) => Tail::Damaged,
        _ => Tail::Torn,
    }
}

/// The frame at the beginning of `bytes`, if it is one by itself and its number is not before `missing`.
fn valid(bytes: &[u8], salt: u32, missing: u64) -> Option<Head> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    // Cheap first, for this is asked at every byte: no more frames are missing than there is room for.
    let ahead = u64::from_le_bytes(field(head, 16)).checked_sub(missing)?;
    if ahead > bytes.len() as u64 {
        return None;
    }
    let payload = rest.get(..claimed_length(head) as usize)?;
    decode(head, payload, salt).ok()
}

/// Whether `gap`, which begins at `offset`, holds all that it has of some sector as zeros, up to the sector's end.
fn sector_lost(gap: &[u8], offset: u64) -> bool {
    let to_boundary = SECTOR_BYTES - (offset % SECTOR_BYTES as u64) as usize;
    let Some((first, rest)) = gap.split_at_checked(to_boundary) else {
        return false;
    };
    let zero = |sector: &[u8]| sector.iter().all(|&byte| byte == 0);
    zero(first) || rest.chunks_exact(SECTOR_BYTES).any(zero)
}

#[cfg(test)]
mod tests {
    use dataflows::types::Micros;
    use proptest::prelude::*;

    use super::super::{Kind, Position, frame::salt};
    use super::*;

    const OFFSET: u64 = 700;

    fn chain() -> Chain {
        Chain { salt: salt(1), position: Position { epoch: 5, lsn: 5, ..Position::default() }, crc: 3 }
    }

    /// Frames 6, 7, ... with payloads of ones, each written when `synced` said so.
    fn frames(frames: &[(usize, u64)]) -> Vec<u8> {
        let (mut chain, mut bytes) = (chain(), Vec::new());
        for &(length, synced) in frames {
            let start = bytes.len();
            bytes.resize(start + HEAD_BYTES, 0);
            bytes.resize(start + HEAD_BYTES + length, 1);
            chain.append(&mut bytes, start, Kind::Updates, Micros(1), synced);
        }
        bytes
    }

    fn judged(bytes: &[u8]) -> Tail {
        judge(bytes, OFFSET, &chain())
    }

    #[test]
    fn zeros_are_clean_and_garbage_is_torn() {
        assert_eq!(judged(&[]), Tail::Clean);
        assert_eq!(judged(&[0; 5000]), Tail::Clean);
        assert_eq!(judged(&[0xa5; 5000]), Tail::Torn);
        assert_eq!(judged(&frames(&[(100, 5)])[..120]), Tail::Torn);
    }

    #[test]
    fn any_flipped_bit_before_a_later_group_is_damage() {
        let bytes = frames(&[(20, 5), (20, 6)]);
        for bit in 0..(HEAD_BYTES + 20) * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(judged(&bytes), Tail::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn lost_sectors_of_the_last_group_are_torn_and_flipped_bits_in_it_are_not() {
        let whole = frames(&[(2000, 5), (100, 5)]);
        let mut flipped = whole.clone();
        flipped[1500] ^= 4;
        assert_eq!(judged(&flipped), Tail::Damaged);
        for sector in [0..324, 324..836, 836..1348] {
            let mut lost = whole.clone();
            lost[sector].fill(0);
            assert_eq!(judged(&lost), Tail::Torn);
        }
        let mut partly = whole;
        partly[400..900].fill(0);
        assert_eq!(judged(&partly), Tail::Damaged, "no disk loses half a sector");
    }

    #[test]
    fn a_lost_sector_before_a_later_group_is_damage() {
        let mut bytes = frames(&[(2000, 5), (100, 6)]);
        bytes[324..836].fill(0);
        assert_eq!(judged(&bytes), Tail::Damaged);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 255]), 0..800)) {
            prop_assert!(judged(&bytes) != Tail::Damaged);
        }
    }
}
