//! JSON Schema (2020-12, as OpenAPI 3.1 takes it) in the words that the descriptions beside this file need.
//!
//! In: constants of the parser. Out: `Shape`s, which turn into JSON. It knows no endpoint and checks nothing.

use serde_json::{Map, Value, json};

use crate::admission::parse::names::{self, ID_BYTES_MAX, METRIC_NAME_BYTES_MAX, TEXT_BYTES_MAX};
use crate::admission::parse::object::Schema;

/// Greatest magnitude of an amount that is sent.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;
/// A customer id, event id or price id: printable ASCII without space and `/`.
const ID_CHARACTERS: &str = "[!-.0-~]";

/// A schema being described.
#[derive(Clone, Debug)]
pub(super) struct Shape(Map<String, Value>);

impl Shape {
    /// Any value of a JSON type.
    pub(super) fn of(json_type: &str) -> Self {
        Shape(Map::new()).set("type", json_type)
    }

    /// Any value at all.
    pub(super) fn any() -> Self {
        Shape(Map::new())
    }

    /// A component.
    pub(super) fn named(name: &str) -> Self {
        Shape(Map::new()).set("$ref", format!("#/components/schemas/{name}"))
    }

    /// Text.
    pub(super) fn text() -> Self {
        Shape::of("string")
    }

    /// Text that fits a pattern (ECMA-262).
    pub(super) fn pattern(pattern: impl Into<String>) -> Self {
        Shape::text().set("pattern", pattern.into())
    }

    /// A name or note for people. The parser counts bytes, the schema characters: one byte each in the best case.
    pub(super) fn note(bytes_max: usize) -> Self {
        // U+0000 is what databases do not take.
        Shape::pattern("^[^\\u0000]+$").set("minLength", 1).set("maxLength", bytes_max)
    }

    /// The same of the usual length.
    pub(super) fn label() -> Self {
        Shape::note(TEXT_BYTES_MAX)
    }

    /// A metric name.
    pub(super) fn metric_name() -> Self {
        Shape::pattern(format!("^[A-Za-z0-9_.:-]{{1,{METRIC_NAME_BYTES_MAX}}}$"))
    }

    /// A customer id, event id, key name or price id.
    pub(super) fn id() -> Self {
        Shape::pattern(format!("^{ID_CHARACTERS}{{1,{ID_BYTES_MAX}}}$"))
    }

    /// One of a closed list.
    pub(super) fn word(words: impl IntoIterator<Item = &'static str>) -> Self {
        Shape::text().set("enum", words.into_iter().collect::<Vec<_>>())
    }

    /// One of a table of the parser.
    pub(super) fn option<T>(table: &[(&'static str, T)]) -> Self {
        Shape::word(table.iter().map(|(word, _)| *word))
    }

    /// An amount in an answer: a JSON number that is an exact decimal.
    pub(super) fn amount() -> Self {
        Shape::of("number")
    }

    /// An amount in a request.
    pub(super) fn sent_amount() -> Self {
        Shape::amount().set("minimum", -AMOUNT_MAX).set("maximum", AMOUNT_MAX)
    }

    /// A whole number from 0 on.
    pub(super) fn count() -> Self {
        Shape::of("integer").set("minimum", 0)
    }

    /// `true` or `false`.
    pub(super) fn flag() -> Self {
        Shape::of("boolean")
    }

    /// RFC 3339.
    pub(super) fn moment() -> Self {
        Shape::text().set("format", "date-time")
    }

    /// An http or https URL.
    pub(super) fn url() -> Self {
        Shape::text().set("format", "uri").set("maxLength", names::URL_BYTES_MAX)
    }

    /// A secret of another service that begins as its kind does.
    pub(super) fn secret(prefix: &str) -> Self {
        Shape::pattern(format!("^{prefix}[!-~]+$")).set("maxLength", names::ID_BYTES_MAX)
    }

    /// A list.
    pub(super) fn list(items: Shape) -> Self {
        Shape::of("array").set("items", items)
    }

    /// One of several.
    pub(super) fn either<const N: usize>(shapes: [Shape; N]) -> Self {
        Shape::any().set("anyOf", shapes.map(Value::from).to_vec())
    }

    /// An object of strings.
    pub(super) fn strings(values: Shape) -> Self {
        Shape::of("object").set("additionalProperties", values)
    }

    /// An object in an answer. A name that ends in `?` may be absent. Open: later versions add members.
    pub(super) fn answer<const N: usize>(members: [(&str, Shape); N]) -> Self {
        Shape::any().set("type", "object").also(members)
    }

    /// The same with more members.
    pub(super) fn also<const N: usize>(mut self, members: [(&str, Shape); N]) -> Self {
        let mut required = self.0.remove("required").unwrap_or_else(|| json!([]));
        let mut properties = self.0.remove("properties").unwrap_or_else(|| json!({}));
        for (name, shape) in members {
            let bare = name.trim_end_matches('?');
            properties[bare] = shape.into();
            if let (true, Some(required)) = (bare == name, required.as_array_mut()) {
                required.push(name.into());
            }
        }
        self.set("properties", properties).set("required", required)
    }

    /// An object in a request: the fields that the parser knows, `field` says what each is; no others.
    pub(super) fn request(schema: &Schema, required: &[&str], field: impl Fn(&str) -> Shape) -> Self {
        let mut properties = Map::new();
        for name in schema.known {
            properties.insert((*name).to_owned(), field(name).into());
        }
        for name in schema.ignored {
            let ignored = Shape::any().about("Ignored with a warning: only the original service knew it.");
            properties.insert((*name).to_owned(), ignored.set("deprecated", true).into());
        }
        let shape = Shape::of("object").set("properties", properties).set("additionalProperties", false);
        if required.is_empty() { shape } else { shape.set("required", required) }
    }

    /// Sets a keyword.
    pub(super) fn set(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0.insert(keyword.to_owned(), value.into());
        self
    }

    /// Says what it is.
    pub(super) fn about(self, description: &str) -> Self {
        self.set("description", description)
    }

    /// What it is if it is absent.
    pub(super) fn by_default(self, value: impl Into<Value>) -> Self {
        self.set("default", value)
    }

    /// The same where an absent one stays as it is.
    pub(super) fn without_default(mut self) -> Self {
        self.0.remove("default");
        self
    }

    /// The same or `null`.
    pub(super) fn or_null(mut self) -> Self {
        if let Some(Value::Array(words)) = self.0.get_mut("enum") {
            words.push(Value::Null);
        }
        match self.0.get("type").cloned() {
            Some(json_type) => self.set("type", json!([json_type, "null"])),
            None => Shape::either([self, Shape::of("null")]),
        }
    }
}

impl From<Shape> for Value {
    fn from(shape: Shape) -> Value {
        Value::Object(shape.0)
    }
}
