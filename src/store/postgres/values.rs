//! Amounts and times in PostgreSQL's binary format, exactly, both ways.
//!
//! | what | column | wire format (source: `numeric.c`, `timestamp.c` of PostgreSQL) |
//! |---|---|---|
//! | amount | `numeric` | digits of base 10,000: count, weight of the first, sign, decimals shown, digits; `i16` each |
//! | time | `timestamptz` | microseconds since 2000-01-01, `i64` |
//!
//! An amount is shown with at least one decimal and no trailing zeros, as everywhere. Times are clamped as in `text`:
//! what cannot be written in RFC 3339 is not sent.

use std::error::Error;

use dataflows::types::{Amount, Micros};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use super::super::text::{FIRST_MICROS, LAST_MICROS};

/// 2000-01-01 in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const BASE: u128 = 10_000;
/// The digit that holds an amount's last decimals counts 10^-12, three decimals below a nano-unit.
const BELOW_NANOS: u128 = 1_000;
/// Digits of base 10,000 below the decimal point.
const FRACTION_DIGITS: usize = 3;
const NEGATIVE: i16 = 0x4000;

/// A `numeric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numeric(pub Amount);

/// A `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(pub Micros);

impl ToSql for Numeric {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let nanos = self.0.0;
        let (whole, nanos_left) =
            (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
        // Least digit first.
        let mut digits = [0i16; 12];
        let mut count = 0;
        for mut rest in [nanos_left * BELOW_NANOS, whole] {
            let end = if count == 0 { FRACTION_DIGITS } else { digits.len() };
            while rest > 0 && count < end {
                digits[count] = (rest % BASE) as i16;
                rest /= BASE;
                count += 1;
            }
            count = count.max(FRACTION_DIGITS);
        }
        let used = digits[..count].iter().rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
        let zeros = digits[..used].iter().take_while(|&&digit| digit == 0).count();
        let mut decimals = 9;
        let mut fraction = nanos_left;
        while decimals > 1 && fraction.is_multiple_of(10) {
            (decimals, fraction) = (decimals - 1, fraction / 10);
        }
        let sign = if nanos < 0 { NEGATIVE } else { 0 };
        let mut put = |word: i16| out.extend_from_slice(&word.to_be_bytes());
        put((used - zeros) as i16);
        put(used as i16 - FRACTION_DIGITS as i16 - 1);
        put(sign);
        put(decimals);
        digits[zeros..used].iter().rev().for_each(|&digit| put(digit));
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Numeric {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let foreign = "not a decimal amount of at most nine decimals";
        let words: Vec<i16> = raw.as_chunks().0.iter().map(|bytes| i16::from_be_bytes(*bytes)).collect();
        let &[_, weight, sign @ (0 | NEGATIVE), _, ref digits @ ..] = &words[..] else {
            return Err(foreign.into());
        };
        let mut nanos: i128 = 0;
        for (index, &digit) in digits.iter().enumerate() {
            // The power of 10,000 that the digit counts.
            let power = i32::from(weight) - index as i32;
            let digit = i128::from(if sign == NEGATIVE { -digit } else { digit });
            let nano_units = match power {
                -3 if digit % BELOW_NANOS as i128 == 0 => Some(digit / BELOW_NANOS as i128),
                -2.. => 10i128.checked_pow((9 + 4 * power) as u32).and_then(|unit| digit.checked_mul(unit)),
                _ => (digit == 0).then_some(0),
            };
            nanos = nano_units.and_then(|part| nanos.checked_add(part)).ok_or(foreign)?;
        }
        Ok(Numeric(Amount(nanos)))
    }

    accepts!(NUMERIC);
}

impl ToSql for At {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let micros = self.0.0.clamp(FIRST_MICROS, LAST_MICROS);
        out.extend_from_slice(&(micros - EPOCH_MICROS).to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for At {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        // `infinity` is beyond what this program writes.
        Ok(At(Micros(micros.saturating_add(EPOCH_MICROS))))
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(amount: Amount) -> BytesMut {
        let mut bytes = BytesMut::new();
        Numeric(amount).to_sql(&Type::NUMERIC, &mut bytes).expect("writing to memory cannot fail");
        bytes
    }

    fn words(amount: Amount) -> Vec<i16> {
        wire(amount).as_chunks().0.iter().map(|bytes| i16::from_be_bytes(*bytes)).collect()
    }

    #[test]
    fn digits_are_those_of_the_server() {
        let units = |units: i128, nanos: i128| Amount(units * 1_000_000_000 + nanos);
        // Count, weight, sign, decimals, digits: as `numeric_send` gives them.
        assert_eq!(words(units(0, 0)), [0, -4, 0, 1]);
        assert_eq!(words(units(150, 0)), [1, 0, 0, 1, 150]);
        assert_eq!(words(units(-12, -500_000_000)), [2, 0, NEGATIVE, 1, 12, 5_000]);
        assert_eq!(words(units(10_000, 0)), [1, 1, 0, 1, 1]);
        assert_eq!(words(units(0, 1)), [1, -3, 0, 9, 1_000]);
        assert_eq!(
            words(units(123_456_789, 123_456_789)),
            [6, 2, 0, 9, 1, 2_345, 6_789, 1_234, 5_678, 9_000]
        );
    }

    #[test]
    fn what_is_no_amount_is_not_read() {
        let read = |words: &[i16]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            Numeric::from_sql(&Type::NUMERIC, &bytes).ok()
        };
        assert_eq!(read(&[1, 0, 0, 0, 7]), Some(Numeric(Amount::from_units(7))));
        assert_eq!(read(&[0, 0, -0x4000, 0]), None, "NaN");
        assert_eq!(read(&[1, -3, 0, 10, 1]), None, "ten decimals");
        assert_eq!(read(&[1, -4, 0, 16, 1]), None, "sixteen decimals");
        assert_eq!(read(&[1, 20, 0, 0, 1]), None, "beyond i128");
        assert_eq!(read(&[]), None);
    }

    proptest! {
        #[test]
        fn every_amount_comes_back(nanos in any::<i128>()) {
            for amount in [Amount(nanos), Amount(nanos >> 64), Amount(nanos >> 90), Amount(i128::MIN), Amount(i128::MAX)] {
                let read = Numeric::from_sql(&Type::NUMERIC, &wire(amount)).expect("just written");
                prop_assert_eq!(read.0, amount);
            }
        }

        #[test]
        fn times_come_back(micros in FIRST_MICROS..=LAST_MICROS) {
            let mut bytes = BytesMut::new();
            At(Micros(micros)).to_sql(&Type::TIMESTAMPTZ, &mut bytes).expect("writing to memory cannot fail");
            let read = At::from_sql(&Type::TIMESTAMPTZ, &bytes).expect("just written");
            prop_assert_eq!(read.0, Micros(micros));
        }
    }
}
