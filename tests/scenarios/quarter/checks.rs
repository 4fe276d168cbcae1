//! Stripe's totals, what we show and what was accepted, beside each other.

use std::collections::BTreeSet;

use super::super::support::stripe::Call;
use super::super::support::until;
use super::model::{DAY, DRAFT, FIRST, MINUTE, SECOND, Series};
use super::world::{ACCOUNT, Billed, BilledPeriod, LIMIT, Point, micros, rfc3339};
use super::{Action, HOUR, Quarter};

/// Turns of a minute that what is on its way may take: pauses are up to fifteen of them, up to an hour if Stripe says so.
const TURNS_MAX: usize = 400;
/// Calls of Stripe that a failure shows.
const CALLS_SAID: usize = 30;

/// What was seen of a period when nothing could change it any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audited {
    units: i128,
    remainder: i128,
    carried_in: i128,
    carried_out: i128,
    is_done: bool,
}

/// `nanos / scale`, half to even.
fn rounded(nanos: i128, scale: i128) -> i128 {
    let (down, rest) = (nanos.div_euclid(scale), nanos.rem_euclid(scale));
    let up = 2 * rest > scale || 2 * rest == scale && down % 2 != 0;
    down + i128::from(up)
}

fn seconds_up(at: i64) -> i64 {
    at.div_euclid(SECOND) + i64::from(at.rem_euclid(SECOND) > 0)
}

/// The meter of a series' price.
fn meter(series: &Series) -> &'static str {
    match series.price {
        Some("price_plan") => "planned",
        Some("price_bytes") => "bytes",
        _ => "calls",
    }
}

impl Quarter {
    fn period(&self, index: usize, start: i64) -> Option<BilledPeriod> {
        let series = &self.model.series[index];
        let mut billed = self.world.billed_of(series.customer, series.metric);
        let is_it = |shown: &BilledPeriod| {
            let shown = micros(&shown.start);
            if start == FIRST { shown <= self.begun_at + MINUTE } else { shown == start }
        };
        let place = billed.periods.iter().position(is_it)?;
        Some(billed.periods.swap_remove(place))
    }

    /// The last calls of Stripe about a series.
    fn calls(&self, series: &Series) -> Vec<String> {
        let (meter, customer) = (meter(series), format!("cus_{}", series.customer));
        let has = |call: &Call, key: &str, value: &str| call.form.get(key).is_some_and(|is| is == value);
        let is_of = |call: &Call| {
            has(call, "customer", &customer) && call.path.contains(meter)
                || has(call, "event_name", meter) && has(call, "payload[stripe_customer_id]", &customer)
        };
        let calls: Vec<Call> = self.world.stripe.calls().into_iter().filter(is_of).collect();
        let said = |call: &Call| {
            let status = call.status.map_or("no answer".to_owned(), |status| status.to_string());
            format!("{}: {} {:?}: {status}", rfc3339(call.at * SECOND), call.path, call.form)
        };
        calls[calls.len().saturating_sub(CALLS_SAID)..].iter().map(said).collect()
    }

    /// What a failure says.
    fn of(&self, index: usize, start: i64) -> String {
        let series = &self.model.series[index];
        let Series { customer, metric, .. } = series;
        let moment = |at: i64| if at == FIRST { "the beginning".to_owned() } else { rfc3339(at) };
        let end = series.end_of(start).map_or("now on".to_owned(), rfc3339);
        let now = rfc3339(self.now());
        let shown = self.world.billed_of(customer, metric).periods.into_iter();
        let shown: Vec<String> = shown.map(|period| period.to_string()).collect();
        format!(
            "{customer} {metric} from {} to {end}, at {now}: {:?}\n{}\ncalls of Stripe:\n{}\n{}",
            moment(start),
            series.periods[&start],
            shown.join("\n"),
            self.calls(series).join("\n"),
            self.world.said()
        )
    }

    /// The last slice of a period whose end was known is cut in time: it has all that was accepted by now.
    pub fn settle(&mut self, index: usize, start: i64) {
        let series = &self.model.series[index];
        let end = series.end_of(start).expect("it has ended");
        if self.now() >= end + DRAFT - MINUTE {
            // Nobody was there.
            return;
        }
        let (used, scale) = (series.usage(&series.periods[&start]), series.scale);
        let is_cut = || {
            let shown = self.period(index, start);
            let Some(shown) = shown else { return if used == 0 { Ok(0) } else { Err(None) } };
            let wanted = rounded(used + shown.carried_in(), scale);
            let has_ended = shown.end.as_deref().map(micros) == Some(end);
            if has_ended && shown.units() == wanted {
                Ok(wanted)
            } else {
                Err(Some(format!("{wanted} units are wanted: {shown}")))
            }
        };
        let units = until(LIMIT, is_cut);
        let units =
            units.unwrap_or_else(|seen| panic!("not cut in time: {seen:?}: {}", self.of(index, start)));
        self.model.series[index].periods.get_mut(&start).expect("it is there").settled = Some(units);
    }

    /// A period that takes nothing more: all that there is of it is the same.
    pub fn audit(&mut self, index: usize, start: i64) {
        let mut seen = Err(String::new());
        for _ in 0..TURNS_MAX {
            seen = until(std::time::Duration::from_millis(40), || self.agrees(index, start));
            if seen.is_ok() {
                break;
            }
            let now = self.now();
            self.pass(now + MINUTE);
        }
        let seen = seen.unwrap_or_else(|why| panic!("{why}: {}", self.of(index, start)));
        self.audited.insert((index, start), seen);
    }

    fn agrees(&self, index: usize, start: i64) -> Result<Audited, String> {
        let series = &self.model.series[index];
        let (end, period) = (series.end_of(start), &series.periods[&start]);
        let used = series.usage(period);
        let Some(shown) = self.period(index, start) else {
            let nothing = Audited { is_done: true, ..Audited::default() };
            return if used == 0 { Ok(nothing) } else { Err("it is not shown".to_owned()) };
        };
        let same = |what: &str, seen: i128, wanted: i128| match seen == wanted {
            true => Ok(()),
            false => Err(format!("{what} is {seen}, not {wanted}")),
        };
        same("what is on its way", shown.pending, 0)?;
        same("what is dead", shown.dead, 0)?;
        same(
            "the end",
            shown.end.as_deref().map(micros).unwrap_or_default().into(),
            end.unwrap_or_default().into(),
        )?;
        same("usage shown", shown.usage(), used)?;
        let (from, until) = (start.max(self.begun_at - DAY), end.unwrap_or(self.now() + DAY));
        self.history_agrees(series, from, until)?;
        let from = if start == FIRST { 0 } else { seconds_up(start) };
        let total = self.stripe_total(series, from, seconds_up(until));
        same("Stripe's total", total, shown.exported)?;
        same("what is to be billed", shown.billable(), used + shown.carried_in() - shown.carried_out())?;
        same("the remainder", shown.remainder(), shown.billable() - total * series.scale)?;
        if let Some(settled) = period.settled {
            same("what the invoice says", total, settled)?;
        }
        let is_rounded = match end {
            Some(_) => 2 * shown.remainder().abs() <= series.scale,
            // Less than nothing is billed as nothing.
            None => shown.remainder() < series.scale && (shown.remainder() >= 0 || total == 0),
        };
        if !is_rounded {
            return Err(format!("the remainder is {} of {}", shown.remainder(), series.scale));
        }
        let (carried_in, carried_out) = (shown.carried_in(), shown.carried_out());
        Ok(Audited { units: total, remainder: shown.remainder(), carried_in, carried_out, is_done: true })
    }

    /// The windows that begin between two moments have what was accepted of them, and are all that have something.
    fn history_agrees(&self, series: &Series, from: i64, until: i64) -> Result<(), String> {
        let points = self.world.history(series.customer, series.metric, from, until);
        let mut counted = 0;
        for Point { start, end, sum, count } in points {
            let inside = series.updates.iter().filter(|(at, _)| (start..end).contains(at));
            let wanted = inside.fold((0, 0), |(sum, count), (_, amount)| (sum + amount, count + 1));
            if (sum, count) != wanted {
                let window = format!("{} to {}", rfc3339(start), rfc3339(end));
                let inside = series.updates.iter().filter(|(at, _)| (start - HOUR..end + HOUR).contains(at));
                let near: Vec<_> = inside.map(|(at, amount)| format!("{} {amount}", rfc3339(*at))).collect();
                return Err(format!("{window} has {:?}, not {wanted:?}, of {near:#?}", (sum, count)));
            }
            counted += count;
        }
        let all = series.updates.iter().filter(|(at, _)| (from..until).contains(at)).count();
        if counted == all as i64 {
            Ok(())
        } else {
            Err(format!("the history has {counted} updates of {all}"))
        }
    }

    /// What Stripe has counted of a series between two seconds.
    pub fn stripe_total(&self, series: &Series, from: i64, until: i64) -> i128 {
        let customer = format!("cus_{}", series.customer);
        self.world.stripe.total(ACCOUNT, meter(series), &customer, from, until)
    }

    /// Whatever is late has come; all periods are compared, the open ones too, and all of them together.
    pub fn end(&mut self) {
        let until = self.now() + DAY + 3 * HOUR;
        while self.now() < until {
            let now = self.now();
            self.pass(now + 20 * MINUTE);
            // What has just ended is not left without its last slice.
            while let Some((&(at, _), _)) =
                self.queue.first_key_value().filter(|((at, _), _)| *at <= self.now())
            {
                let ((_, _), action) = self.queue.pop_first().expect("there is one");
                if matches!(action, Action::Settle(..)) && at > until - 4 * HOUR {
                    self.act(action);
                }
            }
        }
        for index in 0..self.model.series.len() {
            if self.model.series[index].price.is_none() {
                continue;
            }
            let starts: Vec<i64> = self.model.series[index].periods.keys().copied().collect();
            for &start in &starts {
                if !self.audited.get(&(index, start)).is_some_and(|audited| audited.is_done) {
                    self.audit(index, start);
                }
            }
            let series = &self.model.series[index];
            let of_series = starts.iter().map(|start| &self.audited[&(index, *start)]);
            let sum = |of: fn(&Audited) -> i128| of_series.clone().map(of).sum::<i128>();
            let accepted: i128 = series.periods.values().map(|period| series.usage(period)).sum();
            let name = format!("{} {}", series.customer, series.metric);
            assert_eq!(
                sum(|it| it.carried_in),
                sum(|it| it.carried_out),
                "{name}: what was late is billed once"
            );
            assert_eq!(
                sum(|it| it.units),
                self.stripe_total(series, 0, i64::MAX),
                "{name}: in periods, all of it"
            );
            let (units, remainders) = (sum(|it| it.units), sum(|it| it.remainder));
            assert_eq!(units * series.scale + remainders, accepted, "{name}: the quarter");
            assert!(units > 0, "{name}: nothing was billed");
            self.knows_its_periods(index, &starts);
            self.stays_so(index, &starts);
        }
        self.is_clean();
        let asked =
            self.world.stripe.calls().iter().filter(|call| call.path.ends_with("/event_summaries")).count();
        assert!(asked > 0 && self.world.cut_off > 0, "whether it had arrived was asked {asked} times");
    }

    /// What was compared when the last of a period had come has not changed since.
    fn stays_so(&self, index: usize, starts: &[i64]) {
        let series = &self.model.series[index];
        let shown = self.world.billed_of(series.customer, series.metric).periods;
        for (&start, shown) in starts
            .iter()
            .filter_map(|start| Some((start, shown.iter().find(|shown| micros(&shown.start) == *start)?)))
        {
            let seen = &self.audited[&(index, start)];
            let seen = (seen.units, seen.carried_in, seen.carried_out, seen.remainder);
            let now = (shown.exported, shown.carried_in(), shown.carried_out(), shown.remainder());
            assert_eq!(now, seen, "{}", self.of(index, start));
        }
    }

    /// No period is shown that nothing began.
    fn knows_its_periods(&self, index: usize, starts: &[i64]) {
        let series = &self.model.series[index];
        let Billed { periods, waits_for, slices, .. } = self.world.billed_of(series.customer, series.metric);
        for shown in periods.iter().map(|period| micros(&period.start)) {
            let is_first = shown <= self.begun_at + MINUTE;
            assert!(
                is_first || starts.contains(&shown),
                "{} has begun: {}",
                rfc3339(shown),
                self.of(index, starts[0])
            );
        }
        assert!(waits_for.is_none() && slices.is_empty(), "{waits_for:?} {slices:?}");
    }

    /// No name was taken twice, and nothing was sent that Stripe has refused.
    fn is_clean(&self) {
        let events = self.world.stripe.events(ACCOUNT);
        let names: BTreeSet<_> = events.iter().map(|event| &event.identifier).collect();
        assert_eq!(names.len(), events.len(), "a name counts once");
    }
}
