//! `PUT /api/v1/metrics/{name}`: one amount, perhaps with its time and its id.

use dataflows::types::{Amount, Micros, SeriesKey};

use super::object::{Object, Schema};
use super::{Fault, names};

/// The fields of a body.
pub const BODY: Schema = Schema { path: "", known: &["value", "timestamp", "id"], ignored: &[] };

/// One update as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpdate {
    /// `value`.
    pub amount: Amount,
    /// `timestamp`; none is the arrival.
    pub event_at: Option<Micros>,
    /// `id`.
    pub id: Option<String>,
}

impl NewUpdate {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        // The schema ignores nothing, so nothing can be warned of.
        let object = Object::body(body, &BODY, &mut Vec::new())?;
        Ok(NewUpdate {
            amount: object.required("value")?.amount()?,
            event_at: object.some("timestamp").map(|value| value.named(names::moment)).transpose()?,
            id: object.some("id").map(|value| value.named(names::id)).transpose()?,
        })
    }

    /// What makes two requests the same to an `Idempotency-Key`: method, series and the parsed body.
    pub fn fingerprint(&self, series: &SeriesKey) -> u128 {
        let mut hasher = blake3::Hasher::new();
        let [customer_id, id] =
            [&series.customer_id, &self.id].map(|text| text.as_deref().unwrap_or_default());
        // No name is empty and none holds a zero byte, so this is unambiguous.
        for part in ["PUT", &series.business_id, customer_id, &series.metric_name, id] {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        hasher.update(&self.amount.0.to_le_bytes());
        hasher.update(&self.event_at.map_or([0; 9], |at| {
            let mut marked = [1; 9];
            marked[1..].copy_from_slice(&at.0.to_le_bytes());
            marked
        }));
        hash128(&hasher)
    }
}

/// The first 16 bytes of a hash.
pub(super) fn hash128(hasher: &blake3::Hasher) -> u128 {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_requests_apart() {
        let series = |customer_id: Option<&str>, metric_name: &str| SeriesKey {
            business_id: "biz_1".to_owned(),
            customer_id: customer_id.map(str::to_owned),
            metric_name: metric_name.to_owned(),
        };
        let parse = |body: &str| NewUpdate::parse(body.as_bytes()).expect("well-formed");
        let plain = parse(r#"{"value": 1}"#);
        let print = plain.fingerprint(&series(None, "a"));
        assert_eq!(print, parse(r#"{ "value":1.0, "id":null }"#).fingerprint(&series(None, "a")));
        assert_ne!(print, plain.fingerprint(&series(Some("c"), "a")));
        assert_ne!(print, plain.fingerprint(&series(None, "b")));
        for other in [
            r#"{"value": 2}"#,
            r#"{"value": 1, "id": "x"}"#,
            r#"{"value":1,"timestamp":"1970-01-01T00:00:00Z"}"#,
        ] {
            assert_ne!(print, parse(other).fingerprint(&series(None, "a")), "{other}");
        }
    }
}
