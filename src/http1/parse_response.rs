//! The head of a response (RFC 9112 §4, §6.3, §9.3).
//!
//! Keeps true: a head that contradicts itself or can't be framed again without guessing is refused; interim responses
//! other than 101 are skipped where the client can't have them, and 100 always.
//! Must not know: which responses may be sent to a client.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode, Version, response};
use hyper::ext::ReasonPhrase;

use super::Malformed;
use super::decode::Decoder;
use super::field_lines::{
    USUAL_FIELDS, blank, elements, length, lower_version, may_be_complete, span_of, take_field,
    without,
};
use super::write_response::is_bodyless;
use crate::exchange::raw_fields::{RawFieldLines, is_event_stream};
use crate::http::request_fields::{FieldSpan, LineCopier};

/// The most bytes of a head: more than any server sends. They are also the most that a connection can be made to keep.
const MAX_HEAD: usize = 256 * 1024;

/// The most fields of a head. Node itself sends more than a hundred if the application sets them.
const MAX_FIELDS: usize = 512;

/// Room after a response's raw fields for `x-request-id`.
const ROOM: usize = 64;

const NO_FIELD: Malformed = Malformed("a header field is invalid");

/// How long before the announced end a connection is no longer used: a request must arrive before the server closes.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// A response up to its body.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) parts: response::Parts,
    /// The fields for the client, where they are not in `parts`.
    pub(crate) raw_fields: Option<RawFieldLines>,
    pub(crate) decoder: Decoder,
    /// The connection can be used for another request.
    pub(crate) keep_alive: bool,
    /// How long the connection may be idle, where the server says so in `Keep-Alive`.
    pub(crate) keep_alive_for: Option<Duration>,
}

impl ResponseHead {
    /// Whether another head follows: this one is a 1xx, and not 101.
    pub(crate) fn is_interim(&self) -> bool {
        self.parts.status.is_informational() && self.parts.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// Whether the body is `text/event-stream`, which has no end.
    pub(crate) fn is_event_stream(&self) -> bool {
        if let Some(fields) = &self.raw_fields {
            return fields.event_stream();
        }
        let content_type = self.parts.headers.get(CONTENT_TYPE);
        content_type.is_some_and(|value| is_event_stream(value.as_bytes()))
    }
}

/// The facts of a request that parsing its response depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestFacts {
    /// The method was HEAD.
    pub(crate) by_head: bool,
    /// The client speaks HTTP/1, so that the fields are kept raw where none of them has to be read.
    pub(crate) for_http1: bool,
    /// The client takes interim responses. Those of HTTP/1.0 don't know them (RFC 9110 §15.2).
    pub(crate) takes_interim: bool,
}

/// Takes a head from the front of `input`. `None` where the head isn't complete; `known` bytes of it were parsed in
/// vain before.
///
/// Fields that concern this connection alone are dropped, except for those of a 101: `Transfer-Encoding`, a
/// `Content-Length` beside it, `Keep-Alive`, and `Connection` where it nominates no other field. `spare` is an empty
/// map whose memory is used. The head is boxed, since every future between here and the client would move it.
pub(crate) fn take_head(
    input: &mut BytesMut,
    mut known: usize,
    asked: RequestFacts,
    spare: &mut HeaderMap,
) -> Result<Option<Box<ResponseHead>>, Malformed> {
    loop {
        // Very old servers ended bodies with an extra empty line.
        input.advance(blank(input));
        if input.is_empty() || (known > 0 && !may_be_complete(input, known)) {
            return incomplete(input);
        }
        let Some(head) = take_any(input, asked, spare)? else {
            return incomplete(input);
        };
        // 100 answers an `Expect` that renewd has answered itself.
        let passes = asked.takes_interim && head.parts.status != StatusCode::CONTINUE;
        if !head.is_interim() || passes {
            return Ok(Some(head));
        }
        known = 0;
    }
}

fn incomplete(input: &BytesMut) -> Result<Option<Box<ResponseHead>>, Malformed> {
    if input.len() > MAX_HEAD {
        return Err(Malformed("a header section without end"));
    }
    Ok(None)
}

struct StatusLine {
    length: usize,
    status: StatusCode,
    version: Version,
    /// The reason phrase, where it isn't the status' usual one.
    reason: Option<ReasonPhrase>,
    fields: usize,
}

fn take_any(
    input: &mut BytesMut,
    asked: RequestFacts,
    spare: &mut HeaderMap,
) -> Result<Option<Box<ResponseHead>>, Malformed> {
    let mut places: &mut [_] = &mut [FieldSpan::default(); USUAL_FIELDS];
    let mut more_places;
    let mut fields = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut parsed = parse(input, &mut fields, places);
    if let Err(httparse::Error::TooManyHeaders) = parsed {
        more_places = vec![FieldSpan::default(); MAX_FIELDS];
        places = &mut more_places;
        parsed = parse(input, &mut vec![MaybeUninit::uninit(); MAX_FIELDS], places);
    }
    match parsed {
        Ok(Some(line)) => take(input, line, places, asked, spare).map(Some),
        Ok(None) => Ok(None),
        Err(httparse::Error::Version) if lower_version(input) => take_any(input, asked, spare),
        Err(error) => Err(unreadable(error)),
    }
}

fn parse<'input>(
    input: &'input [u8],
    fields: &mut [MaybeUninit<httparse::Header<'input>>],
    places: &mut [FieldSpan],
) -> Result<Option<StatusLine>, httparse::Error> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        fields,
    )?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(httparse::Error::Status)?;
    let reason = response
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason())
        .and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    for (field, place) in response.headers.iter().zip(places.iter_mut()) {
        *place = span_of(field, input);
    }
    Ok(Some(StatusLine {
        length,
        status,
        version: if response.version == Some(1) {
            Version::HTTP_11
        } else {
            Version::HTTP_10
        },
        reason,
        fields: response.headers.len(),
    }))
}

fn unreadable(error: httparse::Error) -> Malformed {
    Malformed(match error {
        httparse::Error::HeaderName => "a header name that isn't one",
        httparse::Error::HeaderValue => "a header value that isn't one",
        httparse::Error::TooManyHeaders => "too many header fields",
        httparse::Error::Status => "a status that isn't one",
        httparse::Error::Version => "not HTTP/1.1",
        httparse::Error::NewLine | httparse::Error::Token => "not HTTP",
    })
}

/// The framing and the connection's fate, as the fields say.
#[derive(Default)]
struct ResponseFraming {
    close: bool,
    keep_alive: bool,
    keep_alive_for: Option<Duration>,
    codings: usize,
    chunked: bool,
    length: Option<u64>,
}

fn take(
    input: &mut BytesMut,
    line: StatusLine,
    places: &[FieldSpan],
    asked: RequestFacts,
    spare: &mut HeaderMap,
) -> Result<Box<ResponseHead>, Malformed> {
    let places = places.get(..line.fields).unwrap_or_default();
    let mut headers = std::mem::take(spare);
    let (raw_fields, said) = if let Some((fields, said)) = raw_fields(input, &line, places, asked)?
    {
        input.advance(line.length);
        (Some(fields), said)
    } else {
        let bytes = input.split_to(line.length).freeze();
        (None, map(&bytes, &line, places, &mut headers)?)
    };
    let decoder = said.decoder(&line, asked.by_head)?;
    let mut keep_alive = !said.close
        && decoder != Decoder::UntilClose
        && (line.version == Version::HTTP_11 || said.keep_alive);
    if said.codings > 0 && said.length.is_some() {
        // RFC 9112 §6.3: chunked wins, the length is removed, and the connection isn't used for another request.
        headers = without(headers, &CONTENT_LENGTH);
        keep_alive = false;
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = line.status;
    parts.version = line.version;
    parts.headers = headers;
    if let Some(reason) = line.reason {
        parts.extensions.insert(reason);
    }
    Ok(Box::new(ResponseHead {
        parts,
        raw_fields,
        decoder,
        keep_alive,
        keep_alive_for: said.keep_alive_for,
    }))
}

/// The fields in a map.
fn map(
    bytes: &Bytes,
    line: &StatusLine,
    places: &[FieldSpan],
    headers: &mut HeaderMap,
) -> Result<ResponseFraming, Malformed> {
    headers.reserve(line.fields + 1);
    let switching = line.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut said = ResponseFraming::default();
    for place in places {
        let (name, value) = take_field(place, bytes).ok_or(NO_FIELD)?;
        if said.note(FieldMeaning::of(name.as_str().as_bytes()), value.as_bytes())? || switching {
            let kept = headers.try_append(name, value);
            kept.map_err(|_| Malformed("too many header fields"))?;
        }
    }
    Ok(said)
}

/// The raw fields for the client, if their names alone tell which fields those are.
fn raw_fields(
    bytes: &[u8],
    line: &StatusLine,
    places: &[FieldSpan],
    asked: RequestFacts,
) -> Result<Option<(RawFieldLines, ResponseFraming)>, Malformed> {
    let bodyless = is_bodyless(line.status) && line.status != StatusCode::NOT_MODIFIED;
    if !asked.for_http1 || line.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    let mut said = ResponseFraming::default();
    let mut text = Vec::with_capacity(line.length + ROOM);
    let mut lines = LineCopier::new(bytes, &mut text);
    let mut event_stream = false;
    for place in places {
        let (name, value) = place.parts(bytes).ok_or(NO_FIELD)?;
        let meaning = FieldMeaning::of(name);
        if meaning == FieldMeaning::EndToEnd {
            lines.copy_line(*place, name, value);
            continue;
        }
        let before = said.length;
        let adds = said.note(meaning, value)?;
        match meaning {
            FieldMeaning::ContentLength => {
                if before.is_some() || bodyless || value.contains(&b',') {
                    return Ok(None);
                }
                lines.copy_line(*place, name, value);
            }
            FieldMeaning::ContentType => {
                event_stream = is_event_stream(value);
                lines.copy_line(*place, name, value);
            }
            FieldMeaning::Trailer => return Ok(None),
            // The field nominates others.
            FieldMeaning::Connection if adds => return Ok(None),
            FieldMeaning::EndToEnd
            | FieldMeaning::Connection
            | FieldMeaning::KeepAlive
            | FieldMeaning::TransferEncoding
            | FieldMeaning::OtherHop
            | FieldMeaning::RequestId => {}
        }
    }
    lines.out();
    let void = said.codings > 0 && said.length.is_some();
    let fields = RawFieldLines::new(text, said.length, event_stream);
    Ok((!void).then_some((fields, said)))
}

/// The meaning of a field's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldMeaning {
    Connection,
    KeepAlive,
    TransferEncoding,
    ContentLength,
    ContentType,
    Trailer,
    /// Another field that concerns one hop.
    OtherHop,
    /// renewd's own takes its place.
    RequestId,
    EndToEnd,
}

impl FieldMeaning {
    /// The meaning of a name in any letter case. Few names are as long as one of these.
    fn of(name: &[u8]) -> Self {
        // A name is a token: no byte of it but a letter in upper case becomes a letter or `-` by this bit. Without an
        // end before the last letter, all of them are compared at once.
        let is = |other: &str| {
            let letters = name.iter().zip(other.as_bytes());
            let differs = letters.fold(0, |differs, (byte, other)| differs | (byte | 0x20) ^ other);
            differs == 0
        };
        match name.len() {
            2 if is("te") => Self::OtherHop,
            7 if is("trailer") => Self::Trailer,
            7 if is("upgrade") => Self::OtherHop,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::KeepAlive,
            12 if is("content-type") => Self::ContentType,
            12 if is("x-request-id") => Self::RequestId,
            14 if is("content-length") => Self::ContentLength,
            16 if is("proxy-connection") => Self::OtherHop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            18 if is("proxy-authenticate") => Self::OtherHop,
            19 if is("proxy-authorization") => Self::OtherHop,
            _ => Self::EndToEnd,
        }
    }
}

impl ResponseFraming {
    /// Notes a field. Says whether it concerns others than this connection.
    fn note(&mut self, meaning: FieldMeaning, value: &[u8]) -> Result<bool, Malformed> {
        match meaning {
            FieldMeaning::Connection if value == b"keep-alive" => {
                // Nearly always, and no list to be taken apart.
                self.keep_alive = true;
                Ok(false)
            }
            FieldMeaning::Connection => {
                let mut nominates = false;
                for option in elements(value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    } else {
                        nominates |= !option.is_empty();
                    }
                }
                Ok(nominates)
            }
            FieldMeaning::KeepAlive => {
                self.keep_alive_for = self.keep_alive_for.or(announced(value));
                Ok(false)
            }
            FieldMeaning::TransferEncoding => {
                self.codings += 1;
                self.chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                Ok(false)
            }
            FieldMeaning::ContentLength => {
                for element in elements(value) {
                    let length =
                        length(element).ok_or(Malformed("a Content-Length that isn't one"))?;
                    if self.length.is_some_and(|other| other != length) {
                        return Err(Malformed("two different Content-Lengths"));
                    }
                    self.length = Some(length);
                }
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// RFC 9112 §6.3.
    fn decoder(&self, line: &StatusLine, by_head: bool) -> Result<Decoder, Malformed> {
        if self.codings > 0 && line.version == Version::HTTP_10 {
            return Err(Malformed("a Transfer-Encoding in HTTP/1.0"));
        }
        if self.codings > 1 || (self.codings == 1 && !self.chunked) {
            return Err(Malformed("a Transfer-Encoding other than chunked"));
        }
        Ok(match self.length {
            _ if is_bodyless(line.status) || by_head => Decoder::Over,
            _ if self.codings > 0 => Decoder::chunked(),
            Some(length) => Decoder::sized(length),
            None => Decoder::UntilClose,
        })
    }
}

/// How long `Keep-Alive: timeout=N` lets an idle connection wait, less a margin.
fn announced(value: &[u8]) -> Option<Duration> {
    let usual = value.strip_prefix(b"timeout=").and_then(length);
    let seconds = usual.or_else(|| {
        elements(value).find_map(|parameter| {
            let (name, rest) = parameter.split_at_checked(b"timeout".len())?;
            let value = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let value = value.strip_suffix(b"\"").unwrap_or(value);
            length(value).filter(|_| name.eq_ignore_ascii_case(b"timeout"))
        })
    })?;
    Some(Duration::from_secs(seconds).saturating_sub(KEEP_ALIVE_MARGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPED: RequestFacts = RequestFacts {
        by_head: false,
        for_http1: false,
        takes_interim: false,
    };

    const HEAD: RequestFacts = RequestFacts {
        by_head: true,
        for_http1: false,
        takes_interim: false,
    };

    fn head(text: &str) -> Result<Option<Box<ResponseHead>>, Malformed> {
        take_head(&mut BytesMut::from(text), 0, MAPPED, &mut HeaderMap::new())
    }

    fn complete(text: &str) -> Box<ResponseHead> {
        head(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_ends_at_the_empty_line_and_leaves_the_rest() {
        let text = "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX-A: \r\nset-cookie: b\r\n\r\nbody";
        let mut input = BytesMut::from(text);
        let head = take_head(&mut input, 0, MAPPED, &mut HeaderMap::new())
            .unwrap()
            .unwrap();
        assert_eq!(head.parts.status, StatusCode::OK);
        assert_eq!(&input[..], b"body");
        let cookies: Vec<_> = head.parts.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a", "b"]);
        assert_eq!(head.parts.headers["x-a"], "");
    }

    #[test]
    fn interim_responses_are_handed_out_where_the_client_takes_them() {
        let asked = RequestFacts {
            takes_interim: true,
            ..MAPPED
        };
        let heads = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
                     HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        let mut input = BytesMut::from(heads);
        let mut next = || {
            let head = take_head(&mut input, 0, asked, &mut HeaderMap::new());
            let head = head.unwrap().unwrap();
            (head.parts.status.as_u16(), head.is_interim())
        };
        assert_eq!(
            [next(), next(), next()],
            [(103, true), (102, true), (200, false)]
        );
        assert_eq!(input, "");
    }

    #[test]
    fn a_head_is_complete_with_its_last_byte_however_it_is_cut() {
        for text in [
            "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            "HTTP/1.1 204 No Content\nX-A: b\n\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ] {
            let mut input = BytesMut::new();
            let mut known = 0;
            let (last, before) = text.as_bytes().split_last().unwrap();
            for byte in before {
                input.extend_from_slice(&[*byte]);
                assert!(
                    take_head(&mut input, known, MAPPED, &mut HeaderMap::new())
                        .unwrap()
                        .is_none(),
                    "{text}"
                );
                known = input.len();
            }
            input.extend_from_slice(&[*last]);
            let head = take_head(&mut input, known, MAPPED, &mut HeaderMap::new()).unwrap();
            assert_eq!(head.unwrap().parts.status, StatusCode::NO_CONTENT, "{text}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn the_body_is_framed_as_the_fields_say() {
        let table = [
            ("200 OK\r\ncontent-length: 5", Decoder::sized(5), true),
            ("200 OK\r\ncontent-length: 5, 5", Decoder::sized(5), true),
            (
                "200 OK\r\ntransfer-encoding: Chunked",
                Decoder::chunked(),
                true,
            ),
            (
                "200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 9",
                Decoder::chunked(),
                false,
            ),
            ("200 OK", Decoder::UntilClose, false),
            ("204 No Content\r\ncontent-length: 5", Decoder::Over, true),
            ("304 Not Modified\r\ncontent-length: 5", Decoder::Over, true),
            ("101 Switching Protocols", Decoder::Over, true),
            (
                "200 OK\r\ncontent-length: 0\r\nconnection: a, Close",
                Decoder::sized(0),
                false,
            ),
        ];
        for (text, decoder, keep_alive) in table {
            let head = complete(&format!("HTTP/1.1 {text}\r\n\r\n"));
            assert_eq!(
                (head.decoder, head.keep_alive),
                (decoder, keep_alive),
                "{text}"
            );
        }
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let head = take_head(&mut input, 0, HEAD, &mut HeaderMap::new())
            .unwrap()
            .unwrap();
        assert_eq!(head.decoder, Decoder::Over, "an answer to HEAD");
        assert!(!complete("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n").keep_alive);
        let kept = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n";
        assert!(complete(kept).keep_alive);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 No\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reason_of_its_own_is_kept() {
        let reason = |text: &str| {
            let head = complete(text);
            let phrase = head.parts.extensions.get::<ReasonPhrase>();
            phrase.map(|phrase| phrase.as_bytes().to_vec())
        };
        assert_eq!(reason("HTTP/1.1 200 OK\r\n\r\n"), None);
        let own = reason("HTTP/1.1 200 Fine By Me\r\n\r\n");
        assert_eq!(own.as_deref(), Some(&b"Fine By Me"[..]));
    }

    #[test]
    fn heads_are_bounded_in_fields_and_bytes() {
        let with = |fields: usize| {
            let lines = "x-a: a\r\n".repeat(fields);
            head(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"))
        };
        assert_eq!(
            with(MAX_FIELDS).unwrap().unwrap().parts.headers.len(),
            MAX_FIELDS
        );
        assert!(with(MAX_FIELDS + 1).is_err());
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD));
        assert!(head(&endless).is_err());
    }

    #[test]
    fn an_announced_keep_alive_time_is_read_with_a_second_to_spare() {
        let table = [
            ("timeout=5", Some(4)),
            ("timeout=5, max=100", Some(4)),
            ("max=100, Timeout = \"72\"", Some(71)),
            ("timeout=1", Some(0)),
            ("timeout=0", Some(0)),
            ("timeout", None),
            ("timeout=soon", None),
            ("max=5", None),
        ];
        for (value, expected) in table {
            let head = complete(&format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\n\r\n"));
            let seconds = head.keep_alive_for.map(|time| time.as_secs());
            assert_eq!(seconds, expected, "{value}");
        }
    }

    #[test]
    fn what_concerns_the_connection_alone_is_dropped_and_the_rest_stays_in_order() {
        let fields = |text: &str| {
            let headers = complete(text).parts.headers;
            let lines = headers.iter();
            lines
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect::<Vec<_>>()
        };
        let text = "a: 1\r\ncontent-length: 5\r\nset-cookie: x\r\nkeep-alive: timeout=5\r\n\
            transfer-encoding: chunked\r\nset-cookie: y\r\nconnection: keep-alive\r\nc: 3\r\n\r\n";
        let expected = ["a=1", "set-cookie=x", "set-cookie=y", "c=3"];
        assert_eq!(fields(&format!("HTTP/1.1 200 OK\r\n{text}")), expected);
        let nominating = "HTTP/1.1 200 OK\r\nconnection: close, x-a\r\nx-a: 1\r\n\r\n";
        assert_eq!(fields(nominating), ["connection=close, x-a", "x-a=1"]);
        let switching = "HTTP/1.1 101 Hi\r\nconnection: Upgrade\r\nkeep-alive: max=1\r\n\r\n";
        assert_eq!(
            fields(switching),
            ["connection=Upgrade", "keep-alive=max=1"]
        );
    }

    #[test]
    fn fields_that_are_not_looked_at_are_lines_as_they_were_written() {
        let lines = |text: &str| {
            let asked = RequestFacts {
                for_http1: true,
                ..MAPPED
            };
            let text = format!("HTTP/1.1 {text}\r\n\r\n");
            let mut input = BytesMut::from(text.as_str());
            let head = take_head(&mut input, 0, asked, &mut HeaderMap::new());
            let head = head.unwrap().unwrap();
            let lines = head
                .raw_fields
                .map(|lines| String::from_utf8(lines.as_bytes().to_vec()).unwrap());
            assert_ne!(lines.is_some(), !head.parts.headers.is_empty(), "{text}");
            lines.map(|lines| lines.replace("\r\n", "|"))
        };
        let travelling = "200 OK\r\nX-Powered-By:Express\r\nset-cookie: a\r\nKeep-Alive: timeout=5\r\n\
            ETag: \"x\"  \r\nX-Request-Id: theirs\r\nContent-Length: 05\r\nConnection: keep-alive\r\n\
            Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nset-cookie: b";
        assert_eq!(
            lines(travelling).as_deref(),
            Some(
                "X-Powered-By: Express|set-cookie: a|ETag: \"x\"|Content-Length: 05|set-cookie: b|"
            )
        );
        let chunked = "200 OK\r\nTransfer-Encoding: chunked\r\na: b";
        assert_eq!(lines(chunked).as_deref(), Some("a: b|"));
        let unchanged = "304 Not Modified\r\nContent-Length: 5";
        assert_eq!(lines(unchanged).as_deref(), Some("Content-Length: 5|"));
        for looked_at in [
            "200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1",
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
            "200 OK\r\nContent-Length: 5, 5",
            "200 OK\r\na: b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            "204 No Content\r\nContent-Length: 5",
            "200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum",
            "101 Switching Protocols\r\nUpgrade: websocket",
        ] {
            assert_eq!(lines(looked_at), None, "{looked_at}");
        }
    }
}
