//! Responses as bytes (RFC 9112 §4, §6, §9.3).
//!
//! Keeps true: the framing of a response follows its body, whatever its own fields say; `Connection` says whether the
//! connection goes on where the client might assume otherwise.
//! Must not know: which fields are sent to the client, where the body comes from.

use std::io::Write;

use http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{StatusCode, Version, response};
use hyper::ext::ReasonPhrase;

use super::encode::Encoder;
use super::field_lines::{length, lists};
use crate::exchange::InterimResponse;
use crate::exchange::raw_fields::RawFieldLines;
use crate::http::hop::{interim_fields, write_field};

/// The facts besides the response that its head depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseHeadTerms {
    /// The request's version.
    pub(crate) version: Version,
    /// Whether the request was HEAD.
    pub(crate) to_head_request: bool,
    /// The body's length, if it is known.
    pub(crate) length: Option<u64>,
    /// Another request may follow, unless the response's own fields forbid it.
    pub(crate) keep_alive: bool,
}

/// The framing and the connection's fate that a head announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnnouncedFraming {
    pub(crate) encoder: Encoder,
    /// Another request may follow.
    pub(crate) keep_alive: bool,
}

/// Appends the head of a response: its raw fields as they are, then its other fields.
pub(crate) fn write_head(
    head: &response::Parts,
    raw_fields: Option<&RawFieldLines>,
    terms: ResponseHeadTerms,
    out: &mut Vec<u8>,
) -> AnnouncedFraming {
    let old = terms.version == Version::HTTP_10;
    write_status_line(head, old, out);
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let bodyless = switching || is_bodyless(head.status);
    let silent = bodyless || terms.to_head_request;
    let mut keep_alive = terms.keep_alive;
    let mut connection_said = switching;
    let mut announced = None;
    if let Some(fields) = raw_fields {
        out.extend_from_slice(fields.as_bytes());
        announced = fields.length();
    }
    for (name, value) in &head.headers {
        match *name {
            CONTENT_LENGTH => {
                let said = length(value.as_bytes());
                let repeated = announced.is_some();
                let holds = silent || terms.length.is_none_or(|length| said == Some(length));
                // Among responses without a body, only a 304 may tell the length of its representation (RFC 9110
                // §8.6).
                let allowed = !bodyless || head.status == StatusCode::NOT_MODIFIED;
                if repeated || said.is_none() || !holds || !allowed {
                    continue;
                }
                announced = said;
            }
            CONNECTION => {
                keep_alive &= !lists(value.as_bytes(), b"close");
                connection_said = true;
            }
            TRANSFER_ENCODING => continue,
            TRAILER if old || silent => continue,
            _ => {}
        }
        write_field(name, value.as_bytes(), out);
    }
    let encoder = match announced.or(terms.length) {
        _ if silent => Encoder::Over,
        Some(length) => {
            if announced.is_none() {
                write_length(length, out);
            }
            Encoder::sized(length)
        }
        None if old => Encoder::UntilClose,
        None => {
            write_field(&TRANSFER_ENCODING, b"chunked", out);
            Encoder::Chunked
        }
    };
    keep_alive &= encoder != Encoder::UntilClose;
    if !connection_said && (old || !keep_alive) {
        let value = if keep_alive { "keep-alive" } else { "close" };
        write_field(&CONNECTION, value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
    AnnouncedFraming {
        encoder,
        keep_alive,
    }
}

/// Appends an interim response (RFC 9110 §15.2), which has no body and says nothing about the connection.
pub(crate) fn write_interim(head: &InterimResponse, out: &mut Vec<u8>) {
    write_status_line(&head.parts, false, out);
    match &head.raw_fields {
        Some(fields) => out.extend_from_slice(fields.as_bytes()),
        None => interim_fields(&head.parts.headers)
            .for_each(|(name, value)| write_field(name, value.as_bytes(), out)),
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a response with this status has no body, whatever the request was (RFC 9110 §6.4.1).
pub(crate) fn is_bodyless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn write_status_line(head: &response::Parts, old: bool, out: &mut Vec<u8>) {
    let version: &[u8] = if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    let reason = match head.extensions.get::<ReasonPhrase>() {
        Some(reason) => reason.as_bytes(),
        None => head
            .status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes(),
    };
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    // Writing to a vector can't fail.
    let _ = write!(out, "content-length: {length}\r\n");
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Response};

    use super::*;

    const TERMS: ResponseHeadTerms = ResponseHeadTerms {
        version: Version::HTTP_11,
        to_head_request: false,
        length: Some(5),
        keep_alive: true,
    };

    fn written(
        status: u16,
        fields: &[(&'static str, &'static str)],
        terms: ResponseHeadTerms,
    ) -> (String, AnnouncedFraming) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        parts.headers = headers;
        let mut out = Vec::new();
        let announced = write_head(&parts, None, terms, &mut out);
        (String::from_utf8(out).unwrap(), announced)
    }

    fn lines(
        status: u16,
        fields: &[(&'static str, &'static str)],
        terms: ResponseHeadTerms,
    ) -> (String, Encoder, bool) {
        let (text, announced) = written(status, fields, terms);
        let lines = text.strip_suffix("\r\n\r\n").unwrap();
        let (_, lines) = lines.split_once("\r\n").unwrap_or((lines, ""));
        (
            lines.replace("\r\n", "|"),
            announced.encoder,
            announced.keep_alive,
        )
    }

    #[test]
    fn a_head_is_written_in_the_order_of_its_fields() {
        let fields = [
            ("set-cookie", "a"),
            ("content-length", "5"),
            ("x-a", ""),
            ("set-cookie", "b"),
        ];
        let (text, announced) = written(200, &fields, TERMS);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 5\r\nx-a: \r\n\r\n"
        );
        let expected = AnnouncedFraming {
            encoder: Encoder::Sized(5),
            keep_alive: true,
        };
        assert_eq!(announced, expected);
        assert!(written(299, &[], TERMS).0.starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn the_body_is_framed_as_its_length_is_known() {
        let unknown = ResponseHeadTerms {
            length: None,
            ..TERMS
        };
        let empty = ResponseHeadTerms {
            length: Some(0),
            ..TERMS
        };
        for (fields, terms, expected) in [
            (
                &[][..],
                TERMS,
                ("content-length: 5", Encoder::Sized(5), true),
            ),
            (&[], empty, ("content-length: 0", Encoder::Over, true)),
            (
                &[],
                unknown,
                ("transfer-encoding: chunked", Encoder::Chunked, true),
            ),
            (
                &[("content-length", "7")],
                unknown,
                ("content-length: 7", Encoder::Sized(7), true),
            ),
            (
                &[("content-length", "7")],
                TERMS,
                ("content-length: 5", Encoder::Sized(5), true),
            ),
            (
                &[("content-length", "5, 5")],
                TERMS,
                ("content-length: 5", Encoder::Sized(5), true),
            ),
            (
                &[("content-length", "5"), ("content-length", "5")],
                TERMS,
                ("content-length: 5", Encoder::Sized(5), true),
            ),
            (
                &[("connection", "close")],
                TERMS,
                (
                    "connection: close|content-length: 5",
                    Encoder::Sized(5),
                    false,
                ),
            ),
        ] {
            let (text, encoder, keep_alive) = lines(200, fields, terms);
            assert_eq!((text.as_str(), encoder, keep_alive), expected);
        }
    }

    #[test]
    fn what_has_no_body_says_at_most_how_long_it_would_have_been() {
        let head = ResponseHeadTerms {
            to_head_request: true,
            length: Some(0),
            ..TERMS
        };
        let none = ResponseHeadTerms {
            length: Some(0),
            ..TERMS
        };
        let length = [("content-length", "7"), ("trailer", "x")];
        for (status, fields, terms, expected) in [
            (200, &length[..], head, "content-length: 7"),
            (200, &[], head, ""),
            (304, &length, none, "content-length: 7"),
            (304, &[], none, ""),
            (204, &length, none, ""),
            (
                101,
                &[("connection", "Upgrade")],
                none,
                "connection: Upgrade",
            ),
        ] {
            let (text, encoder, _) = lines(status, fields, terms);
            assert_eq!(
                (text.as_str(), encoder),
                (expected, Encoder::Over),
                "{status}"
            );
        }
    }

    #[test]
    fn the_end_of_a_connection_is_said_to_new_clients_and_its_going_on_to_old_ones() {
        let old = ResponseHeadTerms {
            version: Version::HTTP_10,
            ..TERMS
        };
        let unknown = ResponseHeadTerms {
            length: None,
            ..old
        };
        let last = |terms| ResponseHeadTerms {
            keep_alive: false,
            ..terms
        };
        for (terms, expected) in [
            (TERMS, ("content-length: 5", Encoder::Sized(5), true)),
            (
                last(TERMS),
                (
                    "content-length: 5|connection: close",
                    Encoder::Sized(5),
                    false,
                ),
            ),
            (
                old,
                (
                    "content-length: 5|connection: keep-alive",
                    Encoder::Sized(5),
                    true,
                ),
            ),
            (
                last(old),
                (
                    "content-length: 5|connection: close",
                    Encoder::Sized(5),
                    false,
                ),
            ),
            (unknown, ("connection: close", Encoder::UntilClose, false)),
        ] {
            let (text, encoder, keep_alive) = lines(200, &[], terms);
            assert_eq!((text.as_str(), encoder, keep_alive), expected);
        }
        assert!(written(200, &[], old).0.starts_with("HTTP/1.0 200 OK\r\n"));
    }
}
