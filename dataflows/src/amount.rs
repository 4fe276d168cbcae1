//! Amounts: decimals with nine fractional digits, held as a count of nano-units in an `i128`.
//!
//! In: the text of a JSON number. Out: plain decimal text. Sums are exact; no `f64` is on any path an amount takes.
//! Wrapping addition keeps the group laws; admission refuses amounts above 10^15 units, so that 10^14 of them add up
//! without wrapping.

use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A decimal amount, in nano-units (10^-9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Amount(pub i128);

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmountError {
    /// Not a JSON number.
    #[error("not a decimal number")]
    Malformed,
    /// The magnitude is above `Amount::LIMIT`.
    #[error("the magnitude is above 10^15")]
    OutOfRange,
}

impl Amount {
    /// Nano-units in a unit.
    pub const UNIT: i128 = 1_000_000_000;
    /// The greatest magnitude of a single amount: 10^15 units.
    pub const LIMIT: Amount = Amount(1_000_000_000_000_000 * Self::UNIT);
    /// Nothing.
    pub const ZERO: Amount = Amount(0);
    /// Fractional digits.
    const DIGITS: i64 = 9;

    /// Whole units.
    pub const fn from_units(units: i64) -> Self {
        Amount(units as i128 * Self::UNIT)
    }

    /// `self / count`, half to even at nine digits. Panics if `count` is 0.
    pub fn mean(self, count: u64) -> Amount {
        let divisor = i128::from(count);
        let (quotient, rest) = (self.0.div_euclid(divisor), self.0.rem_euclid(divisor));
        let up = match (rest * 2).cmp(&divisor) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => quotient & 1 == 1,
            std::cmp::Ordering::Greater => true,
        };
        Amount(quotient + i128::from(up))
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    /// Reads a JSON number (RFC 8259, section 6) exactly; more than nine fractional digits round half to even.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        plain(text.as_bytes()).map_or_else(|| any_form(text), Ok)
    }
}

/// The shorter way for what almost every client sends: no exponent, at most 15 digits before the point, nine behind it and
/// 19 characters together, which fit into 64 bits. None may still be an amount.
fn plain(text: &[u8]) -> Option<Amount> {
    const POWERS: [u64; 10] =
        [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 19 || matches!(digits, [b'0', b'0'..=b'9', ..]) {
        return None;
    }
    let (mut mantissa, mut point) = (0u64, None);
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let (whole, fraction) = match point {
        Some(at) => (at, digits.len() - at - 1),
        None => (digits.len(), 0),
    };
    if !(1..=15).contains(&whole) || fraction > 9 || (point.is_some() && fraction == 0) {
        return None;
    }
    let nanos = i128::from(mantissa) * i128::from(POWERS[9 - fraction]);
    Some(Amount(if negative { -nanos } else { nanos }))
}

/// Any JSON number.
fn any_form(text: &str) -> Result<Amount, AmountError> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], parse_exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return Err(AmountError::Malformed),
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !digits_only(whole) || !digits_only(fraction) {
        return Err(AmountError::Malformed);
    }
    // The k-th digit (from 0) counts 10^(last - k) nano-units.
    let last = whole.len() as i64 - 1 + exponent + Amount::DIGITS;
    let mut nanos: i128 = 0;
    let (mut half_digit, mut beyond_half) = (0, false);
    for (position, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let digit = digit - b'0';
        match last - position as i64 {
            power if digit == 0 || power < -1 => beyond_half |= digit != 0,
            -1 => half_digit = digit,
            power if power > 24 => return Err(AmountError::OutOfRange),
            power => nanos += i128::from(digit) * 10i128.pow(power as u32),
        }
    }
    let up = half_digit > 5 || half_digit == 5 && (beyond_half || nanos & 1 == 1);
    nanos += i128::from(up);
    if nanos > Amount::LIMIT.0 {
        return Err(AmountError::OutOfRange);
    }
    Ok(Amount(if negative { -nanos } else { nanos }))
}

/// An exponent, clamped to where it no longer matters.
fn parse_exponent(text: &str) -> Result<i64, AmountError> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AmountError::Malformed);
    }
    const CLAMP: i64 = 1 << 40;
    let magnitude = digits.bytes().fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(CLAMP));
    Ok(sign * magnitude)
}

impl fmt::Display for Amount {
    /// Plain notation with at least one fractional digit: `150.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let unit = Self::UNIT as u128;
        let (whole, mut fraction) = (magnitude / unit, (magnitude % unit) as u32);
        let mut digits = Self::DIGITS as usize;
        while digits > 1 && fraction.is_multiple_of(10) {
            (fraction, digits) = (fraction / 10, digits - 1);
        }
        f.write_str(if self.0 < 0 { "-" } else { "" })?;
        // Almost every amount fits, and 64 bits are written several times faster.
        match u64::try_from(whole) {
            Ok(whole) => write!(f, "{whole}.{fraction:0digits$}"),
            Err(_) => write!(f, "{whole}.{fraction:0digits$}"),
        }
    }
}

impl Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount(self.0.wrapping_add(other.0))
    }
}

impl Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Amount) -> Amount {
        Amount(self.0.wrapping_sub(other.0))
    }
}

impl Neg for Amount {
    type Output = Amount;
    fn neg(self) -> Amount {
        Amount(self.0.wrapping_neg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<i128, AmountError> {
        text.parse::<Amount>().map(|amount| amount.0)
    }

    #[test]
    fn numbers_are_read_from_their_text() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("50.0", 50_000_000_000),
            ("0.1", 100_000_000),
            ("0.30000000000000004", 300_000_000),
            ("0.0000000005", 0),
            ("0.0000000015", 2),
            ("0.00000000050000000000000000000000001", 1),
            ("-0.0000000025", -2),
            ("1e3", 1_000_000_000_000),
            ("1E+3", 1_000_000_000_000),
            ("25e-10", 2),
            ("123.456e-2", 1_234_560_000),
            ("1e-400", 0),
            ("0e99999999999999999999", 0),
            ("1000000000000000", Amount::LIMIT.0),
            ("-1e15", -Amount::LIMIT.0),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_too_great_is_out_of_range() {
        for text in
            ["1000000000000000.000000001", "1e16", "1e400", "-1e99999999999999999999", "9999999999999999"]
        {
            assert_eq!(parse(text), Err(AmountError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_number_is_malformed() {
        for text in
            ["", "-", "+1", "01", ".5", "1.", "1e", "1e+", "NaN", "Infinity", "1_0", "0x10", "1.e3", "١"]
        {
            assert_eq!(parse(text), Err(AmountError::Malformed), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_in_plain_notation() {
        for (nanos, text) in
            [(0, "0.0"), (150_000_000_000, "150.0"), (-1, "-0.000000001"), (1_500_000_000, "1.5")]
        {
            assert_eq!(Amount(nanos).to_string(), text);
        }
    }

    #[test]
    fn a_mean_rounds_half_to_even() {
        for (sum, count, mean) in
            [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (10, 3, 3), (11, 3, 4), (-10, 3, -3)]
        {
            assert_eq!(Amount(sum).mean(count), Amount(mean), "{sum} / {count}");
        }
    }

    proptest! {
        #[test]
        fn text_and_amount_are_the_same(nanos in -Amount::LIMIT.0..=Amount::LIMIT.0) {
            prop_assert_eq!(parse(&Amount(nanos).to_string()), Ok(nanos));
        }

        /// The shorter way says what the longer one says, or nothing.
        #[test]
        fn the_plain_form_means_what_any_form_means(text in "-?[0-9]{0,20}(\\.[0-9]{0,11})?[e+x.-]?") {
            let plain = plain(text.as_bytes());
            prop_assert!(plain.is_none() || any_form(&text) == Ok(plain.unwrap_or_default()), "{plain:?}");
        }

        #[test]
        fn usual_amounts_are_plain(whole in 0u64..1_000_000_000, fraction in "(\\.[0-9]{1,9})?") {
            let text = format!("-{whole}{fraction}");
            prop_assert_eq!(plain(text.as_bytes()).ok_or(AmountError::Malformed), any_form(&text));
        }
    }
}
