//! Requests as bytes (RFC 9112 §3, §6, §7.1).
//!
//! Keeps true: the framing of a request follows its body, whatever the client's fields said.
//! Must not know: which fields are sent on, where the body comes from.

use http::Request;
use http_body::Body as _;

use super::encode::Encoder;
use crate::exchange::request_body::fields_of;
use crate::exchange::response_body::RequestBody;
use crate::http::hop::{self, RequestChanges};
use crate::http::target;

/// Appends the head of a request, with the client's fields that are sent on and renewd's own.
pub(crate) fn write_head(
    request: &Request<RequestBody>,
    changes: &RequestChanges<'_>,
    out: &mut Vec<u8>,
) -> Encoder {
    let target = target::origin_form(request.uri());
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = target.as_deref().unwrap_or("/");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    hop::write_request_fields(fields_of(request), changes, out);
    out.extend_from_slice(b"\r\n");
    let body = request.body();
    match body.size_hint().exact() {
        _ if body.is_end_stream() => Encoder::Over,
        Some(length) if !changes.chunked => Encoder::sized(length),
        _ => Encoder::Chunked,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::HeaderValue;

    use super::*;
    use crate::exchange::Exchange;
    use crate::http::forwarded::{ClientScheme, ForwardingClaims, Origin};

    fn written(
        target: &str,
        headers: &[(&'static str, &'static str)],
        body: Option<&'static str>,
    ) -> (Encoder, String) {
        let exchange = Rc::new(Exchange::default());
        let body = RequestBody::empty(exchange).replay(body.unwrap_or_default().into());
        let mut request = Request::post(target).body(body).unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        let origin = Origin {
            client_ip: None,
            host: None,
            scheme: ClientScheme::Http,
            claims: ForwardingClaims::None,
        };
        let changes = RequestChanges {
            host: &HeaderValue::from_static("live.example"),
            origin: &origin,
            request_id: b"id-1",
            upgrade: false,
            chunked: request.body().is_unannounced(request.headers()),
            keeps_method: false,
        };
        let mut out = Vec::new();
        let encoder = write_head(&request, &changes, &mut out);
        let text = String::from_utf8(out).unwrap();
        let own = "x-forwarded-proto: http\r\nx-request-id: id-1\r\n\r\n";
        (encoder, text.strip_suffix(own).unwrap().to_owned())
    }

    #[test]
    fn a_head_is_written_in_the_order_of_its_fields() {
        let fields = [("host", "other"), ("cookie", "a=1"), ("cookie", "b=2")];
        let expected =
            "POST /a?b=c HTTP/1.1\r\nhost: live.example\r\ncookie: a=1\r\ncookie: b=2\r\n";
        assert_eq!(
            written("/a?b=c", &fields, None),
            (Encoder::Over, expected.into())
        );
    }

    #[test]
    fn the_target_is_in_origin_form() {
        for (target, expected) in [
            ("http://live.example/a?b", "/a?b"),
            ("http://live.example", "/"),
            ("http://live.example?b", "/?b"),
            ("*", "*"),
        ] {
            let expected = format!("POST {expected} HTTP/1.1\r\nhost: live.example\r\n");
            assert_eq!(written(target, &[("host", "x")], None).1, expected);
        }
    }

    #[test]
    fn a_body_is_sized_where_its_length_is_announced_and_chunked_otherwise() {
        let sized = [("host", "x"), ("content-length", "5")];
        let expected = "POST / HTTP/1.1\r\nhost: live.example\r\ncontent-length: 5\r\n";
        assert_eq!(
            written("/", &sized, Some("hello")),
            (Encoder::Sized(5), expected.into())
        );
        let fields = [("host", "x"), ("transfer-encoding", "gzip")];
        let expected = "POST / HTTP/1.1\r\nhost: live.example\r\ntransfer-encoding: chunked\r\n";
        assert_eq!(
            written("/", &fields, Some("hello")),
            (Encoder::Chunked, expected.into())
        );
        let expected = "POST / HTTP/1.1\r\nhost: live.example\r\n";
        assert_eq!(
            written("/", &fields, None),
            (Encoder::Over, expected.into())
        );
    }
}
