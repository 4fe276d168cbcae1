//! `metadata` of a definition: where its rows go, how it is billed, and what the client keeps there for itself.
//!
//! `supabase` is the seed's name for the PostgreSQL sink, `postgres` its alias. `custom` is kept byte for byte.

use dataflows::types::{Amount, SeriesSpec, Span, StripeIntegration};

use super::object::{Object, Schema, Value};
use super::series::set;
use super::{Fault, names};

/// Longest text of `metadata.custom`, in bytes.
pub const CUSTOM_BYTES_MAX: usize = 16_384;

// The ignored names are in the request types of the original service.
/// `metadata`.
pub const METADATA: Schema =
    Schema { path: "metadata", known: &["integrations", "custom"], ignored: &["billing"] };
/// What a series may be connected to.
pub const INTEGRATIONS: Schema =
    Schema { path: "metadata.integrations", known: &["supabase", "postgres", "stripe"], ignored: &["fly"] };
/// Where rows go.
pub const SUPABASE: Schema = Schema {
    path: "metadata.integrations.supabase",
    known: &["enabled", "batch_interval", "restore_on_startup"],
    ignored: &["table_name", "retention_days"],
};
const POSTGRES: Schema = Schema { path: "metadata.integrations.postgres", ..SUPABASE };
/// How usage is billed.
pub const STRIPE: Schema = Schema {
    path: "metadata.integrations.stripe",
    known: &["enabled", "price_id", "export", "overage_threshold", "scale"],
    ignored: &["key_name", "billing_threshold", "overage_item_id"],
};

/// Applies `metadata` to a description; `null` puts all of it back to the defaults.
pub(super) fn apply(
    spec: &mut SeriesSpec,
    value: Value<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), Fault> {
    let default = SeriesSpec::default();
    if value.is_null() {
        (spec.stored, spec.batch_interval) = (default.stored, default.batch_interval);
        (spec.restore_on_startup, spec.stripe, spec.custom) =
            (default.restore_on_startup, None, default.custom);
        return Ok(());
    }
    let object = value.object(&METADATA, warnings)?;
    set(&mut spec.custom, object.given("custom"), default.custom, |it| custom(&it))?;
    let Some(value) = object.some("integrations") else { return Ok(()) };
    let object = value.object(&INTEGRATIONS, warnings)?;
    sink(spec, &object, warnings)?;
    let Some(value) = object.given("stripe") else { return Ok(()) };
    let before = spec.stripe.take();
    if !value.is_null() {
        spec.stripe = Some(stripe(before, &value.object(&STRIPE, warnings)?)?);
    }
    Ok(())
}

fn custom(value: &Value<'_>) -> Result<String, Fault> {
    if !value.text().starts_with('{') {
        return Err(Fault::malformed(value.field(), "wrong_type", "custom must be a JSON object"));
    }
    // Read once, so that what is kept can be sent back: escapes within strings are checked only by a full parse.
    value.shaped::<serde_json::Value>("a valid JSON object")?;
    if value.text().len() > CUSTOM_BYTES_MAX {
        let detail = format!("custom may be at most {CUSTOM_BYTES_MAX} bytes");
        return Err(Fault::unacceptable(value.field(), "out_of_bounds", detail));
    }
    Ok(value.text().to_owned())
}

/// Where rows go: `supabase` is the seed's name, `postgres` its alias.
fn sink(spec: &mut SeriesSpec, object: &Object<'_>, warnings: &mut Vec<String>) -> Result<(), Fault> {
    let before = (spec.stored, spec.batch_interval, spec.restore_on_startup);
    let mut read = |name, schema| -> Result<Option<(bool, Span, bool)>, Fault> {
        let Some(value) = object.given(name) else { return Ok(None) };
        let default = SeriesSpec::default();
        let default = (default.stored, default.batch_interval, default.restore_on_startup);
        if value.is_null() {
            return Ok(Some(default));
        }
        let (object, mut sink) = (value.object(schema, warnings)?, before);
        set(&mut sink.0, object.given("enabled"), default.0, |it| it.boolean())?;
        set(&mut sink.1, object.given("batch_interval"), default.1, |it| {
            it.choice(names::spans(Span::FLUSH))
        })?;
        set(&mut sink.2, object.given("restore_on_startup"), default.2, |it| it.boolean())?;
        Ok(Some(sink))
    };
    let (supabase, postgres) = (read("supabase", &SUPABASE)?, read("postgres", &POSTGRES)?);
    if supabase.is_some() && postgres.is_some() && supabase != postgres {
        let detail = "supabase and its alias postgres differ";
        return Err(Fault::malformed(SUPABASE.path, "conflicting_alias", detail));
    }
    (spec.stored, spec.batch_interval, spec.restore_on_startup) = supabase.or(postgres).unwrap_or(before);
    Ok(())
}

fn stripe(before: Option<StripeIntegration>, object: &Object<'_>) -> Result<StripeIntegration, Fault> {
    let default = StripeIntegration {
        enabled: true,
        price_id: None,
        overage: false,
        overage_threshold: None,
        scale: None,
    };
    let mut stripe = before.unwrap_or_else(|| default.clone());
    let at_least = |it: Value<'_>, least: Amount| {
        let amount = it.amount()?;
        let fault = || Fault::unacceptable(it.field(), "out_of_bounds", format!("must be at least {least}"));
        if amount < least { Err(fault()) } else { Ok(Some(amount)) }
    };
    set(&mut stripe.enabled, object.given("enabled"), default.enabled, |it| it.boolean())?;
    set(&mut stripe.price_id, object.given("price_id"), None, |it| it.named(names::id).map(Some))?;
    set(&mut stripe.overage, object.given("export"), default.overage, |it| {
        it.choice([("usage", false), ("overage", true)])
    })?;
    set(&mut stripe.overage_threshold, object.given("overage_threshold"), None, |it| {
        at_least(it, Amount::ZERO)
    })?;
    // Usage is divided or multiplied by it: zero and less would export nonsense.
    set(&mut stripe.scale, object.given("scale"), None, |it| at_least(it, Amount(1)))?;
    Ok(stripe)
}
