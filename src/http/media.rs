//! Which media type a request body claims to be (RFC 9110 section 8.3), of the two that the token endpoints read.
//!
//! Must not know: how either is parsed.

use http::header::{CONTENT_TYPE, HeaderMap};

/// A body format of the token endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Media {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

/// The body's media type; `None` (415) when there is no `Content-Type` or more than one, for any other type, and for
/// a `charset` other than UTF-8. Other parameters are ignored.
pub(crate) fn of(headers: &HeaderMap) -> Option<Media> {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    parse(line.to_str().ok()?)
}

fn parse(content_type: &str) -> Option<Media> {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next()?;
    let media = if essence.eq_ignore_ascii_case("application/json") {
        Media::Json
    } else if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Media::Form
    } else {
        return None;
    };
    parts.all(is_harmless).then_some(media)
}

/// Whether a parameter is anything but a foreign `charset`.
fn is_harmless(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return true;
    };
    if !name.trim_end().eq_ignore_ascii_case("charset") {
        return true;
    }
    let value = value.trim_start();
    let unquoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let charset = unquoted.unwrap_or(value);
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_forms_in_utf_8_are_read() {
        for (content_type, media) in [
            ("application/json", Media::Json),
            ("Application/JSON; charset=UTF-8", Media::Json),
            ("application/json;charset=\"utf-8\"", Media::Json),
            ("application/json ; charset = utf8 ; v=1", Media::Json),
            ("application/json;", Media::Json),
            ("application/x-www-form-urlencoded", Media::Form),
        ] {
            assert_eq!(parse(content_type), Some(media), "{content_type}");
        }
    }

    #[test]
    fn everything_else_is_unsupported() {
        for content_type in [
            "",
            "text/plain",
            "application/jsonp",
            "application/ld+json",
            "application/json, text/plain",
            "application/json; charset=utf-16",
            "application/json; charset=latin1",
            "multipart/form-data; boundary=x",
        ] {
            assert_eq!(parse(content_type), None, "{content_type}");
        }
    }

    #[test]
    fn a_content_type_must_stand_alone() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), None);
        headers.append(CONTENT_TYPE, "application/json".parse().unwrap());
        assert_eq!(of(&headers), Some(Media::Json));
        headers.append(CONTENT_TYPE, "application/json".parse().unwrap());
        assert_eq!(of(&headers), None);
    }
}
