//! How updates lie in the journal: about 20 bytes each, without ids.
//!
//! ```text
//! payload := ([chunk] request)*
//! chunk   := head:varint (1)  load:16  number:16        the request behind it is this chunk of a load
//! request := head:varint (items << 1 | keyed)  [key_hash:16  fingerprint:16]  item*
//! item    := flags:1  series:varint  [event_at:8, microseconds]  amount:varint  [id:12, upper 96 bits of EventId]
//! flags   := bit 0: has event_at · bit 1: has id · bit 2: the amount is in whole units, not nano-units
//! ```
//! Varints are LEB128; amounts are zigzag-encoded first. Fixed integers are little-endian. An item without `event_at`
//! happened at its arrival, which is the stamp of its frame.

use thiserror::Error;

use super::{Amount, EventId, Micros, SeriesId};

/// One update as it is journaled, not yet stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The series.
    pub series: SeriesId,
    /// The event time; none is the arrival.
    pub event_at: Option<Micros>,
    /// The amount.
    pub amount: Amount,
    /// The id, if it carries one.
    pub id: Option<EventId>,
}

/// What a request with an `Idempotency-Key` leaves in the journal, so that a start rebuilds the table of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Hash of business and key.
    pub key_hash: u128,
    /// Hash of the parsed request.
    pub fingerprint: u128,
}

/// A part of a load. Its request counts once, as a whole: a repeat of it is in the journal, and skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadChunk {
    /// Hash of business and load.
    pub load: u128,
    /// Which.
    pub number: u32,
}

/// A payload that was not written by this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the payload of updates ends or overflows in the middle of an item")]
pub struct Malformed;

const HAS_EVENT_AT: u8 = 1;
const HAS_ID: u8 = 2;
const WHOLE_UNITS: u8 = 4;

/// Appends one request.
pub fn pack<'a>(
    into: &mut Vec<u8>,
    keyed: Option<Keyed>,
    items: impl IntoIterator<Item = &'a Item, IntoIter: ExactSizeIterator>,
) {
    let items = items.into_iter();
    put_varint(into, (items.len() as u128) << 1 | u128::from(keyed.is_some()));
    if let Some(keyed) = keyed {
        into.extend_from_slice(&keyed.key_hash.to_le_bytes());
        into.extend_from_slice(&keyed.fingerprint.to_le_bytes());
    }
    for item in items {
        pack_item(into, item);
    }
}

fn pack_item(into: &mut Vec<u8>, item: &Item) {
    let whole = item.amount.0 % Amount::UNIT == 0;
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    into.push(
        flag(item.event_at.is_some(), HAS_EVENT_AT)
            | flag(item.id.is_some(), HAS_ID)
            | flag(whole, WHOLE_UNITS),
    );
    put_varint(into, u128::from(item.series.0));
    if let Some(event_at) = item.event_at {
        into.extend_from_slice(&event_at.0.to_le_bytes());
    }
    put_varint(into, zigzag(if whole { item.amount.0 / Amount::UNIT } else { item.amount.0 }));
    if let Some(id) = item.id {
        into.extend_from_slice(&id.0.to_le_bytes()[4..]);
    }
}

/// Appends what makes the request behind it a chunk of a load. A head of no items with a key: no request is so.
pub fn pack_chunk(into: &mut Vec<u8>, chunk: LoadChunk) {
    put_varint(into, 1);
    into.extend_from_slice(&chunk.load.to_le_bytes());
    into.extend_from_slice(&u128::from(chunk.number).to_le_bytes());
}

/// Reads a payload: one callback an item, one a request's key, and one a chunk, which says whether its items are read.
pub fn unpack(
    mut bytes: &[u8],
    mut on_key: impl FnMut(Keyed),
    mut on_chunk: impl FnMut(LoadChunk) -> bool,
    mut on_item: impl FnMut(Item),
) -> Result<(), Malformed> {
    let mut is_read = true;
    while !bytes.is_empty() {
        let head = take_varint(&mut bytes)?;
        let (items, mut words) = (head >> 1, [0; 2]);
        if head & 1 == 1 {
            words = [u128::from_le_bytes(take(&mut bytes)?), u128::from_le_bytes(take(&mut bytes)?)];
        }
        if head == 1 {
            let number = u32::try_from(words[1]).map_err(|_| Malformed)?;
            is_read = on_chunk(LoadChunk { load: words[0], number });
            continue;
        }
        if head & 1 == 1 && is_read {
            on_key(Keyed { key_hash: words[0], fingerprint: words[1] });
        }
        for _ in 0..items {
            let item = unpack_item(&mut bytes)?;
            if is_read {
                on_item(item);
            }
        }
        is_read = true;
    }
    Ok(())
}

fn unpack_item(bytes: &mut &[u8]) -> Result<Item, Malformed> {
    let [flags] = take(bytes)?;
    let series = SeriesId(u32::try_from(take_varint(bytes)?).map_err(|_| Malformed)?);
    let event_at = match flags & HAS_EVENT_AT {
        0 => None,
        _ => Some(Micros(i64::from_le_bytes(take(bytes)?))),
    };
    let count = unzigzag(take_varint(bytes)?);
    let unit = if flags & WHOLE_UNITS == 0 { 1 } else { Amount::UNIT };
    let amount = Amount(count.checked_mul(unit).ok_or(Malformed)?);
    let id = match flags & HAS_ID {
        0 => None,
        _ => {
            let mut hash = [0; 16];
            hash[4..].copy_from_slice(&take::<12>(bytes)?);
            Some(EventId::new(u128::from_le_bytes(hash), series))
        }
    };
    Ok(Item { series, event_at, amount, id })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*head)
}

fn put_varint(into: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u128, Malformed> {
    let mut value = 0u128;
    for shift in (0..128).step_by(7) {
        let [byte] = take(bytes)?;
        value |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)) as u128
}

fn unzigzag(value: u128) -> i128 {
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item() -> impl Strategy<Value = Item> {
        let amount = prop_oneof![
            -Amount::LIMIT.0..=Amount::LIMIT.0,
            (-1000i128..1000).prop_map(|units| units * Amount::UNIT),
        ];
        (any::<u32>(), any::<Option<i64>>(), amount, any::<Option<u128>>()).prop_map(
            |(series, at, nanos, hash)| {
                let series = SeriesId(series);
                let id = hash.map(|hash| EventId::new(hash, series));
                Item { series, event_at: at.map(Micros), amount: Amount(nanos), id }
            },
        )
    }

    fn request() -> impl Strategy<Value = (Option<Keyed>, Vec<Item>)> {
        let keyed = any::<Option<(u128, u128)>>()
            .prop_map(|keyed| keyed.map(|(key_hash, fingerprint)| Keyed { key_hash, fingerprint }));
        (keyed, proptest::collection::vec(item(), 1..5))
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(requests in proptest::collection::vec(request(), 0..5)) {
            let (mut bytes, mut keys, mut items) = (Vec::new(), Vec::new(), Vec::new());
            for (keyed, items) in &requests {
                pack(&mut bytes, *keyed, items);
            }
            let unpacked = unpack(&bytes, |key| keys.push(key), |_| false, |item| items.push(item));
            prop_assert_eq!(unpacked, Ok(()));
            prop_assert_eq!(keys, requests.iter().filter_map(|request| request.0).collect::<Vec<_>>());
            prop_assert_eq!(items, requests.into_iter().flat_map(|request| request.1).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_is_refused_or_read_but_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&bytes, |_| (), |_| true, |_| ());
        }
    }

    #[test]
    fn a_chunk_that_is_not_wanted_is_skipped_and_nothing_else() {
        let item = |series| Item {
            series: SeriesId(series),
            event_at: None,
            amount: Amount::from_units(1),
            id: None,
        };
        let (mut bytes, mut chunks, mut series) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..2 {
            pack_chunk(&mut bytes, LoadChunk { load: 7, number });
            pack(&mut bytes, None, &[item(number * 2), item(number * 2)]);
            pack(&mut bytes, None, &[item(number * 2 + 1)]);
        }
        let wants = |chunk: LoadChunk| {
            chunks.push(chunk);
            chunk.number == 1
        };
        assert_eq!(unpack(&bytes, |_| (), wants, |item| series.push(item.series.0)), Ok(()));
        assert_eq!(chunks, [0, 1].map(|number| LoadChunk { load: 7, number }));
        assert_eq!(series, [1, 2, 2, 3]);
    }

    #[test]
    fn an_update_of_whole_units_is_small() {
        let mut bytes = Vec::new();
        let item =
            Item { series: SeriesId(500_000), event_at: None, amount: Amount::from_units(50), id: None };
        pack(&mut bytes, None, &[item]);
        assert_eq!(bytes.len(), 6);
    }
}
