//! Names of what is sent: a slice of usage has one, whoever computes it, whenever. In: what the slice is. Out: the `identifier`
//! of its meter event and the `Idempotency-Key` of an attempt.
//!
//! ```text
//! identifier       = "tt_" + hex(first 16 bytes of BLAKE3(len business, business, len customer, customer, len meter, meter,
//!                                                         period start, slice))      35 characters
//! idempotency key  = identifier                    first attempt, and again after one without an answer
//!                    identifier + "-" + n          behind n answers of 5xx, which Stripe would repeat under the same key
//! ```
//! Lengths, the start in microseconds and the slice are 8 bytes, little endian. This never changes: a slice that was sent
//! under one name before an update and under another behind it is billed twice.

use dataflows::types::Micros;

/// Longest `identifier` that Stripe takes, in characters.
pub const IDENTIFIER_CHARS_MAX: usize = 100;

/// What every identifier of ours begins with.
const PREFIX: &str = "tt_";
/// Hexadecimal digits of the hash: 128 bits.
const DIGITS: usize = 32;

/// The identifier of slice `slice` (from 0) of the period of a customer's meter that began at `period_start`. `customer` and
/// `meter` are our names of them: who bills may learn Stripe's later.
pub fn identifier(business: &str, customer: &str, meter: &str, period_start: Micros, slice: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in [business, customer, meter] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.update(&period_start.0.to_le_bytes()).update(&slice.to_le_bytes());
    format!("{PREFIX}{}", &hasher.finalize().to_hex()[..DIGITS])
}

/// The key of an attempt behind `failures` answers of 5xx.
pub fn idempotency_key(identifier: &str, failures: u32) -> String {
    if failures == 0 { identifier.to_owned() } else { format!("{identifier}-{failures}") }
}

/// The identifier of ours that a report of Stripe names: reports name the event's identifier or the request's key, which
/// begins with it. None if it is not ours.
pub fn reported(name: &str) -> Option<&str> {
    let (own, rest) = name.split_at_checked(PREFIX.len() + DIGITS)?;
    let digits = own.strip_prefix(PREFIX)?;
    let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && (rest.is_empty() || rest.starts_with('-'))).then_some(own)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const START: Micros = Micros(1_790_812_800_000_000);

    /// The digits are what PyPI's `blake3` makes of the same bytes. It is not installed to run this test.
    #[test]
    fn an_identifier_never_changes() {
        assert_eq!(identifier("biz_1", "cus_1", "mtr_1", START, 0), "tt_b1e94bda0d76aaa464652489a752337e");
    }

    #[test]
    fn every_part_of_a_slice_counts() {
        let all = [
            identifier("biz_1", "cus_1", "mtr_1", START, 0),
            identifier("biz_2", "cus_1", "mtr_1", START, 0),
            identifier("biz_1c", "us_1", "mtr_1", START, 0),
            identifier("biz_1", "cus_1m", "tr_1", START, 0),
            identifier("biz_1", "cus_1", "mtr_2", START, 0),
            identifier("biz_1", "cus_1", "mtr_1", Micros(START.0 + 1), 0),
            identifier("biz_1", "cus_1", "mtr_1", START, 1),
            identifier("", "", "", Micros(i64::MIN), u64::MAX),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for own in &all {
            assert!(idempotency_key(own, u32::MAX).len() <= IDENTIFIER_CHARS_MAX, "{own}");
        }
    }

    #[test]
    fn a_report_leads_back_to_the_slice() {
        let own = identifier("biz_1", "cus_1", "mtr_1", START, 7);
        assert_eq!(reported(&own), Some(own.as_str()));
        assert_eq!(reported(&idempotency_key(&own, 3)), Some(own.as_str()));
        for other in [
            "",
            "tt_",
            "cb447754-6880-45c2-8f2f-ef19b6ce81e9",
            &format!("{own}0"),
            &own.to_uppercase(),
            "tt_ééééééééééééééééé",
        ] {
            assert_eq!(reported(other), None, "{other}");
        }
    }
}
