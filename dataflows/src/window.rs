//! Windows: half-open ranges of event time, aligned to UTC.
//!
//! Lengths up to a day are aligned to the Unix epoch, weeks start on Monday, months on the 1st. The eleven lengths of
//! `Span::FLUSH` divide each other in order, so a longer window is always a whole number of shorter ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::Micros;

/// A length of window; the discriminant is its index in `Span::ALL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)] // Each variant is its own text.
pub enum Span {
    S1,
    S5,
    S15,
    S30,
    M1,
    M5,
    M15,
    M30,
    #[default]
    H1,
    H6,
    D1,
    W1,
    Mo1,
}

/// A half-open range of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// First moment.
    pub start: Micros,
    /// First moment behind it.
    pub end: Micros,
}

const DAY_SECS: i64 = 86_400;

impl Span {
    /// Every span, shortest first.
    pub const ALL: [Span; 13] = [
        Span::S1,
        Span::S5,
        Span::S15,
        Span::S30,
        Span::M1,
        Span::M5,
        Span::M15,
        Span::M30,
        Span::H1,
        Span::H6,
        Span::D1,
        Span::W1,
        Span::Mo1,
    ];
    /// What `flush_interval` and `batch_interval` may be.
    pub const FLUSH: [Span; 11] = [
        Span::S1,
        Span::S5,
        Span::S15,
        Span::S30,
        Span::M1,
        Span::M5,
        Span::M15,
        Span::M30,
        Span::H1,
        Span::H6,
        Span::D1,
    ];

    /// Length in seconds; none for a month, whose length varies.
    pub const fn seconds(self) -> Option<i64> {
        Some(match self {
            Span::S1 => 1,
            Span::S5 => 5,
            Span::S15 => 15,
            Span::S30 => 30,
            Span::M1 => 60,
            Span::M5 => 300,
            Span::M15 => 900,
            Span::M30 => 1_800,
            Span::H1 => 3_600,
            Span::H6 => 21_600,
            Span::D1 => DAY_SECS,
            Span::W1 => 7 * DAY_SECS,
            Span::Mo1 => return None,
        })
    }

    /// The text of the API: `1s` ... `1mo`.
    pub const fn text(self) -> &'static str {
        match self {
            Span::S1 => "1s",
            Span::S5 => "5s",
            Span::S15 => "15s",
            Span::S30 => "30s",
            Span::M1 => "1m",
            Span::M5 => "5m",
            Span::M15 => "15m",
            Span::M30 => "30m",
            Span::H1 => "1h",
            Span::H6 => "6h",
            Span::D1 => "1d",
            Span::W1 => "1w",
            Span::Mo1 => "1mo",
        }
    }

    /// The window of this length that contains a moment.
    pub fn window(self, at: Micros) -> Window {
        let seconds = at.seconds();
        let (start, end) = match self.seconds() {
            Some(length) => {
                // 1970-01-05 was a Monday.
                let origin = if self == Span::W1 { 4 * DAY_SECS } else { 0 };
                let start = (seconds - origin).div_euclid(length) * length + origin;
                (start, start + length)
            }
            None => {
                let month = month_of_day(seconds.div_euclid(DAY_SECS));
                (first_day_of_month(month) * DAY_SECS, first_day_of_month(month + 1) * DAY_SECS)
            }
        };
        Window { start: Micros::from_seconds(start), end: Micros::from_seconds(end) }
    }

    /// The window `count` windows before the one that contains `at`.
    pub fn back(self, at: Micros, count: u32) -> Window {
        match self.seconds() {
            Some(length) => self.window(Micros(at.0 - i64::from(count) * length * Micros::PER_SECOND)),
            None => {
                let month = month_of_day(at.seconds().div_euclid(DAY_SECS)) - i64::from(count);
                self.window(Micros::from_seconds(first_day_of_month(month) * DAY_SECS))
            }
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Span {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Span::ALL.into_iter().find(|span| span.text() == text).ok_or(())
    }
}

impl Window {
    /// Whether a moment lies in the window.
    pub fn contains(&self, at: Micros) -> bool {
        self.start <= at && at < self.end
    }
}

/// Months since year 0 of the proleptic Gregorian calendar, from days since the Unix epoch.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
fn month_of_day(day: i64) -> i64 {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    (year_of_era + era * 400) * 12 + month_from_march + 2
}

/// Days since the Unix epoch of the 1st of a month counted from year 0; the inverse of `month_of_day`.
fn first_day_of_month(month: i64) -> i64 {
    let from_march = month - 2;
    let (year, month_from_march) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn days(span: Span, day: i64) -> (i64, i64) {
        let window = span.window(Micros::from_seconds(day * DAY_SECS + 1));
        (window.start.seconds() / DAY_SECS, window.end.seconds() / DAY_SECS)
    }

    #[test]
    fn weeks_start_on_monday_and_months_on_the_first() {
        // 2026-11-24 is a Tuesday, day 20,781; its month runs from day 20,758 to 20,788.
        assert_eq!(days(Span::W1, 20_781), (20_780, 20_787));
        assert_eq!(days(Span::W1, 20_780), (20_780, 20_787));
        assert_eq!(days(Span::W1, 20_779), (20_773, 20_780));
        assert_eq!(days(Span::Mo1, 20_781), (20_758, 20_788));
        // The leap day of 2024 is day 19,782.
        assert_eq!(days(Span::Mo1, 19_782), (19_754, 19_783));
        assert_eq!(days(Span::Mo1, -1), (-31, 0));
    }

    #[test]
    fn flush_spans_divide_each_other_in_order() {
        for pair in Span::FLUSH.windows(2) {
            let (short, long) = (pair[0].seconds().expect("fixed"), pair[1].seconds().expect("fixed"));
            assert_eq!(long % short, 0, "{} and {}", pair[0], pair[1]);
        }
    }

    proptest! {
        #[test]
        fn windows_tile_time(micros in -4_000_000_000_000_000i64..4_000_000_000_000_000, index in 0usize..13) {
            let (span, at) = (Span::ALL[index], Micros(micros));
            let window = span.window(at);
            prop_assert!(window.contains(at));
            prop_assert_eq!(span.window(window.start), window);
            prop_assert_eq!(span.window(window.end).start, window.end);
            prop_assert_eq!(span.back(at, 1).end, window.start);
            prop_assert_eq!(span.back(at, 0), window);
            prop_assert_eq!(span.text().parse::<Span>(), Ok(span));
        }
    }
}
