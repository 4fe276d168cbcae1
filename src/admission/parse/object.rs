//! JSON objects read strictly, one level at a time: names are checked, values stay text until somebody asks for them.
//!
//! In: the text of an object and its `Schema`. Out: `Value`s, each of which knows its dotted name, so that whatever is
//! wrong with it names it. Unknown and repeated names are faults; names that only the original service knew are dropped
//! with a warning. Values may nest `NESTING_MAX` deep; nothing here recurses over the input.

use std::borrow::Cow;
use std::fmt;

use dataflows::types::{Amount, AmountError};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Fault;

/// How deep a value may nest.
pub const NESTING_MAX: usize = 32;

/// What may stand in an object.
pub struct Schema {
    /// Its dotted name; empty for the body.
    pub path: &'static str,
    /// Its fields.
    pub known: &'static [&'static str],
    /// Fields of the original service that mean nothing here.
    pub ignored: &'static [&'static str],
}

impl Schema {
    fn name(&self, field: &str) -> String {
        self.dotted(field).into_owned()
    }

    fn dotted<'f>(&self, field: &'f str) -> Cow<'f, str> {
        if self.path.is_empty() { Cow::Borrowed(field) } else { Cow::Owned(format!("{}.{field}", self.path)) }
    }
}

/// The fields of an object that have not been taken yet.
pub struct Object<'a> {
    schema: &'static Schema,
    fields: Vec<(Name<'a>, &'a RawValue)>,
}

/// A present value; its text is one well-formed JSON value (except for the escapes within strings).
#[derive(Clone, Copy)]
pub struct Value<'a> {
    schema: &'static Schema,
    name: &'static str,
    text: &'a str,
}

impl<'a> Object<'a> {
    /// Reads a body.
    pub fn body(bytes: &'a [u8], schema: &'static Schema, warnings: &mut Vec<String>) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Fault::body("malformed_json", format!("the body is not UTF-8: {error}")))?;
        Object::read(text, "the body", schema, warnings)
    }

    /// Reads a body that is an array of objects, at most so many, each by `read`. Whatever is wrong with one names its
    /// place, from 0. Names that mean nothing are faults.
    pub fn list<T>(
        bytes: &'a [u8],
        schema: &'static Schema,
        items_max: usize,
        read: fn(Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let broken = |error: serde_json::Error| {
            Fault::body("malformed_json", format!("the body is not a valid JSON array: {error}"))
        };
        let items: Vec<&'a RawValue> = serde_json::from_slice(bytes).map_err(broken)?;
        if items.len() > items_max {
            let detail = format!("the array may have at most {items_max} items");
            return Err(Fault::body("too_many_items", detail));
        }
        let item = |(index, item): (usize, &'a RawValue)| {
            let object = Object::read(item.get(), "the item", schema, &mut Vec::new());
            object.and_then(read).map_err(|fault| {
                let inner = fault.field.map(|field| format!(".{field}")).unwrap_or_default();
                Fault { field: Some(format!("[{index}]{inner}")), ..fault }
            })
        };
        items.into_iter().enumerate().map(item).collect()
    }

    /// Reads one item of a batch. Names that mean nothing are faults.
    pub fn item(text: &'a str, schema: &'static Schema) -> Result<Self, Fault> {
        Object::read(text, "the item", schema, &mut Vec::new())
    }

    /// Reads an object that may hold more than its schema says: names that mean nothing are skipped.
    pub fn open(text: &'a str, whole: &str, schema: &'static Schema) -> Result<Self, Fault> {
        let mut object = Object::unchecked(text, whole, schema)?;
        object.fields.retain(|(Name(name), _)| schema.known.contains(&name.as_ref()));
        object.check_names(&mut Vec::new())?;
        Ok(object)
    }

    /// `whole` is what the object is called where none of its fields is at fault.
    fn read(
        text: &'a str,
        whole: &str,
        schema: &'static Schema,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Fault> {
        let mut object = Object::unchecked(text, whole, schema)?;
        object.check_names(warnings)?;
        Ok(object)
    }

    fn unchecked(text: &'a str, whole: &str, schema: &'static Schema) -> Result<Self, Fault> {
        if !text.trim_start().starts_with('{') {
            let fault = Fault::body("wrong_type", format!("{whole} must be a JSON object"));
            return Err(Fault { field: (!schema.path.is_empty()).then(|| schema.path.to_owned()), ..fault });
        }
        let mut fields = Vec::with_capacity(4);
        let mut reader = serde_json::Deserializer::from_str(text);
        let mut open = None;
        let broken = |error| Fault::body("malformed_json", format!("{whole} is not valid JSON: {error}"));
        if let Err(error) = (Fields { fields: &mut fields, open: &mut open }).deserialize(&mut reader) {
            // `0x1f` reads as the number 0 and then breaks: the field before is the one to look at.
            let near = open.or_else(|| fields.pop().map(|(name, _)| name));
            return Err(Fault { field: near.map(|Name(name)| schema.name(&name)), ..broken(error) });
        }
        reader.end().map_err(broken)?;
        Ok(Object { schema, fields })
    }

    fn check_names(&mut self, warnings: &mut Vec<String>) -> Result<(), Fault> {
        let schema = self.schema;
        for (at, (Name(name), text)) in self.fields.iter().enumerate() {
            if self.fields[..at].iter().any(|(Name(earlier), _)| earlier == name) {
                return Err(Fault::malformed(
                    schema.name(name),
                    "repeated_field",
                    "the field is given more than once",
                ));
            }
            if schema.ignored.contains(&name.as_ref()) {
                warnings.push(format!("{} means nothing to this service and was ignored", schema.name(name)));
            } else if !schema.known.contains(&name.as_ref()) {
                let fault = Fault::malformed(schema.name(name), "unknown_field", "there is no such field");
                return Err(fault.with_valid(schema.known.iter().copied()));
            }
            if nesting(text.get()) > NESTING_MAX {
                let detail = format!("the value nests more than {NESTING_MAX} deep");
                return Err(Fault::malformed(schema.name(name), "nesting_too_deep", detail));
            }
        }
        Ok(())
    }

    /// The value of a field of the schema, `null` included; none if it is absent.
    pub fn given(&self, name: &'static str) -> Option<Value<'a>> {
        let (_, text) = self.fields.iter().find(|(Name(field), _)| field == name)?;
        Some(Value { schema: self.schema, name, text: text.get() })
    }

    /// The value of a field; none if it is absent or `null`.
    pub fn some(&self, name: &'static str) -> Option<Value<'a>> {
        self.given(name).filter(|value| !value.is_null())
    }

    /// The value of a field that must be there.
    pub fn required(&self, name: &'static str) -> Result<Value<'a>, Fault> {
        self.given(name).ok_or_else(|| {
            Fault::malformed(self.schema.name(name), "missing_field", format!("{name} is required"))
        })
    }
}

impl<'a> Value<'a> {
    /// The dotted name.
    pub fn field(&self) -> String {
        self.schema.name(self.name)
    }

    /// The JSON text as it came.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.text == "null"
    }

    fn wrong_type(&self, wanted: &str) -> Fault {
        Fault::malformed(self.field(), "wrong_type", format!("{} must be {wanted}", self.name))
    }

    /// A string. 400 for anything else, and for escapes that are no text.
    pub fn string(&self) -> Result<Cow<'a, str>, Fault> {
        match serde_json::from_str::<Name<'a>>(self.text) {
            Ok(Name(text)) => Ok(text),
            Err(_) => Err(self.wrong_type("a string")),
        }
    }

    /// A string with a syntax of its own: `read` gets the dotted name and the string.
    pub fn named<T>(&self, read: fn(&str, &str) -> Result<T, Fault>) -> Result<T, Fault> {
        read(&self.schema.dotted(self.name), &self.string()?)
    }

    /// The same without a copy: `check` says what is wrong.
    pub fn checked(&self, check: fn(&str, &str) -> Result<(), Fault>) -> Result<Cow<'a, str>, Fault> {
        let text = self.string()?;
        check(&self.schema.dotted(self.name), &text)?;
        Ok(text)
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Result<bool, Fault> {
        match self.text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// An exact amount. 400 for what is no JSON number, 422 for one that is too great.
    pub fn amount(&self) -> Result<Amount, Fault> {
        self.text.parse().map_err(|error| match error {
            AmountError::Malformed => self.wrong_type("a JSON number"),
            AmountError::OutOfRange => {
                let detail = format!("the magnitude of {} is above 10^15", self.name);
                Fault::unacceptable(self.field(), "amount_out_of_range", detail)
            }
        })
    }

    /// A whole number from 0 on, written without fraction and exponent.
    pub fn whole(&self) -> Result<u64, Fault> {
        self.text.parse().map_err(|_| self.wrong_type("a whole number that is not negative"))
    }

    /// One of the named options. 400 with the list for anything else.
    pub fn choice<T>(
        &self,
        options: impl IntoIterator<Item = (&'static str, T), IntoIter: Clone>,
    ) -> Result<T, Fault> {
        let options = options.into_iter();
        let text = self.string().map_err(|fault| fault.with_valid(options.clone().map(|(name, _)| name)))?;
        options.clone().find(|(name, _)| *name == text).map(|(_, option)| option).ok_or_else(|| {
            let detail = format!("{} is not one of the valid options", self.name);
            Fault::malformed(self.field(), "invalid_option", detail).with_valid(options.map(|(name, _)| name))
        })
    }

    /// A nested object.
    pub fn object(&self, schema: &'static Schema, warnings: &mut Vec<String>) -> Result<Object<'a>, Fault> {
        Object::read(self.text, schema.path, schema, warnings)
    }

    /// A JSON array or object in the given Rust form; 400 saying `wanted` otherwise.
    pub fn shaped<T: Deserialize<'a>>(&self, wanted: &str) -> Result<T, Fault> {
        serde_json::from_str(self.text).map_err(|_| self.wrong_type(wanted))
    }
}

/// How deep a JSON text nests: 0 for a number, 1 for `[]`.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A string that borrows from the input unless it holds escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Collects the fields of one object; what was being read when the text broke is left in `open`.
struct Fields<'s, 'a> {
    fields: &'s mut Vec<(Name<'a>, &'a RawValue)>,
    open: &'s mut Option<Name<'a>>,
}

impl<'a> DeserializeSeed<'a> for Fields<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Fields<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'a>>()? {
            *self.open = Some(name);
            let value = map.next_value()?;
            self.fields.extend(self.open.take().map(|name| (name, value)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_brackets_outside_of_strings() {
        for (text, depth) in [("1", 0), ("[]", 1), ("[[{}],[]]", 3), (r#""[[[""#, 0), (r#"["\"[["]"#, 1)] {
            assert_eq!(nesting(text), depth, "{text}");
        }
    }
}
