//! Translates HTTP/2's header fields for HTTP/1.1 behind renewd (RFC 9113 §8.2).
//!
//! Must not know: frames, connections, what a field means beyond `Cookie` and `Content-Length`.

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HeaderName, HeaderValue};

use super::hop::X_REQUEST_ID;

/// Takes the spaces and tabs off both ends of each value.
///
/// A value that has some makes its message malformed (RFC 9113 §8.2.1). Yet widely used clients send what an
/// application gave them, and most servers in front of applications take it (nginx, haproxy, and Envoy, which turned the
/// check off because deployments broke). In HTTP/1.1 the same spaces are no part of the value (RFC 9112 §5.1), so the
/// backend's parser drops them. Here they are dropped before anything reads them, so that renewd decides on the value
/// that the backend will read.
pub(crate) fn trim_values(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let trimmed = value.as_bytes().trim_ascii();
        if trimmed.len() == value.len() {
            continue;
        }
        // A part of a valid value is valid.
        if let Ok(mut trimmed) = HeaderValue::from_bytes(trimmed) {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

/// Joins `Cookie` lines, which HTTP/2 clients may split, into one (RFC 9113 §8.2.3). All else stays in order.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE);
    let mut crumbs = crumbs.iter();
    let Some(first) = crumbs.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    let mut several = false;
    for crumb in crumbs {
        several = true;
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Valid values stay valid when joined.
    if several && let Ok(joined) = HeaderValue::from_bytes(&joined) {
        // Replaces the others in the first one's place.
        headers.insert(COOKIE, joined);
    }
}

/// Leaves one `Content-Length` of several that are equal; Node refuses a request that says it twice. `false` where they
/// aren't, or one isn't a number (RFC 9110 §8.6): h2 0.4.20 takes an empty one for 0 (`parse_u64` in
/// `frame/headers.rs`), and passes equal ones on (`recv_headers` in `proto/streams/recv.rs`).
pub(crate) fn join_lengths(headers: &mut HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return true;
    };
    let digits = first.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let mut several = false;
    for other in lengths {
        several = true;
        if other != first {
            return false;
        }
    }
    if several {
        let length = first.clone();
        // Replaces the others in the first one's place.
        headers.insert(CONTENT_LENGTH, length);
    }
    true
}

/// Whether a header section is within the limits that HTTP/1.1 has: its fields, and their bytes as lines.
pub(crate) fn fits(headers: &HeaderMap, most_fields: usize, most_bytes: usize) -> bool {
    // `: ` and the line's end.
    const PUNCTUATION: usize = 4;
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + PUNCTUATION)
        .sum();
    headers.len() <= most_fields && bytes <= most_bytes
}

/// The value of `Content-Length`, which [`join_lengths`] has checked.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Takes the fields out of a response that concern a connection of HTTP/1.1, and those that its `Connection` nominates:
/// with one of them, the response would be malformed (RFC 9113 §8.2.2). Unless the response `may_say_length`,
/// `Content-Length` goes too: clients built on nghttp2 reset a 204 that has one (RFC 9110 §8.6).
pub(crate) fn strip_for_http2(headers: &mut HeaderMap, may_say_length: bool) {
    let is_unwanted =
        |name: &HeaderName| concerns_connection(name) || !may_say_length && *name == CONTENT_LENGTH;
    if !headers.keys().any(is_unwanted) {
        return;
    }
    let options = headers.get_all(CONNECTION).iter();
    let options = options.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let nominated: Vec<Vec<u8>> = options
        .map(|option| option.trim_ascii().to_ascii_lowercase())
        .collect();
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in &*headers {
        let is_nominated = || {
            nominated
                .iter()
                .any(|option| option == name.as_str().as_bytes())
        };
        if !is_unwanted(name) && !is_nominated() {
            kept.append(name, value.clone());
        }
    }
    *headers = kept;
}

/// Whether a field of this name concerns a connection of HTTP/1.1 by itself.
fn concerns_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
    )
}

/// Keeps the request's id out of the table of header compression (RFC 7541 §7.1.3): it never comes again, and would
/// push out what does.
pub(crate) fn leave_id_unindexed(headers: &mut HeaderMap) {
    if let Some(id) = headers.get_mut(X_REQUEST_ID) {
        id.set_sensitive(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn fields_of_a_connection_leave_a_response_and_all_others_stay_in_order() {
        let mut headers = map(&[
            ("x-a", "1"),
            ("connection", "close, X-Hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "2"),
            ("transfer-encoding", "chunked"),
            ("x-a", "3"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("proxy-connection", "close"),
            ("x-b", "4"),
        ]);
        strip_for_http2(&mut headers, true);
        let left: Vec<_> = headers.iter().map(|(_, value)| value).collect();
        assert_eq!(left, ["1", "3", "4"]);
        let mut headers = map(&[("content-length", "1"), ("x", "2"), ("y", "3")]);
        let whole = headers.clone();
        strip_for_http2(&mut headers, true);
        assert_eq!(headers, whole);
        strip_for_http2(&mut headers, false);
        let rest = map(&[("x", "2"), ("y", "3")]);
        assert!(headers.iter().eq(rest.iter()), "{headers:?}");
        assert_eq!(announced(&map(&[("content-length", "12")])), Some(12));
        assert_eq!(announced(&headers), None);
    }

    #[test]
    fn values_lose_the_spaces_around_them_and_nothing_else() {
        let mut headers = map(&[("a", " \tb c\t "), ("d", "e"), ("a", "\t"), ("f", "")]);
        headers.get_mut("a").unwrap().set_sensitive(true);
        trim_values(&mut headers);
        let expected = map(&[("a", "b c"), ("d", "e"), ("a", ""), ("f", "")]);
        assert!(headers.iter().eq(expected.iter()), "{headers:?}");
        assert!(headers["a"].is_sensitive());
    }

    #[test]
    fn cookie_crumbs_become_one_line_in_the_first_ones_place() {
        let mut headers = map(&[
            ("accept", "a"),
            ("cookie", "a=1"),
            ("x", "1"),
            ("cookie", "b=2; c=3"),
            ("cookie", "d=4"),
            ("x", "2"),
        ]);
        join_cookies(&mut headers);
        let expected = map(&[
            ("accept", "a"),
            ("cookie", "a=1; b=2; c=3; d=4"),
            ("x", "1"),
            ("x", "2"),
        ]);
        assert!(headers.iter().eq(expected.iter()), "{headers:?}");
        let mut one = map(&[("cookie", "a=1; b=2")]);
        join_cookies(&mut one);
        assert_eq!(one, map(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn a_length_said_twice_is_said_once() {
        let mut headers = map(&[("content-length", "3"), ("x", "1"), ("content-length", "3")]);
        assert!(join_lengths(&mut headers));
        let expected = map(&[("content-length", "3"), ("x", "1")]);
        assert!(headers.iter().eq(expected.iter()), "{headers:?}");
        assert!(join_lengths(&mut headers));
        assert_eq!(headers, expected);
        assert!(join_lengths(&mut HeaderMap::new()));
    }

    #[test]
    fn a_length_that_is_none_is_not_passed_on() {
        for lengths in [&[""][..], &["+3"], &["3, 3"], &["3", ""], &["3", "4"]] {
            let lines: Vec<_> = lengths
                .iter()
                .map(|text| ("content-length", *text))
                .collect();
            assert!(!join_lengths(&mut map(&lines)), "{lengths:?}");
        }
    }

    #[test]
    fn fields_and_bytes_are_bounded_as_in_http_1() {
        let headers = map(&[("a", "1"), ("b", "2")]);
        assert!(fits(&headers, 2, 12));
        assert!(!fits(&headers, 1, 12));
        assert!(!fits(&headers, 2, 11));
    }
}
