//! The head of a request (RFC 9112 §3, §6.3, §9.3).
//!
//! Keeps true: the end of a request's body is never guessed. Bytes that two servers could read in two ways are
//! refused here; requests that are clear and not acceptable are left to `http::sanity`, which refuses them with a
//! reason.
//! Must not know: which requests are allowed.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::{Method, Request, Uri, Version, request};

use super::decode::Decoder;
use super::field_lines::{
    USUAL_FIELDS, blank, elements, length, lists, lower_version, make_lowercase, may_be_complete,
    span_of,
};
use super::input::take_front;
use crate::http::hop::expects_continue;
use crate::http::request_fields::{FieldLines, FieldNames, FieldSpan, Range};

/// The longest target that `http::Uri` can hold.
const MAX_TARGET: usize = 65_534;

/// The longest name that `http::HeaderName` can hold.
const LONGEST_NAME: usize = 65_535;

const CONTENT_LENGTH: &[u8] = b"content-length";

/// The first line that an HTTP/2 client sends (RFC 9113 §3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The limits of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes of the whole head.
    pub(crate) bytes: usize,
    /// Number of fields.
    pub(crate) fields: usize,
}

/// A request up to its body.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Without fields.
    pub(crate) parts: request::Parts,
    pub(crate) fields: FieldLines,
    pub(crate) decoder: Decoder,
    /// Another request may follow on the connection.
    pub(crate) keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub(crate) expects_continue: bool,
    /// The client reads trailers.
    pub(crate) takes_trailers: bool,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestParseError {
    /// The bytes aren't HTTP/1, or the request's end is in doubt.
    Malformed,
    /// The header section is larger than allowed.
    TooLarge,
    /// The target is longer than `http::Uri` can hold.
    TargetTooLong,
    /// The client speaks HTTP/2.
    Http2,
}

/// Drops empty lines in front of a head. Says whether bytes are left.
pub(crate) fn begun(input: &mut BytesMut) -> bool {
    let blank = blank(input);
    if blank > 0 {
        input.advance(blank);
    }
    !input.is_empty()
}

/// Takes a head from the front of `input`. `None` where the head isn't complete; `known` bytes of it were parsed in
/// vain before.
pub(crate) fn take_head(
    input: &mut BytesMut,
    known: usize,
    limits: HeadLimits,
) -> Result<Option<RequestHead>, RequestParseError> {
    if known > 0 && !may_be_complete(input, known) {
        return incomplete(input, limits);
    }
    let usual = limits.fields.min(USUAL_FIELDS);
    let mut fields = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let fields = fields.get_mut(..usual).unwrap_or_default();
    let mut parsed = parse(input, fields);
    if let Err(httparse::Error::TooManyHeaders) = parsed {
        parsed = parse(input, &mut vec![MaybeUninit::uninit(); limits.fields]);
    }
    match parsed {
        Ok(Some(line)) => take(input, line, limits).map(Some),
        Ok(None) => incomplete(input, limits),
        Err(httparse::Error::Version) if lower_version(version(input)) => {
            take_head(input, 0, limits)
        }
        Err(error) => Err(refusal(error, input)),
    }
}

/// The bytes after the target, if there is one.
fn version(input: &mut [u8]) -> &mut [u8] {
    let mut parts = input.splitn_mut(3, |byte| *byte == b' ');
    parts.nth(2).unwrap_or_default()
}

fn incomplete(
    input: &BytesMut,
    limits: HeadLimits,
) -> Result<Option<RequestHead>, RequestParseError> {
    if input.len() >= limits.bytes {
        return Err(RequestParseError::TooLarge);
    }
    Ok(None)
}

fn refusal(error: httparse::Error, input: &[u8]) -> RequestParseError {
    match error {
        httparse::Error::TooManyHeaders => RequestParseError::TooLarge,
        _ if input.starts_with(HTTP2) => RequestParseError::Http2,
        _ => RequestParseError::Malformed,
    }
}

struct RequestLine {
    length: usize,
    method: Method,
    target: Range,
    version: Version,
    fields: Vec<FieldSpan>,
}

fn parse<'input>(
    input: &'input [u8],
    fields: &mut [MaybeUninit<httparse::Header<'input>>],
) -> Result<Option<RequestLine>, httparse::Error> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut request,
        input,
        fields,
    )?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let method = request.method.unwrap_or_default();
    let fields = request.headers.iter();
    Ok(Some(RequestLine {
        length,
        method: Method::from_bytes(method.as_bytes()).map_err(|_| httparse::Error::Token)?,
        target: Range::of(request.path.unwrap_or_default().as_bytes(), input),
        version: if request.version == Some(1) {
            Version::HTTP_11
        } else {
            Version::HTTP_10
        },
        fields: fields.map(|field| span_of(field, input)).collect(),
    }))
}

fn take(
    input: &mut BytesMut,
    line: RequestLine,
    limits: HeadLimits,
) -> Result<RequestHead, RequestParseError> {
    if line.length > limits.bytes || line.fields.len() > FieldLines::MOST {
        return Err(RequestParseError::TooLarge);
    }
    let target = line.target.indices();
    if target.len() > MAX_TARGET {
        return Err(RequestParseError::TargetTooLong);
    }
    let mut head = take_front(input, line.length);
    let mut said = RequestFraming::default();
    for place in &line.fields {
        said.take(place, &mut head)?;
    }
    let head = head.freeze();
    let mut fields = line.fields;
    let is_length = |place: &FieldSpan| {
        place
            .parts(&head)
            .is_some_and(|(name, _)| name == CONTENT_LENGTH)
    };
    if said.length_repeated {
        let mut said_before = false;
        fields.retain(|place| !is_length(place) || !std::mem::replace(&mut said_before, true));
    }
    let target =
        Uri::from_maybe_shared(head.slice(target)).map_err(|_| RequestParseError::Malformed)?;
    let decoder = said.decoder(line.version)?;
    let mut keep_alive = !said.close && (line.version == Version::HTTP_11 || said.keep_alive);
    if said.coded && said.length.is_some() {
        // RFC 9112 §6.3: chunked wins, the length is removed, and the connection isn't used for another request.
        fields.retain(|place| !is_length(place));
        keep_alive = false;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = line.method;
    parts.uri = target;
    parts.version = line.version;
    Ok(RequestHead {
        parts,
        fields: FieldLines::new(head, fields.into(), said.names),
        expects_continue: said.expects_continue
            && line.version == Version::HTTP_11
            && decoder != Decoder::Over,
        decoder,
        keep_alive,
        takes_trailers: said.takes_trailers && line.version == Version::HTTP_11,
    })
}

/// The framing and the connection's fate, as the fields say, and the fields' names.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // each is a field's own answer
struct RequestFraming {
    names: FieldNames,
    close: bool,
    keep_alive: bool,
    coded: bool,
    chunked: bool,
    length: Option<u64>,
    /// The length was said again, which adds nothing.
    length_repeated: bool,
    expects_continue: bool,
    takes_trailers: bool,
}

impl RequestFraming {
    /// Puts a field's name in lower case and notes the field.
    fn take(&mut self, place: &FieldSpan, head: &mut [u8]) -> Result<(), RequestParseError> {
        let malformed = RequestParseError::Malformed;
        let name = head.get_mut(place.name.indices()).ok_or(malformed)?;
        if name.len() > LONGEST_NAME {
            return Err(malformed);
        }
        make_lowercase(name);
        let (name, value) = place.parts(head).ok_or(malformed)?;
        self.names.note(name);
        self.note(name, value)
    }

    /// Notes a field.
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), RequestParseError> {
        match name {
            b"connection" => {
                self.close |= lists(value, b"close");
                self.keep_alive |= lists(value, b"keep-alive");
            }
            b"transfer-encoding" => {
                self.coded = true;
                let last = elements(value).next_back().unwrap_or_default();
                self.chunked = last.eq_ignore_ascii_case(b"chunked");
            }
            CONTENT_LENGTH => {
                let length = length(value).ok_or(RequestParseError::Malformed)?;
                match self.length.replace(length) {
                    None => {}
                    Some(other) if other == length => self.length_repeated = true,
                    Some(_) => return Err(RequestParseError::Malformed),
                }
            }
            b"expect" => self.expects_continue |= expects_continue(value),
            b"te" => self.takes_trailers |= lists(value, b"trailers"),
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 §6.3.
    fn decoder(&self, version: Version) -> Result<Decoder, RequestParseError> {
        if !self.coded {
            return Ok(Decoder::sized(self.length.unwrap_or(0)));
        }
        if !self.chunked || version == Version::HTTP_10 {
            return Err(RequestParseError::Malformed);
        }
        Ok(Decoder::chunked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1024,
        fields: 100,
    };

    fn head(text: &str) -> Result<Option<RequestHead>, RequestParseError> {
        take_head(&mut text.into(), 0, LIMITS)
    }

    fn complete(text: &str) -> RequestHead {
        head(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_ends_at_the_empty_line_and_leaves_the_rest() {
        let text = "\r\nGET /a?b HTTP/1.1\r\nHost: x\r\nX-A: \r\ncookie: b\r\nCookie: c\r\n\r\nGET";
        let mut input = BytesMut::from(text);
        assert!(begun(&mut input));
        let head = take_head(&mut input, 0, LIMITS).unwrap().unwrap();
        let (parts, fields) = (head.parts, head.fields.to_map());
        assert_eq!(
            (parts.method, parts.uri),
            (Method::GET, "/a?b".parse().unwrap())
        );
        assert_eq!(&input[..], b"GET");
        let cookies: Vec<_> = fields.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["b", "c"]);
        assert_eq!(fields["x-a"], "");
    }

    #[test]
    fn a_later_minor_version_is_read_as_1_1_however_it_is_cut() {
        let text = "GET / HTTP/1.3\r\nHost: x\r\nConnection: x\r\n\r\n";
        for cut in 0..text.len() {
            let mut input = BytesMut::from(&text[..cut]);
            let known = input.len();
            let begun = take_head(&mut input, 0, LIMITS);
            assert!(begun.unwrap().is_none(), "{cut}");
            input.extend_from_slice(&text.as_bytes()[cut..]);
            let head = take_head(&mut input, known, LIMITS);
            let head = head.unwrap().unwrap();
            assert_eq!(
                (head.parts.version, head.keep_alive),
                (Version::HTTP_11, true)
            );
        }
    }

    #[test]
    fn only_whole_empty_lines_are_dropped_in_front() {
        for (text, left) in [
            ("", ""),
            ("\r\n\n\r\n", ""),
            ("\r\nG", "G"),
            ("\rG", "\rG"),
            ("\r\n\r", "\r"),
            ("\r\r\nG", "\r\r\nG"),
        ] {
            let mut input = BytesMut::from(text);
            assert_eq!(begun(&mut input), !left.is_empty(), "{text:?}");
            assert_eq!(&input[..], left.as_bytes());
        }
        for text in ["\rGET / HTTP/1.1\r\n\r\n", "\r\r\nGET / HTTP/1.1\r\n\r\n"] {
            assert_eq!(
                head(text).err(),
                Some(RequestParseError::Malformed),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_head_is_complete_with_its_last_byte_however_it_is_cut() {
        for text in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.0\r\n\r\n",
        ] {
            let mut input = BytesMut::new();
            let mut known = 0;
            let (last, before) = text.as_bytes().split_last().unwrap();
            for byte in before {
                input.extend_from_slice(&[*byte]);
                let head = take_head(&mut input, known, LIMITS);
                assert!(head.unwrap().is_none(), "{text}");
                known = input.len();
            }
            input.extend_from_slice(&[*last]);
            let head = take_head(&mut input, known, LIMITS);
            assert!(head.unwrap().is_some(), "{text}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn the_body_is_framed_as_the_fields_say() {
        for (text, decoder, keep_alive) in [
            (
                "POST / HTTP/1.1\r\ncontent-length: 5",
                Decoder::sized(5),
                true,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5",
                Decoder::sized(5),
                true,
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: Chunked",
                Decoder::chunked(),
                true,
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked",
                Decoder::chunked(),
                true,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 9\r\ntransfer-encoding: chunked",
                Decoder::chunked(),
                false,
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 9",
                Decoder::chunked(),
                false,
            ),
            ("POST / HTTP/1.1", Decoder::Over, true),
            (
                "POST / HTTP/1.1\r\nconnection: a, Close\r\nconnection: keep-alive",
                Decoder::Over,
                false,
            ),
            (
                "POST / HTTP/1.0\r\ncontent-length: 5",
                Decoder::sized(5),
                false,
            ),
            (
                "POST / HTTP/1.0\r\nconnection: Keep-Alive",
                Decoder::Over,
                true,
            ),
        ] {
            let head = complete(&format!("{text}\r\n\r\n"));
            assert_eq!(
                (head.decoder, head.keep_alive),
                (decoder, keep_alive),
                "{text}"
            );
            let fields = head.fields.to_map();
            let lengths = fields.get_all("content-length").iter().count();
            assert_eq!(lengths, usize::from(text.contains("length: 5")), "{text}");
        }
    }

    #[test]
    fn what_the_client_expects_is_said_where_it_can_be_had() {
        let head = |fields: &str, version: &str| {
            complete(&format!("POST / HTTP/{version}\r\n{fields}\r\n\r\n"))
        };
        let both = "te: gzip, Trailers\r\nexpect: 100-Continue\r\ncontent-length: 1";
        let new = head(both, "1.1");
        assert!(new.expects_continue && new.takes_trailers);
        let old = head(both, "1.0");
        assert!(!old.expects_continue && !old.takes_trailers);
        assert!(
            !head("expect: 100-continue", "1.1").expects_continue,
            "no body"
        );
    }

    #[test]
    fn what_contradicts_itself_or_is_no_http_1_is_refused() {
        for text in [
            "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: \r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: x\r\n\r\n",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: \r\n\r\n",
            "GET / HTTP/1.1\r\nname : value\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.22\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET /` HTTP/1.1\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert_eq!(
                head(text).err(),
                Some(RequestParseError::Malformed),
                "{text:?}"
            );
        }
        assert_eq!(
            head("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").err(),
            Some(RequestParseError::Http2)
        );
    }

    #[test]
    fn heads_are_bounded_in_fields_bytes_and_target() {
        let with = |fields: usize, most: usize| {
            let limits = HeadLimits {
                bytes: 100_000,
                fields: most,
            };
            let text = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(fields));
            take_head(&mut text.as_str().into(), 0, limits)
        };
        for most in [1, USUAL_FIELDS, 200] {
            assert_eq!(
                with(most, most).unwrap().unwrap().fields.to_map().len(),
                most
            );
            assert_eq!(
                with(most + 1, most).err(),
                Some(RequestParseError::TooLarge)
            );
        }
        let with = |bytes: usize, end: &str| {
            head(&format!(
                "GET / HTTP/1.1\r\na: {}{end}",
                "b".repeat(bytes - 19)
            ))
        };
        assert!(with(LIMITS.bytes - 4, "\r\n\r\n").unwrap().is_some());
        assert_eq!(
            with(LIMITS.bytes - 3, "\r\n\r\n").err(),
            Some(RequestParseError::TooLarge)
        );
        assert!(with(LIMITS.bytes - 1, "").unwrap().is_none());
        assert_eq!(
            with(LIMITS.bytes, "").err(),
            Some(RequestParseError::TooLarge)
        );
        let limits = HeadLimits {
            bytes: 1_000_000,
            ..LIMITS
        };
        let text = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_TARGET));
        let head = take_head(&mut text.as_str().into(), 0, limits);
        assert_eq!(head.err(), Some(RequestParseError::TargetTooLong));
    }
}
