//! Named members of a JSON object, read where they stand, by `JSON.parse`'s rules: the last of equal names counts,
//! numbers may overflow, nesting has no limit, lone surrogates pass.
//!
//! Must not know: what the members mean.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The text of each named member's value, without whitespace around it; `None` inside for a member that isn't there.
/// `Ok(None)` is JSON that isn't an object.
///
/// Errors: the text isn't JSON.
pub(super) fn members<'text, const N: usize>(
    text: &'text str,
    names: [&str; N],
) -> Result<Option<[Option<&'text str>; N]>, serde_json::Error> {
    let is_object = text
        .trim_start_matches([' ', '\t', '\n', '\r'])
        .starts_with('{');
    // The names below are read as bytes, which would accept control characters that no JSON string may hold.
    if !is_object || text.bytes().any(|byte| byte.is_ascii_control()) {
        serde_json::from_str::<&RawValue>(text)?;
    }
    if !is_object {
        return Ok(None);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer.deserialize_map(Object(names))?;
    deserializer.end()?;
    Ok(Some(found))
}

/// A JSON string's value; `None` for other values, and for strings that no UTF-8 can hold (lone surrogates).
pub(super) fn string(value: &str) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        serde_json::from_str(value).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inside))
    }
}

/// A JSON number's value, infinite where it is too large; `None` for other values.
pub(super) fn number(value: &str) -> Option<f64> {
    match value.as_bytes().first()? {
        b'-' | b'0'..=b'9' => value.parse().ok(),
        _ => None,
    }
}

/// Whether a JSON value is the string, or an array that has it.
pub(super) fn is_or_contains(value: &str, expected: &str) -> bool {
    let is = |value| string(value).as_deref() == Some(expected);
    elements(value).map_or_else(|| is(value), |elements| elements.into_iter().any(is))
}

/// The text of each element of a JSON array; `None` for other values.
pub(super) fn elements(value: &str) -> Option<Vec<&str>> {
    if !value.starts_with('[') {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(value).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// The names to look for.
struct Object<'name, const N: usize>([&'name str; N]);

impl<'text, const N: usize> Visitor<'text> for Object<'_, N> {
    type Value = [Option<&'text str>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'text>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(matches) = map.next_key_seed(Name(&self.0))? {
            if matches.contains(&true) {
                let value = map.next_value::<&RawValue>()?.get();
                for (slot, _) in found
                    .iter_mut()
                    .zip(matches)
                    .filter(|(_, matches)| *matches)
                {
                    *slot = Some(value);
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads a member's name as bytes (a lone surrogate is no UTF-8) and says which of the wanted names it equals:
/// several where the subject is configured to be one of the registered claims.
struct Name<'name, const N: usize>(&'name [&'name str; N]);

impl<'text, const N: usize> DeserializeSeed<'text> for Name<'_, N> {
    type Value = [bool; N];

    fn deserialize<D: Deserializer<'text>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<const N: usize> Visitor<'_> for Name<'_, N> {
    type Value = [bool; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.map(|name| name.as_bytes() == bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_counts_however_it_is_escaped() {
        let text = r#" {"a": 1, "b":{"a":7}, "\u0061" :[2, 3] } "#;
        assert_eq!(
            members(text, ["a", "b", "c"]).unwrap(),
            Some([Some("[2, 3]"), Some(r#"{"a":7}"#), None])
        );
    }

    #[test]
    fn one_member_may_be_wanted_under_two_meanings() {
        assert_eq!(
            members(r#"{"iss":"x"}"#, ["iss", "iss"]).unwrap(),
            Some([Some("\"x\""); 2])
        );
    }

    #[test]
    fn json_that_is_no_object_has_no_members_and_other_text_is_an_error() {
        for text in ["1", "\"{}\"", "[{}]", " null", "\"\\ud800\""] {
            assert_eq!(members(text, ["a"]).unwrap(), None, "{text}");
        }
        for text in [
            "",
            "{",
            "{}}",
            "{} x",
            "\u{feff}{}",
            "{\"a\":01}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\"}",
            "\u{a0}{}",
            "{\"\n\":1}",
            "{\"\\u0061\u{0}\":1}",
        ] {
            assert!(members(text, ["a"]).is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_values_pass_where_they_are_not_asked_for() {
        let deep = format!(
            "{{\"x\":{}{},\"\\ud800\":1e999,\"a\":1}}",
            "[".repeat(9000),
            "]".repeat(9000)
        );
        assert_eq!(members(&deep, ["a"]).unwrap(), Some([Some("1")]));
    }

    #[test]
    fn numbers_overflow_to_infinity_and_nothing_else_is_a_number() {
        assert_eq!(number("1e400"), Some(f64::INFINITY));
        assert_eq!(number("-1.5E2"), Some(-150.0));
        for value in ["\"1\"", "null", "true", "[1]", "{}", ""] {
            assert_eq!(number(value), None, "{value}");
        }
    }

    #[test]
    fn strings_are_unescaped_and_lone_surrogates_are_none() {
        assert_eq!(string(r#""a""#).as_deref(), Some("a"));
        assert_eq!(string(r#""\u00e9\n""#).as_deref(), Some("é\n"));
        assert_eq!(string(r#""\ud83d\ude00""#).as_deref(), Some("😀"));
        assert_eq!(string(r#""\ud800""#), None);
        assert_eq!(string("1"), None);
    }

    #[test]
    fn an_audience_is_a_string_or_an_array_of_them() {
        assert!(is_or_contains(r#""a""#, "a"));
        assert!(is_or_contains(r#"[1, {"x":[]}, "a", "\ud800"]"#, "a"));
        for value in [r#""b""#, "[]", r#"[["a"]]"#, r#"{"a":"a"}"#, "null"] {
            assert!(!is_or_contains(value, "a"), "{value}");
        }
    }
}
