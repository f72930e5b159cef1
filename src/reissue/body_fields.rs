//! The header fields of a request whose answer will be changed, and of the changed answer.
//!
//! Keeps true: maps are rebuilt in order; no field is left that describes the body before the change, or lets a cache
//! keep a token.
//! Must not know: tokens.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    ETAG, LAST_MODIFIED, RANGE,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The request's fields: the whole answer is wanted, whatever the client has already, and in no encoding.
pub(crate) fn request(incoming: HeaderMap) -> HeaderMap {
    let mut outgoing = rebuilt(incoming, |name| {
        *name == RANGE
            || *name == ACCEPT_ENCODING
            || name.as_str().starts_with("if-")
            // Delta encoding (RFC 3229) describes an answer in terms of an earlier one.
            || name.as_str() == "a-im"
    });
    outgoing.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    outgoing
}

/// The answer's fields, without length, validators and digests of the former body; no cache may keep the answer.
pub(crate) fn response(incoming: HeaderMap) -> HeaderMap {
    let mut outgoing = rebuilt(incoming, |name| {
        [
            CONTENT_LENGTH,
            ETAG,
            LAST_MODIFIED,
            ACCEPT_RANGES,
            CACHE_CONTROL,
        ]
        .contains(name)
            || is_digest(name)
            || overrules_cache_control(name)
    });
    outgoing.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    outgoing
}

/// The answer's trailers, without digests of the former body.
pub(crate) fn trailers(incoming: HeaderMap) -> HeaderMap {
    rebuilt(incoming, |name| *name == ETAG || is_digest(name))
}

/// Whether the answer to the same request by `GET` would have content, by the head of the answer to `HEAD`.
pub(crate) fn tell_of_content(head: &Parts) -> bool {
    let bare = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    let empty = |length: &HeaderValue| length.as_bytes() == b"0";
    !bare.contains(&head.status) && !head.headers.get(CONTENT_LENGTH).is_some_and(empty)
}

/// Why an answer can't be searched as it is.
pub(crate) fn unreadable(status: StatusCode, headers: &HeaderMap) -> Option<&'static str> {
    if status == StatusCode::PARTIAL_CONTENT {
        return Some("206 without having been asked for a part");
    }
    let is_identity = |value: &HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        value.is_empty() || value.eq_ignore_ascii_case(b"identity")
    };
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    (!encodings.all(is_identity)).then_some("an encoded answer, though none was asked for")
}

/// Whether the body says that it is JSON: `application/json`, or a type that ends in `+json` (RFC 6839).
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let line = line.as_bytes();
    let essence = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || essence.ends_with(b"+json")
}

/// A field of RFC 9530, or of the RFCs that it replaced.
fn is_digest(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-md5" | "digest" | "content-digest" | "repr-digest"
    )
}

/// A field that the caches of a content delivery network obey before `Cache-Control` (RFC 9213).
fn overrules_cache_control(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("cdn-cache-control") || name == "surrogate-control"
}

fn rebuilt(incoming: HeaderMap, drops: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let mut outgoing = HeaderMap::with_capacity(incoming.len() + 1);
    let mut current = None;
    for (name, value) in incoming {
        current = name.or(current);
        if let Some(name) = &current
            && !drops(name)
        {
            outgoing.append(name.clone(), value);
        }
    }
    outgoing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let lines = headers.iter();
        lines
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn a_request_asks_for_the_whole_answer_unencoded() {
        let asked = request(map(&[
            ("host", "a"),
            ("range", "bytes=0-1"),
            ("if-none-match", "\"a\""),
            ("if-modified-since", "x"),
            ("if-range", "x"),
            ("if-match", "*"),
            ("if-unmodified-since", "x"),
            ("accept-encoding", "gzip"),
            ("accept-encoding", "br"),
            ("a-im", "vcdiff"),
            ("cookie", "a"),
            ("cookie", "b"),
        ]));
        assert_eq!(
            lines(&asked),
            [
                "host: a",
                "cookie: a",
                "cookie: b",
                "accept-encoding: identity"
            ]
        );
    }

    #[test]
    fn an_answer_says_nothing_of_the_bytes_it_had() {
        let answered = response(map(&[
            ("x-a", "1"),
            ("content-length", "9"),
            ("etag", "\"a\""),
            ("last-modified", "x"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("digest", "x"),
            ("content-digest", "x"),
            ("repr-digest", "x"),
            ("cache-control", "public"),
            ("cache-control", "max-age=9"),
            ("cdn-cache-control", "max-age=9"),
            ("example-cdn-cache-control", "max-age=9"),
            ("surrogate-control", "max-age=9"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
        ]));
        assert_eq!(
            lines(&answered),
            [
                "x-a: 1",
                "set-cookie: a",
                "set-cookie: b",
                "cache-control: no-store"
            ]
        );
        let left = trailers(map(&[("digest", "x"), ("x-timing", "1")]));
        assert_eq!(lines(&left), ["x-timing: 1"]);
    }

    #[test]
    fn what_is_json_says_so_itself() {
        for (types, json) in [
            (vec!["application/json"], true),
            (vec!["Application/JSON; charset=utf-8"], true),
            (vec!["application/problem+json;q=1"], true),
            (vec![], false),
            (vec!["text/plain"], false),
            (vec!["text/event-stream"], false),
            (vec!["application/x-ndjson"], false),
            (vec!["application/json-seq"], false),
            (vec!["application/json, text/html"], false),
            (vec!["application/json", "text/html"], false),
        ] {
            let lines: Vec<_> = types.iter().map(|line| ("content-type", *line)).collect();
            assert_eq!(is_json(&map(&lines)), json, "{types:?}");
        }
    }

    #[test]
    fn encodings_and_parts_cannot_be_read() {
        let of = |status, fields: &[(&'static str, &str)]| unreadable(status, &map(fields));
        assert_eq!(of(StatusCode::OK, &[]), None);
        assert_eq!(
            of(StatusCode::OK, &[("content-encoding", "Identity")]),
            None
        );
        assert!(of(StatusCode::OK, &[("content-encoding", "gzip")]).is_some());
        let lists = [("content-encoding", "identity"), ("content-encoding", "br")];
        assert!(of(StatusCode::OK, &lists).is_some());
        assert!(of(StatusCode::PARTIAL_CONTENT, &[]).is_some());
    }
}
