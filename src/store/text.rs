//! Amounts and times as text columns, exactly, both ways.
//!
//! | what | text | |
//! |---|---|---|
//! | amount | `-12.5` | plain notation, at least one and at most nine fractional digits; any `i128` of nano-units |
//! | time | `2026-11-24T06:00:00.000000Z` | RFC 3339, UTC, always 27 characters: order of text is order of time |
//!
//! Sums go beyond what a single amount may be, which is why reading one back is not `Amount::from_str`. Times outside the
//! years 0001 to 9999 are clamped: RFC 3339 cannot express later ones, PostgreSQL has no year 0, and admission lets none in.

use std::fmt::Write;

use dataflows::types::{Amount, Micros};
use jiff::Timestamp;

/// First microsecond of year 1, proleptic.
pub(super) const FIRST_MICROS: i64 = -62_135_596_800_000_000;
/// Last microsecond of year 9999 that `Timestamp` can hold in every zone.
pub(super) const LAST_MICROS: i64 = 253_402_207_199_999_999;

/// Replaces `into` by an amount.
pub(super) fn put_amount(into: &mut String, amount: Amount) {
    into.clear();
    // Writing to a String cannot fail.
    let _ = write!(into, "{amount}");
}

/// Replaces `into` by a time.
pub(super) fn put_time(into: &mut String, at: Micros) {
    into.clear();
    let timestamp = Timestamp::from_microsecond(at.0.clamp(FIRST_MICROS, LAST_MICROS))
        .expect("the years 0001 to 9999 are within Timestamp");
    let _ = write!(into, "{timestamp:.6}");
}

/// A time as new text.
pub(super) fn time(at: Micros) -> String {
    let mut text = String::with_capacity(27);
    put_time(&mut text, at);
    text
}

/// Reads an amount back; none for what `put_amount` never writes.
pub(super) fn read_amount(text: &str) -> Option<Amount> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.')?;
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let mut nanos: i128 = 0;
    let padding = std::iter::repeat_n(b'0', 9 - fraction.len());
    for byte in whole.bytes().chain(fraction.bytes()).chain(padding) {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        let digit = i128::from(if negative { -(digit as i8) } else { digit as i8 });
        nanos = nanos.checked_mul(10)?.checked_add(digit)?;
    }
    Some(Amount(nanos))
}

/// Reads a time back; none for what `put_time` never writes.
pub(super) fn read_time(text: &str) -> Option<Micros> {
    text.parse::<Timestamp>().ok().map(|timestamp| Micros(timestamp.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_rfc_3339_of_fixed_width() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_795_500_000_000_001, "2026-11-24T06:00:00.000001Z"),
            (FIRST_MICROS, "0001-01-01T00:00:00.000000Z"),
            (i64::MIN, "0001-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(time(Micros(micros)), text);
        }
        assert_eq!(time(Micros(i64::MAX)).len(), 27);
    }

    #[test]
    fn what_was_not_written_here_is_not_read() {
        for text in ["", "-", "1", "1.", ".5", "1e3.0", "1.0000000001", "+1.0", "1.0 ", "--1.0", "1.-5"] {
            assert_eq!(read_amount(text), None, "{text}");
        }
        assert_eq!(read_amount("170141183460469231731687303715.884105728"), None, "one beyond i128");
    }

    proptest! {
        #[test]
        fn every_amount_comes_back(nanos in any::<i128>()) {
            for amount in [Amount(nanos), Amount(nanos >> 64), Amount(i128::MIN), Amount(i128::MAX)] {
                let mut text = String::new();
                put_amount(&mut text, amount);
                prop_assert_eq!(read_amount(&text), Some(amount));
            }
        }

        #[test]
        fn times_come_back_and_their_texts_are_in_order(
            one in FIRST_MICROS..=LAST_MICROS, other in FIRST_MICROS..=LAST_MICROS,
        ) {
            prop_assert_eq!(read_time(&time(Micros(one))), Some(Micros(one)));
            prop_assert_eq!(time(Micros(one)).cmp(&time(Micros(other))), one.cmp(&other));
            prop_assert_eq!(time(Micros(one)).len(), 27);
        }
    }
}
