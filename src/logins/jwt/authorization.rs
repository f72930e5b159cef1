//! The credentials in `Authorization`.
//!
//! Must not know: what a JWT is.

use ::http::HeaderMap;
use ::http::header::AUTHORIZATION;

use super::JwtError;

/// The credentials in `Authorization`: after `Bearer` in any letter case (RFC 6750 §2.1), or the bare token, which
/// the installed clients may send.
///
/// Errors: [`JwtError::Missing`] when there is no field or nothing in it, [`JwtError::Malformed`] when there are
/// several fields (renewd would have to guess which of them counts), or bytes outside visible ASCII.
pub(crate) fn authorization(headers: &HeaderMap) -> Result<&str, JwtError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next().ok_or(JwtError::Missing)?;
    if fields.next().is_some() {
        return Err(JwtError::Malformed);
    }
    let value = field.to_str().map_err(|_| JwtError::Malformed)?;
    let value = value.trim_matches([' ', '\t']);
    let token = match value.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
        None if value.eq_ignore_ascii_case("bearer") => "",
        _ => value,
    };
    if token.is_empty() {
        return Err(JwtError::Missing);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static [u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case_or_absent() {
        for value in [
            b"Bearer a.b.c".as_slice(),
            b"bearer a.b.c",
            b"BEARER   a.b.c",
            b"Bearer a.b.c \t",
            b"a.b.c",
            b"  a.b.c",
        ] {
            assert_eq!(authorization(&headers(&[value])), Ok("a.b.c"));
        }
    }

    #[test]
    fn nothing_to_verify_is_missing() {
        for values in [
            [].as_slice(),
            &[b"".as_slice()],
            &[b" \t "],
            &[b"Bearer"],
            &[b"bearer  "],
        ] {
            assert_eq!(authorization(&headers(values)), Err(JwtError::Missing));
        }
    }

    #[test]
    fn several_fields_are_refused_even_when_equal() {
        let twice = headers(&[b"Bearer a.b.c", b"Bearer a.b.c"]);
        assert_eq!(authorization(&twice), Err(JwtError::Malformed));
    }

    #[test]
    fn other_schemes_stay_whole_so_that_no_verifier_takes_them() {
        assert_eq!(authorization(&headers(&[b"Basic YTpi"])), Ok("Basic YTpi"));
        assert_eq!(
            authorization(&headers(&[b"Bearer\xff a.b.c"])),
            Err(JwtError::Malformed)
        );
    }
}
