//! `POST /api/v1/customers` and `PUT /api/v1/customers/{customer_id}`: what a body says of a customer.
//!
//! Both take the same fields. In a PUT what is absent stays as it is, and `null` clears what may be cleared.

use dataflows::types::CustomerDetails;

use super::object::{Object, Schema, Value};
use super::{Fault, names};

/// The fields of a body.
pub const BODY: Schema = Schema {
    path: "",
    known: &[
        "customer_id",
        "customer_name",
        "name",
        "email",
        "description",
        "plan_id",
        "stripe_customer_id",
        "stripe_price_id",
        "subscription_ends_at",
    ],
    ignored: &[],
};

/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 2_000;

/// A body.
pub struct CustomerBody<'a>(Object<'a>);

impl<'a> CustomerBody<'a> {
    /// Reads a body.
    pub fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        // The schema ignores nothing, so nothing can be warned of.
        Ok(CustomerBody(Object::body(body, &BODY, &mut Vec::new())?))
    }

    /// `customer_id`, where the path has none.
    pub fn customer_id(&self) -> Result<String, Fault> {
        self.0.required("customer_id")?.named(names::id)
    }

    /// 400 unless `customer_id` is absent or the one of the path.
    pub fn agrees_with(&self, customer_id: &str) -> Result<(), Fault> {
        match self.0.given("customer_id") {
            Some(value) if value.string()? != customer_id => {
                let detail = "customer_id differs from the one in the path";
                Err(Fault::malformed("customer_id", "invalid_combination", detail))
            }
            _ => Ok(()),
        }
    }

    /// `customer_name` or `name`; none if both are absent. 400 if they differ.
    pub fn customer_name(&self) -> Result<Option<String>, Fault> {
        let [long, short] = ["customer_name", "name"].map(|field| self.0.given(field));
        let [long, short] = [long, short]
            .map(|value| value.map(|value| value.named(names::text::<{ names::TEXT_BYTES_MAX }>)));
        let (long, short) = (long.transpose()?, short.transpose()?);
        if long.is_some() && short.is_some() && long != short {
            let detail = "customer_name and name are the same field and differ";
            return Err(Fault::malformed("name", "invalid_combination", detail));
        }
        Ok(long.or(short))
    }

    /// `plan_id` after this body, given what was; `""` is none.
    pub fn plan_id(&self, before: Option<String>) -> Result<Option<String>, Fault> {
        let plan_id = self.changed("plan_id", before, |value| Ok(value.string()?.into_owned()))?;
        Ok(plan_id.filter(|plan_id| !plan_id.is_empty()))
    }

    /// What is known of the customer after this body, given what was.
    pub fn details(&self, before: CustomerDetails) -> Result<CustomerDetails, Fault> {
        let text = |field, before, read: fn(&str, &str) -> Result<String, Fault>| {
            self.changed(field, before, |value| value.named(read))
        };
        Ok(CustomerDetails {
            email: text("email", before.email, names::text::<{ names::TEXT_BYTES_MAX }>)?,
            description: text("description", before.description, names::text::<DESCRIPTION_BYTES_MAX>)?,
            stripe_customer_id: text("stripe_customer_id", before.stripe_customer_id, names::id)?,
            stripe_price_id: text("stripe_price_id", before.stripe_price_id, names::id)?,
            subscription_ends_at: self.changed(
                "subscription_ends_at",
                before.subscription_ends_at,
                |value| value.named(names::moment),
            )?,
        })
    }

    fn changed<T>(
        &self,
        field: &'static str,
        before: Option<T>,
        read: impl Fn(Value<'a>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        match self.0.given(field) {
            None => Ok(before),
            Some(value) if value.is_null() => Ok(None),
            Some(value) => read(value).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_null_clears() {
        let before = CustomerDetails {
            email: Some("a@example.com".to_owned()),
            description: Some("old".to_owned()),
            ..CustomerDetails::default()
        };
        let body = CustomerBody::parse(br#"{"description": null, "stripe_price_id": "price_1"}"#);
        let after = body.and_then(|body| body.details(before.clone())).expect("well-formed");
        let price = Some("price_1".to_owned());
        assert_eq!(after, CustomerDetails { description: None, stripe_price_id: price, ..before });
    }

    #[test]
    fn whatever_is_wrong_names_its_field() {
        let long = format!(r#"{{"name": "{}"}}"#, "x".repeat(201));
        for (body, field, code) in [
            (r#"{"name": ""}"#, "name", "invalid_text"),
            (r#"{"name": "a\u0000b"}"#, "name", "invalid_text"),
            (long.as_str(), "name", "invalid_text"),
            (r#"{"customer_name": 1}"#, "customer_name", "wrong_type"),
            (r#"{"customer_name": null}"#, "customer_name", "wrong_type"),
            (r#"{"customer_name": "a", "name": "b"}"#, "name", "invalid_combination"),
            (r#"{"name": "a", "email": false}"#, "email", "wrong_type"),
            (r#"{"name": "a", "stripe_customer_id": "a b"}"#, "stripe_customer_id", "invalid_id"),
            (r#"{"name": "a", "subscription_ends_at": "soon"}"#, "subscription_ends_at", "invalid_time"),
            (r#"{"name": "a", "plan_id": 7}"#, "plan_id", "wrong_type"),
            (r#"{"plan": "a"}"#, "plan", "unknown_field"),
        ] {
            let fault = CustomerBody::parse(body.as_bytes()).and_then(|body| {
                body.customer_name()?;
                body.plan_id(None)?;
                body.details(CustomerDetails::default()).map(drop)
            });
            let fault = fault.expect_err(body);
            assert_eq!((fault.field.as_deref(), fault.code), (Some(field), code), "{body}");
        }
    }
}
