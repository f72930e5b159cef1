//! The claims of a verified JSON Web Token: the subject, the expiry, and every other claim by name.
//!
//! Keeps true: [`JwtClaims::all`] is one JSON object in UTF-8, as it was signed; of equal names the last counts, as
//! in `JSON.parse`; a number reads as JavaScript's `String()` writes it.
//! Must not know: keys and signatures, what a claim is used for.

use std::borrow::Cow;

use super::members::{self, members};

/// The largest integer that a JSON number holds without loss in JavaScript, 2⁵³ − 1 (`Number.MAX_SAFE_INTEGER`).
const LARGEST_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtClaims {
    /// The value of `auth.jwt.subject_claim`: 1 to 255 bytes.
    pub subject: Box<str>,
    /// The value of `auth.jwt.session_claim`: 1 to 255 bytes; `None` where none is configured, or the token hasn't one.
    pub session: Option<Box<str>>,
    /// `exp`, seconds since the Unix epoch; may have a fraction, may be infinite. `None` in a token that never expires.
    pub expires_at: Option<f64>,
    /// The payload: a JSON object's text, without whitespace around it.
    pub all: Box<str>,
}

/// The value of one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimValue<'claims>(&'claims str);

// === impl Claims ===

impl JwtClaims {
    /// The claim of this name, whatever its type; `None` where the token hasn't one. Reads the payload once more:
    /// linear in its length.
    pub(crate) fn member(&self, name: &str) -> Option<ClaimValue<'_>> {
        let [value] = members(&self.all, [name]).ok().flatten()?;
        value.map(ClaimValue)
    }
}

// === impl ClaimValue ===

impl<'claims> ClaimValue<'claims> {
    /// A value's JSON text, as [`JwtClaims::member`] finds it.
    pub(super) fn new(json: &'claims str) -> Self {
        Self(json)
    }

    /// An identifier: a string as it is, an integer in decimal digits, as MongoDB ids and SQL ids come. `None` for
    /// other values, and for strings that no UTF-8 can hold (lone surrogates).
    pub(crate) fn identifier(self) -> Option<Cow<'claims, str>> {
        match members::number(self.0) {
            Some(number) if number.fract() == 0.0 && number.abs() <= LARGEST_SAFE_INTEGER => {
                // JavaScript writes -0 as "0".
                Some(Cow::Owned(format!("{:.0}", number + 0.0)))
            }
            Some(_) => None,
            None => members::string(self.0),
        }
    }

    /// Whether the value is `text`: as a string, a boolean, or a number as JavaScript writes it; or an array with
    /// such an element.
    pub(crate) fn is_or_contains(self, text: &str) -> bool {
        match members::elements(self.0) {
            Some(elements) => elements
                .into_iter()
                .any(|element| Self(element).is_text(text)),
            None => self.is_text(text),
        }
    }

    fn is_text(self, text: &str) -> bool {
        match self.0 {
            "true" | "false" => self.0 == text,
            value => match members::number(value) {
                Some(number) => number_text(number).is_some_and(|number| number == text),
                None => members::string(value).is_some_and(|string| string == text),
            },
        }
    }
}

/// A number as JavaScript's `String()` writes it; `None` where that takes an exponent, which no configured value has.
fn number_text(number: f64) -> Option<String> {
    let plain = number == 0.0 || (1e-6..1e21).contains(&number.abs());
    plain.then(|| format!("{}", number + 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(all: &str) -> JwtClaims {
        JwtClaims {
            subject: "ada".into(),
            session: None,
            expires_at: None,
            all: all.into(),
        }
    }

    #[test]
    fn a_claim_is_found_by_name_and_the_last_of_equal_ones_counts() {
        let claims = claims(r#"{"plan":"free","n":{"plan":"x"},"plan":"pro"}"#);
        assert_eq!(claims.member("plan").unwrap().0, "\"pro\"");
        assert_eq!(claims.member("n").unwrap().0, r#"{"plan":"x"}"#);
        assert_eq!(claims.member("none"), None);
    }

    #[test]
    fn identifiers_are_strings_and_whole_numbers() {
        for (json, text) in [
            (r#""a\u0062""#, Some("ab")),
            ("\"\"", Some("")),
            ("42", Some("42")),
            ("42.0", Some("42")),
            ("-0", Some("0")),
            ("1e3", Some("1000")),
            ("4.2", None),
            ("1e300", None),
            ("true", None),
            ("null", None),
            ("[\"a\"]", None),
            (r#""\ud800""#, None),
        ] {
            let value = ClaimValue(json);
            assert_eq!(value.identifier().as_deref(), text, "{json}");
        }
    }

    #[test]
    fn a_value_is_compared_as_text_and_an_array_by_its_elements() {
        for (json, text) in [
            ("\"pro\"", "pro"),
            (r#""pr\u006f""#, "pro"),
            ("true", "true"),
            ("2", "2"),
            ("2.0", "2"),
            ("-2.5", "-2.5"),
            ("0.1", "0.1"),
            ("-0", "0"),
            (r#"["free", 3, "pro"]"#, "pro"),
            ("[1, 2]", "2"),
            ("[false]", "false"),
        ] {
            assert!(ClaimValue(json).is_or_contains(text), "{json} {text}");
        }
        for (json, text) in [
            ("\"Pro\"", "pro"),
            ("\"pro \"", "pro"),
            ("null", "null"),
            ("{\"pro\":1}", "pro"),
            ("[[\"pro\"]]", "pro"),
            ("[]", ""),
            ("1e400", "inf"),
            ("1e21", "1000000000000000000000"),
            (r#""\ud800""#, "\u{fffd}"),
        ] {
            assert!(!ClaimValue(json).is_or_contains(text), "{json} {text}");
        }
    }
}
