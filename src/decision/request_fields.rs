//! The fields of a token request's body, JSON or form, as typed values. Only duplicates and size are refused here.
//!
//! Keeps true: the work is bounded whatever the body; no key is read twice with different values.
//! Must not know: what a field means.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Fields that a request may have, unknown ones included: many times what clients send.
const MAX_FIELDS: usize = 64;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `true`, `false`.
    Bool(bool),
    /// A number without a fraction; `77.0` counts, as in JavaScript.
    Integer(i64),
    /// Any other number.
    Number,
    /// A string.
    Text(String),
    /// An object or an array.
    Compound,
}

/// The body's fields in their order; `null` counts as absent.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct BodyFields(Vec<(String, Option<Value>)>);

impl BodyFields {
    /// From a JSON object (RFC 8259).
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, String> {
        // Express's body-parser 1.20 strips a byte order mark too (`lib/read.js`, `iconv.decode`).
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        // serde_json's own message would quote the sent value instead (`de::Error::invalid_type`), and that may be a
        // JWT.
        let first = body.trim_ascii_start().first();
        if first.is_some_and(|byte| *byte != b'{') {
            return Err("the body must be a JSON object".to_owned());
        }
        serde_json::from_slice(body).map_err(|error| {
            if error.is_data() {
                without_position(&error)
            } else {
                format!(
                    "the body is not valid JSON (line {}, column {})",
                    error.line(),
                    error.column()
                )
            }
        })
    }

    /// From `application/x-www-form-urlencoded` (WHATWG URL §5.1); every value is text.
    pub(crate) fn from_form(body: &[u8]) -> Result<Self, String> {
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            fields.insert(name.into_owned(), Some(Value::Text(value.into_owned())))?;
        }
        Ok(fields)
    }

    /// A field's value; `None` where it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .and_then(|(_, value)| value.as_ref())
    }

    /// The names of all fields, fit for an error message.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, _)| shown(name))
    }

    /// The names of the fields that are null.
    pub(super) fn nulls(&self) -> impl Iterator<Item = &str> {
        let nulls = self.0.iter().filter(|(_, value)| value.is_none());
        nulls.map(|(name, _)| name.as_str())
    }

    fn insert(&mut self, name: String, value: Option<Value>) -> Result<(), String> {
        if self.0.iter().any(|(known, _)| *known == name) {
            return Err(format!("{}: given twice", shown(&name)));
        }
        if self.0.len() == MAX_FIELDS {
            return Err(format!("more than {MAX_FIELDS} fields"));
        }
        self.0.push((name, value));
        Ok(())
    }
}

/// A name that a client sent, fit for an error message.
fn shown(name: &str) -> String {
    name.chars()
        .take(32)
        .map(|character| {
            if character.is_ascii_graphic() {
                character
            } else {
                '?'
            }
        })
        .collect()
}

/// The error's message alone: `serde_json` appends " at line L column C" to it, where the position says nothing
/// (<https://github.com/serde-rs/json/issues/922>).
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ")
        .map_or(text.clone(), |(message, _)| message.to_owned())
}

// === impl Deserialize ===

impl<'de> Deserialize<'de> for BodyFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldMap;

        impl<'de> Visitor<'de> for FieldMap {
            type Value = BodyFields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the body to be a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BodyFields, A::Error> {
                let mut fields = BodyFields::default();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value::<Option<Value>>()?;
                    fields
                        .insert(name, value)
                        .map_err(serde::de::Error::custom)?;
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldMap)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("any value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(i64::try_from(value).map_or(Value::Number, Value::Integer))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                // The conversion is exact up to 2^53, far above every uid.
                #[allow(clippy::cast_possible_truncation)]
                let whole = value as i64;
                #[allow(clippy::cast_precision_loss, clippy::float_cmp)]
                let exact = value.abs() < 9_007_199_254_740_992.0 && whole as f64 == value;
                Ok(if exact {
                    Value::Integer(whole)
                } else {
                    Value::Number
                })
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Compound)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Compound)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_values_keep_their_types() {
        let fields = BodyFields::from_json(
            br#"{"a":"x","b":7,"c":7.0,"d":7.5,"e":null,"f":[1],"g":{"$ne":null},"h":true}"#,
        )
        .unwrap();
        assert_eq!(fields.get("a"), Some(&Value::Text("x".to_owned())));
        assert_eq!(fields.get("b"), Some(&Value::Integer(7)));
        assert_eq!(fields.get("c"), Some(&Value::Integer(7)));
        assert_eq!(fields.get("d"), Some(&Value::Number));
        assert_eq!(fields.get("e"), None);
        assert_eq!(fields.get("f"), Some(&Value::Compound));
        assert_eq!(fields.get("g"), Some(&Value::Compound));
        assert_eq!(fields.get("h"), Some(&Value::Bool(true)));
        assert_eq!(fields.get("i"), None);
    }

    #[test]
    fn duplicate_keys_are_refused_however_they_are_spelled() {
        let duplicate = br#"{"uid":1,"u\u0069d":2}"#;
        assert_eq!(
            BodyFields::from_json(duplicate),
            Err("uid: given twice".to_owned())
        );
        assert_eq!(
            BodyFields::from_json(br#"{"x":1,"x":1}"#),
            Err("x: given twice".to_owned())
        );
        assert_eq!(
            BodyFields::from_form(b"uid=1&u%69d=1"),
            Err("uid: given twice".to_owned())
        );
        assert_eq!(
            BodyFields::from_json(br#"{"uid":null,"uid":2}"#),
            Err("uid: given twice".to_owned())
        );
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for body in [
            "",
            "[]",
            "7",
            "null",
            "\"x\"",
            "{",
            "{\"a\":}",
            "{\"a\":1}x",
            "{\"a\":1e999}",
            "\u{feff}{",
        ] {
            assert!(BodyFields::from_json(body.as_bytes()).is_err(), "{body}");
        }
        assert!(BodyFields::from_json(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(8000), "]".repeat(8000));
        let fields = BodyFields::from_json(deep.as_bytes()).unwrap();
        assert_eq!(fields.get("a"), Some(&Value::Compound));
    }

    #[test]
    fn what_was_sent_instead_of_an_object_is_not_quoted() {
        for body in ["\"secret\"", " secret", "7777777", "[\"secret\"]"] {
            assert_eq!(
                BodyFields::from_json(body.as_bytes()),
                Err("the body must be a JSON object".to_owned())
            );
        }
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let many = (0..65)
            .map(|number| format!("k{number}=1"))
            .collect::<Vec<_>>()
            .join("&");
        assert_eq!(
            BodyFields::from_form(many.as_bytes()),
            Err("more than 64 fields".to_owned())
        );
    }
}
