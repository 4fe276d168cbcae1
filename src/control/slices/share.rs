//! The arithmetic of slices: how much of a period's usage goes into the next one, and what moment it is billed at. Pure.
//!
//! ```text
//! due = cleaned + billable(usage) + carried in - carried out              all that is to be billed in the period
//! while it is open   units = ⌊due / scale⌋          the remainder waits
//! once it has ended  units = due / scale, rounded half to even
//! ```
//! Units are never below zero: a period whose usage is bills nothing, and the rest waits, to be carried into a later
//! period when its own invoice is final. The next slice has what is missing to these units, which may be less than nothing
//! where usage was taken back.

use dataflows::types::{Amount, Micros};

/// Greatest magnitude of a slice: Stripe takes 15 digits. What is beyond goes into the one after it.
pub const QUANTITY_MAX: i64 = 999_999_999_999_999;
/// How long ago a slice may be dated: Stripe takes 35 days, and it may wait.
pub const DATED_SECS_MAX: i64 = 30 * 86_400;

/// The part of a period's usage that is billed: all of it, or, with something `free`, what of the value lies beyond that.
/// `initial_value` counts towards what is free and is never billed itself.
pub fn billable(usage: Amount, initial_value: Amount, free: Option<Amount>) -> Amount {
    match free {
        None => usage,
        Some(free) => (initial_value + usage - free).max(Amount::ZERO).min(usage.max(Amount::ZERO)),
    }
}

/// Whole units of `scale` that a period is to have in slices. `scale` is above zero.
pub fn units(due: Amount, scale: Amount, has_ended: bool) -> i128 {
    let units = if has_ended { rounded(due, scale) } else { due.0.div_euclid(scale.0) };
    units.max(0)
}

/// `due / scale`, half to even.
pub fn rounded(due: Amount, scale: Amount) -> i128 {
    let (quotient, rest) = (due.0.div_euclid(scale.0), due.0.rem_euclid(scale.0));
    // Without doubling, which may not fit.
    let up = match rest.cmp(&(scale.0 - rest)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient & 1 == 1,
        std::cmp::Ordering::Greater => true,
    };
    quotient + i128::from(up)
}

/// The quantity of the next slice; none if nothing is missing.
pub fn next_quantity(wanted: i128, sliced: i128) -> Option<i64> {
    let missing = wanted.saturating_sub(sliced);
    let max = i128::from(QUANTITY_MAX);
    Some(missing.clamp(-max, max) as i64).filter(|quantity| *quantity != 0)
}

/// The moment that a slice is billed at, in whole seconds: a second before the end of the newest window with usage
/// (`used_until`), not before the period, not after it or after now, and not so long ago that Stripe takes no such event.
/// A period without a whole second in it is dated at its first moment.
pub fn dated_at(start: Micros, end: Option<Micros>, used_until: Option<Micros>, now: Micros) -> Micros {
    let last = end.map_or(now, |end| now.min(Micros(end.0 - 1))).seconds();
    // A second before the end, unless the period is shorter than that.
    let last = end.map_or(last, |end| last.min(end.seconds_up() - 1));
    let wanted = used_until.map_or(last, |until| until.seconds() - 1).max(now.seconds() - DATED_SECS_MAX);
    let at = Micros::from_seconds(wanted.min(last).max(start.seconds_up()));
    if end.is_some_and(|end| at >= end) || at > now { start } else { at }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(text: &str) -> Amount {
        text.parse().expect("a number")
    }

    #[test]
    fn an_open_period_has_whole_units_and_an_ended_one_is_rounded_half_to_even() {
        for (due, scale, open, ended) in [
            ("0", "1", 0, 0),
            ("2.999999999", "1", 2, 3),
            ("2.5", "1", 2, 2),
            ("3.5", "1", 3, 4),
            ("2.500000001", "1", 2, 3),
            ("1499", "1000", 1, 1),
            ("1500", "1000", 1, 2),
            ("2500", "1000", 2, 2),
            ("0.25", "0.1", 2, 2),
            ("0.35", "0.1", 3, 4),
            ("-7.4", "1", 0, 0),
        ] {
            let of = |has_ended| units(amount(due), amount(scale), has_ended);
            assert_eq!([of(false), of(true)], [open, ended], "{due} / {scale}");
        }
        assert_eq!(rounded(amount("-7.5"), amount("1")), -8);
        assert_eq!(rounded(amount("-6.5"), amount("1")), -6);
    }

    #[test]
    fn what_lies_beyond_the_free_part_is_billed_and_no_initial_value() {
        let of = |usage, initial, free: Option<&str>| {
            billable(amount(usage), amount(initial), free.map(amount)).to_string()
        };
        assert_eq!(of("7", "100", None), "7.0");
        assert_eq!(of("7", "0", Some("5")), "2.0");
        assert_eq!(of("4", "0", Some("5")), "0.0");
        assert_eq!(of("4", "3", Some("5")), "2.0", "the initial value uses up what is free");
        assert_eq!(of("4", "9", Some("5")), "4.0", "and is not billed");
        assert_eq!(of("-4", "9", Some("5")), "0.0");
    }

    #[test]
    fn a_slice_is_dated_inside_its_period() {
        let at = |start: i64, end: Option<i64>, until: Option<i64>, now: i64| {
            let of = Micros::from_seconds;
            dated_at(of(start), end.map(of), until.map(of), of(now)).seconds()
        };
        assert_eq!(at(0, None, Some(3_600), 5_000), 3_599, "before the end of the newest window");
        assert_eq!(at(0, None, Some(3_600), 3_000), 3_000, "not ahead of now");
        assert_eq!(at(0, Some(3_000), Some(3_600), 5_000), 2_999, "not behind the period");
        assert_eq!(at(4_000, None, Some(3_600), 5_000), 4_000, "not before it");
        assert_eq!(at(0, None, None, 5_000), 5_000);
        let month = 30 * 86_400;
        assert_eq!(at(0, None, Some(3_600), 2 * month), month, "Stripe takes nothing older");
        assert_eq!(dated_at(Micros(5), Some(Micros(9)), None, Micros(7)), Micros(5), "no whole second");
    }

    proptest! {
        #[test]
        fn a_date_is_in_the_period_and_not_ahead(
            start in 0i64..100_000_000_000,
            length in proptest::option::of(1i64..10_000_000_000),
            until in proptest::option::of(0i64..100_000_000_000),
            later in 0i64..100_000_000_000,
        ) {
            let (end, now) = (length.map(|length| Micros(start + length)), Micros(start + later));
            let at = dated_at(Micros(start), end, until.map(Micros), now);
            prop_assert!(at >= Micros(start) && at <= now && end.is_none_or(|end| at < end), "{at:?}");
        }

        /// Slices of any usage add up to it: what is in none is less than a unit, behind the end at most half of one.
        #[test]
        fn slices_and_remainder_are_the_usage(
            amounts in proptest::collection::vec(-3_000_000_000_000i128..9_000_000_000_000, 1..40),
            scale in 1i128..5_000_000_000_000,
            unit in any::<bool>(),
        ) {
            let scale = if unit { Amount(Amount::UNIT) } else { Amount(scale) };
            let (mut due, mut sliced) = (Amount::ZERO, 0i128);
            for (index, amount) in amounts.iter().enumerate() {
                due = due + Amount(*amount);
                let has_ended = index + 1 == amounts.len();
                while let Some(quantity) = next_quantity(units(due, scale, has_ended), sliced) {
                    sliced += i128::from(quantity);
                }
                let remainder = due.0 - sliced * scale.0;
                prop_assert!(sliced >= 0);
                if due.0 < 0 {
                    prop_assert!(sliced == 0);
                } else if has_ended {
                    prop_assert!(2 * remainder.abs() <= scale.0, "{remainder}");
                } else {
                    prop_assert!((0..scale.0).contains(&remainder), "{remainder}");
                }
            }
        }
    }
}
