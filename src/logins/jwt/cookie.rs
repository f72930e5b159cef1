//! A named cookie's value (RFC 6265 §5.4).
//!
//! Must not know: what the value means, whether a cookie may count.

use ::http::header::COOKIE;

use super::JwtError;
use crate::http::request_fields::RequestFields;

/// The value of the cookie of exactly this name, without the double quotes that may stand around it. Nothing is
/// decoded: no character of a JWT needs it.
///
/// Errors: [`JwtError::Missing`] when there is no such cookie, or nothing in it; [`JwtError::Malformed`] when there
/// are several, even equal ones: another host of the same site may have set one of them (RFC 6265 §8.6).
pub(crate) fn cookie<'h>(
    fields: impl Into<RequestFields<'h>>,
    name: &str,
) -> Result<&'h str, JwtError> {
    let fields = fields.into();
    let mut found = None;
    // HTTP/2 may send one field per cookie (RFC 9113 §8.2.3).
    for field in fields.all(&COOKIE) {
        // Other cookies may hold any bytes, and are not checked.
        for pair in field.split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            let value = pair
                .strip_prefix(name.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="));
            if let Some(value) = value
                && found.replace(value).is_some()
            {
                return Err(JwtError::Malformed);
            }
        }
    }
    let value = found.ok_or(JwtError::Missing)?;
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    let value = std::str::from_utf8(quoted.unwrap_or(value)).map_err(|_| JwtError::Malformed)?;
    if value.is_empty() {
        return Err(JwtError::Missing);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use ::http::HeaderMap;

    use super::*;

    fn value(fields: &[&'static [u8]]) -> Result<String, JwtError> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        cookie(&headers, "token").map(str::to_owned)
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name_wherever_it_stands() {
        for fields in [
            [b"token=a.b.c".as_slice()].as_slice(),
            &[b"x=1; token=a.b.c; y=2"],
            &[b"x=1;token=a.b.c"],
            &[b"x=1", b"token=\"a.b.c\""],
            &[b"x=\xff\xfe; token=a.b.c"],
            &[b"; ;token=a.b.c;"],
            &[b"Token=no; xtoken=no; token2=no; token=a.b.c"],
        ] {
            assert_eq!(value(fields).unwrap(), "a.b.c", "{fields:?}");
        }
    }

    #[test]
    fn no_value_is_missing_and_several_are_refused_even_equal_ones() {
        for fields in [
            [].as_slice(),
            &[b"x=1".as_slice()],
            &[b"token"],
            &[b"token="],
            &[b"token=\"\""],
            &[b"x=token=a"],
            &[b"token =a"],
        ] {
            assert_eq!(value(fields), Err(JwtError::Missing), "{fields:?}");
        }
        for fields in [
            [b"token=a; token=b".as_slice()].as_slice(),
            &[b"token=a; token=a"],
            &[b"token=a", b"token=a"],
            &[b"token=; token=a"],
            &[b"token=\xff"],
        ] {
            assert_eq!(value(fields), Err(JwtError::Malformed), "{fields:?}");
        }
    }
}
