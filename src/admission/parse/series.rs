//! Definitions of series: `POST /api/v1/metrics` and `PATCH /api/v1/metrics/{name}`; templates are beside, in `template`.
//!
//! All are one operation, *apply fields to a description*: a POST starts from the defaults, a PATCH from what is
//! there; `null` puts a field back to its default. What follows from several fields together is in `rules`.

use std::collections::BTreeMap;

use dataflows::types::{Limit, Notify, SeriesKey, SeriesSpec, Span};

use super::names::{self, ACTIONS, CLEANUPS, METRIC_TYPES, OPERATIONS, OPERATORS, spans};
use super::object::{Object, Schema, Value};
use super::{Fault, metadata, rules, update};

/// Most tags of a series.
pub const TAGS_MAX: usize = 50;
/// Longest name of a tag, in bytes.
pub const TAG_NAME_BYTES_MAX: usize = 100;
/// Longest value of a tag, in bytes.
pub const TAG_VALUE_BYTES_MAX: usize = 200;
/// Most percentages in `notify_at`.
pub const NOTIFY_AT_MAX: usize = Notify::MAX;
/// Greatest percentage in `notify_at`.
pub const NOTIFY_AT_PERCENT_MAX: u16 = 1_000;

/// What a template may name.
pub(super) const FIELDS: [&str; 19] = [
    // Only a template may name this one, and only a template or a POST the next two.
    "create_customers",
    "metric_name",
    "initial_value",
    "metric_type",
    "operation",
    "flush_interval",
    "reset_interval",
    "max_event_age",
    "cleanup_after",
    "tags",
    "plan_limit_value",
    "limit_value",
    "plan_limit_operator",
    "limit_operator",
    "plan_breach_action",
    "breach_action",
    "notify_at",
    "webhook_url",
    "metadata",
];
/// The fields of a POST.
pub const POST: Schema = Schema { path: "", known: FIELDS.split_at(1).1, ignored: &[] };
/// The fields of a PATCH.
pub const PATCH: Schema = Schema { path: "", known: FIELDS.split_at(3).1, ignored: &[] };

/// The server's bounds on what a definition may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Greatest `max_event_age`, in seconds.
    pub max_event_age_secs_max: u32,
}

/// A definition as a POST asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSeries {
    /// `metric_name`.
    pub metric_name: String,
    /// Everything else, defaults filled in.
    pub spec: SeriesSpec,
    /// Whether `initial_value` was in the body: only then may a repeated POST record it.
    pub initial_value_given: bool,
    /// What was understood but may surprise.
    pub warnings: Vec<String>,
}

impl NewSeries {
    /// Reads a body.
    pub fn parse(body: &[u8], bounds: &Bounds) -> Result<Self, Fault> {
        let mut warnings = Vec::new();
        let object = Object::body(body, &POST, &mut warnings)?;
        let metric_name = object.required("metric_name")?.named(names::metric_name)?;
        let spec = apply(SeriesSpec::default(), &object, bounds, &mut warnings)?;
        Ok(NewSeries {
            metric_name,
            spec,
            initial_value_given: object.some("initial_value").is_some(),
            warnings,
        })
    }

    /// Two bodies with the same hash ask for the same series.
    pub fn body_hash(&self) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.metric_name.as_bytes()).update(&[0]);
        let spec =
            postcard::to_stdvec(&self.spec).expect("a description holds nothing that postcard refuses");
        hasher.update(&spec);
        update::hash128(&hasher)
    }

    /// What makes two requests the same to an `Idempotency-Key`: method, series and the parsed body.
    pub fn fingerprint(&self, series: &SeriesKey) -> u128 {
        let mut hasher = blake3::Hasher::new();
        for part in ["POST", &series.business_id, series.customer_id.as_deref().unwrap_or_default()] {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        hasher.update(&self.body_hash().to_le_bytes());
        update::hash128(&hasher)
    }
}

/// A description as a PATCH leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patched {
    /// The whole new description.
    pub spec: SeriesSpec,
    /// What was understood but may surprise.
    pub warnings: Vec<String>,
}

impl Patched {
    /// Reads a body and applies it to the present description.
    pub fn parse(body: &[u8], current: &SeriesSpec, bounds: &Bounds) -> Result<Self, Fault> {
        let mut warnings = Vec::new();
        let object = Object::body(body, &PATCH, &mut warnings)?;
        let spec = apply(current.clone(), &object, bounds, &mut warnings)?;
        Ok(Patched { spec, warnings })
    }
}

/// Sets `into` to what a field says: the read value, the default for `null`, nothing if it is absent.
pub(super) fn set<'a, T>(
    into: &mut T,
    value: Option<Value<'a>>,
    default: T,
    read: impl FnOnce(Value<'a>) -> Result<T, Fault>,
) -> Result<(), Fault> {
    match value {
        None => {}
        Some(value) if value.is_null() => *into = default,
        Some(value) => *into = read(value)?,
    }
    Ok(())
}

pub(super) fn apply(
    mut spec: SeriesSpec,
    object: &Object<'_>,
    bounds: &Bounds,
    warnings: &mut Vec<String>,
) -> Result<SeriesSpec, Fault> {
    let (before, default) = (spec.clone(), SeriesSpec::default());
    set(&mut spec.metric_type, object.given("metric_type"), default.metric_type, |it| {
        it.choice(METRIC_TYPES)
    })?;
    set(&mut spec.operation, object.given("operation"), default.operation, |it| it.choice(OPERATIONS))?;
    set(&mut spec.flush_interval, object.given("flush_interval"), default.flush_interval, |it| {
        it.choice(spans(Span::FLUSH))
    })?;
    set(&mut spec.reset_interval, object.given("reset_interval"), None, |it| {
        it.choice(spans(Span::ALL)).map(Some)
    })?;
    // Not in the schema of a PATCH.
    set(&mut spec.initial_value, object.given("initial_value"), default.initial_value, |it| it.amount())?;
    set(&mut spec.max_event_age_secs, object.given("max_event_age"), None, |it| {
        event_age(&it, bounds).map(Some)
    })?;
    set(&mut spec.cleanup_after_days, object.given("cleanup_after"), None, |it| it.choice(CLEANUPS))?;
    set(&mut spec.tags, object.given("tags"), default.tags, |it| tags(&it))?;
    set(&mut spec.notify_at, object.given("notify_at"), Vec::new(), |it| notify_at(&it))?;
    // Whether its messages can be signed is known where the secrets are.
    set(&mut spec.webhook_url, object.given("webhook_url"), None, |it| it.named(names::url).map(Some))?;
    limit(&mut spec, object)?;
    if let Some(value) = object.given("metadata") {
        metadata::apply(&mut spec, value, warnings)?;
    }
    rules::check(spec, &before, object, warnings)
}

/// Seconds, or a text such as `24h`.
fn event_age(value: &Value<'_>, bounds: &Bounds) -> Result<u32, Fault> {
    let wrong = |_| {
        let detail = "max_event_age must be a number of seconds or a duration such as \"24h\"";
        Fault::malformed(value.field(), "wrong_type", detail)
    };
    let seconds = match value.string() {
        Ok(text) => {
            humantime::parse_duration(&text).map(|age| age.as_secs()).map_err(|_| ()).map_err(wrong)?
        }
        Err(_) => value.whole().map_err(|_| ()).map_err(wrong)?,
    };
    let max = bounds.max_event_age_secs_max;
    u32::try_from(seconds).ok().filter(|&seconds| seconds <= max).ok_or_else(|| {
        Fault::unacceptable(
            value.field(),
            "out_of_bounds",
            format!("max_event_age may be at most {max} seconds"),
        )
    })
}

fn tags(value: &Value<'_>) -> Result<BTreeMap<String, String>, Fault> {
    const WANTED: &str = "an object of strings";
    let pairs: Pairs = value.shaped(WANTED)?;
    let clean = |text: &str| !text.chars().any(char::is_control);
    let mut tags = BTreeMap::new();
    for (name, text) in pairs.0 {
        let legal_name =
            (1..=TAG_NAME_BYTES_MAX).contains(&name.len()) && clean(&name) && !name.contains(':');
        if !legal_name || text.len() > TAG_VALUE_BYTES_MAX || !clean(&text) {
            let detail = format!(
                "a tag has a name of 1 to {TAG_NAME_BYTES_MAX} bytes without a colon and a value of at most \
                 {TAG_VALUE_BYTES_MAX} bytes, without control characters"
            );
            return Err(Fault::unacceptable(value.field(), "out_of_bounds", detail));
        }
        if tags.insert(name, text).is_some() {
            return Err(Fault::malformed(value.field(), "repeated_field", "a tag is given more than once"));
        }
    }
    if tags.len() > TAGS_MAX {
        let detail = format!("a series has at most {TAGS_MAX} tags");
        return Err(Fault::unacceptable(value.field(), "out_of_bounds", detail));
    }
    Ok(tags)
}

pub(super) fn notify_at(value: &Value<'_>) -> Result<Vec<u16>, Fault> {
    let wanted = format!("a list of whole percentages from 1 to {NOTIFY_AT_PERCENT_MAX}");
    let mut percentages: Vec<u16> = value.shaped(&wanted)?;
    if !percentages.iter().all(|percent| (1..=NOTIFY_AT_PERCENT_MAX).contains(percent)) {
        return Err(Fault::malformed(value.field(), "invalid_option", format!("notify_at must be {wanted}")));
    }
    if percentages.len() > NOTIFY_AT_MAX {
        let detail = format!("notify_at holds at most {NOTIFY_AT_MAX} percentages");
        return Err(Fault::unacceptable(value.field(), "out_of_bounds", detail));
    }
    percentages.sort_unstable();
    percentages.dedup();
    Ok(percentages)
}

/// The field under the seed's name or under its alias; both only if they say the same.
pub(super) fn aliased<T: PartialEq>(
    object: &Object<'_>,
    name: &'static str,
    alias: &'static str,
    read: impl Fn(Value<'_>) -> Result<T, Fault>,
) -> Result<Option<Option<T>>, Fault> {
    let read = |value: Value<'_>| if value.is_null() { Ok(None) } else { read(value).map(Some) };
    let [first, second] = [object.given(name), object.given(alias)].map(|value| value.map(read).transpose());
    let (first, second) = (first?, second?);
    if first.is_some() && second.is_some() && first != second {
        let detail = format!("{name} and its alias {alias} differ");
        return Err(Fault::malformed(name, "conflicting_alias", detail));
    }
    Ok(first.or(second))
}

fn limit(spec: &mut SeriesSpec, object: &Object<'_>) -> Result<(), Fault> {
    let value = aliased(object, "plan_limit_value", "limit_value", |it| it.amount())?;
    let operator = aliased(object, "plan_limit_operator", "limit_operator", |it| it.choice(OPERATORS))?;
    let action = aliased(object, "plan_breach_action", "breach_action", |it| it.choice(ACTIONS))?;
    let before = spec.limit;
    spec.limit = value.unwrap_or(before.map(|limit| limit.value)).map(|value| Limit {
        value,
        operator: operator.map_or(before.map(|it| it.operator), |given| given).unwrap_or_default(),
        action: action.map_or(before.map(|it| it.action), |given| given).unwrap_or_default(),
    });
    let orphan = match (operator.flatten(), action.flatten()) {
        (Some(_), _) => "plan_limit_operator",
        (None, Some(_)) => "plan_breach_action",
        (None, None) => return Ok(()),
    };
    if spec.limit.is_none() {
        return Err(Fault::unacceptable(
            orphan,
            "limit_incomplete",
            format!("{orphan} needs a plan_limit_value"),
        ));
    }
    Ok(())
}

/// The pairs of an object of strings, repetitions included.
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
