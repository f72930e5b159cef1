//! The head of a response (RFC 9112 §4, §6.3, §9.3).
//!
//! Keeps true: what contradicts itself or can't be framed again without guessing is refused; interim responses are
//! passed over, but for 101.
//! Must not know: what may be passed on to a client.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, response};
use hyper::ext::ReasonPhrase;

use super::body::Framing;
use super::{Malformed, elements, length};

/// Bytes of a head: more than any server sends, and what one connection may be made to hold.
const MAX_HEAD: usize = 256 * 1024;

/// Fields of a head. Node sends more than a hundred without a word.
const MAX_FIELDS: usize = 512;

/// Nearly every head has fewer fields; they are found without an allocation.
const USUAL_FIELDS: usize = 64;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A server closes when its announced time is over; the request that we send must be there before.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// A response up to its body.
#[derive(Debug)]
pub(in crate::forward) struct Head {
    pub(in crate::forward) parts: response::Parts,
    pub(in crate::forward) framing: Framing,
    /// The connection can be used once more.
    pub(in crate::forward) keep_alive: bool,
    /// For how long, where the server says so in `Keep-Alive`.
    pub(in crate::forward) keep_alive_for: Option<Duration>,
}

/// Takes a head from the front of `input`. `None` where it isn't complete; `known` bytes of it were seen before.
///
/// What concerns this connection alone is read and dropped, but for a 101: `Transfer-Encoding`, a `Content-Length`
/// beside it, `Keep-Alive`, and `Connection` where it nominates no other field. `spare` is an empty map to be used.
pub(in crate::forward) fn take_head(
    input: &mut BytesMut,
    mut known: usize,
    to_head_request: bool,
    spare: &mut HeaderMap,
) -> Result<Option<Head>, Malformed> {
    loop {
        // Servers of long ago ended bodies with an empty line too many.
        let blank = input.iter().take_while(|byte| is_line_end(**byte)).count();
        input.advance(blank);
        if input.is_empty() || (known > 0 && !may_be_complete(input, known)) {
            return incomplete(input);
        }
        let Some(head) = take_any(input, to_head_request, spare)? else {
            return incomplete(input);
        };
        let status = head.parts.status;
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some(head));
        }
        known = 0;
    }
}

fn incomplete(input: &BytesMut) -> Result<Option<Head>, Malformed> {
    if input.len() > MAX_HEAD {
        return Err(Malformed("a header section without end"));
    }
    Ok(None)
}

/// Whether what came after the first `known` bytes can have ended the head: else a slow one is parsed over and over.
fn may_be_complete(input: &[u8], known: usize) -> bool {
    let news = input.get(known.saturating_sub(3)..).unwrap_or_default();
    news.windows(2).any(|pair| pair == b"\n\n") || news.windows(3).any(|triple| triple == b"\n\r\n")
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Where a field's name and value lie in the head.
#[derive(Clone, Copy, Default)]
struct Place {
    name: (usize, usize),
    value: (usize, usize),
}

struct StatusLine {
    length: usize,
    status: StatusCode,
    version: Version,
    /// Where it isn't the status's usual one.
    reason: Option<ReasonPhrase>,
    fields: usize,
}

fn take_any(
    input: &mut BytesMut,
    to_head_request: bool,
    spare: &mut HeaderMap,
) -> Result<Option<Head>, Malformed> {
    let mut places = [Place::default(); USUAL_FIELDS];
    let mut fields = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    match parse(input, &mut fields, &mut places) {
        Ok(Some(line)) => take(input, line, &places, to_head_request, spare).map(Some),
        Ok(None) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            let mut places = vec![Place::default(); MAX_FIELDS];
            let mut fields = vec![MaybeUninit::uninit(); MAX_FIELDS];
            match parse(input, &mut fields, &mut places).map_err(unreadable)? {
                Some(line) => take(input, line, &places, to_head_request, spare).map(Some),
                None => Ok(None),
            }
        }
        Err(error) => Err(unreadable(error)),
    }
}

fn parse<'input>(
    input: &'input [u8],
    fields: &mut [MaybeUninit<httparse::Header<'input>>],
    places: &mut [Place],
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
    let start = input.as_ptr().addr();
    let range = |part: &[u8]| {
        let from = part.as_ptr().addr() - start;
        (from, from + part.len())
    };
    for (field, place) in response.headers.iter().zip(places.iter_mut()) {
        place.name = range(field.name.as_bytes());
        place.value = range(field.value);
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

/// What the fields say of framing and connection.
#[derive(Default)]
struct Fields {
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
    places: &[Place],
    to_head_request: bool,
    spare: &mut HeaderMap,
) -> Result<Head, Malformed> {
    let bytes = input.split_to(line.length).freeze();
    let mut headers = std::mem::take(spare);
    headers.reserve(line.fields + 1);
    let switching = line.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut said = Fields::default();
    for place in places.get(..line.fields).unwrap_or_default() {
        let name = bytes.get(place.name.0..place.name.1).unwrap_or_default();
        let name =
            HeaderName::from_bytes(name).map_err(|_| Malformed("a header name that isn't one"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(place.value.0..place.value.1))
            .map_err(|_| Malformed("a header value that isn't one"))?;
        if said.note(&name, value.as_bytes())? || switching {
            headers
                .try_append(name, value)
                .map_err(|_| Malformed("too many header fields"))?;
        }
    }
    let framing = said.framing(&line, to_head_request)?;
    let mut keep_alive = !said.close
        && framing != Framing::UntilClose
        && (line.version == Version::HTTP_11 || said.keep_alive);
    if said.codings > 0 && said.length.is_some() {
        // RFC 9112 §6.3: chunked wins, the other goes, and such a peer isn't trusted with another request.
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
    Ok(Head {
        parts,
        framing,
        keep_alive,
        keep_alive_for: said.keep_alive_for,
    })
}

impl Fields {
    /// Whether the field is for others too.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, Malformed> {
        match *name {
            CONNECTION => {
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
            _ if *name == KEEP_ALIVE => {
                self.keep_alive_for = self.keep_alive_for.or(announced(value));
                Ok(false)
            }
            TRANSFER_ENCODING => {
                self.codings += 1;
                self.chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                Ok(false)
            }
            CONTENT_LENGTH => {
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
    fn framing(&self, line: &StatusLine, to_head_request: bool) -> Result<Framing, Malformed> {
        if self.codings > 0 && line.version == Version::HTTP_10 {
            return Err(Malformed("a Transfer-Encoding in HTTP/1.0"));
        }
        if self.codings > 1 || (self.codings == 1 && !self.chunked) {
            return Err(Malformed("a Transfer-Encoding other than chunked"));
        }
        let bodyless = line.status.is_informational()
            || matches!(
                line.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        Ok(match self.length {
            _ if bodyless || to_head_request => Framing::Over,
            _ if self.codings > 0 => Framing::chunked(),
            Some(length) => Framing::sized(length),
            None => Framing::UntilClose,
        })
    }
}

/// How long `Keep-Alive: timeout=N` lets an idle connection wait, less a margin.
fn announced(value: &[u8]) -> Option<Duration> {
    let seconds = elements(value).find_map(|parameter| {
        let (name, value) = std::str::from_utf8(parameter).ok()?.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("timeout")
            .then(|| value.trim().trim_matches('"').parse().ok())?
    })?;
    Some(Duration::from_secs(seconds).saturating_sub(KEEP_ALIVE_MARGIN))
}

/// The same fields in the same order but for one name; `HeaderMap::remove` would reorder them.
fn without(headers: HeaderMap, unwanted: &HeaderName) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut current = None;
    for (name, value) in headers {
        if name.is_some() {
            current = name;
        }
        if let Some(name) = &current
            && name != unwanted
        {
            kept.append(name.clone(), value);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Malformed> {
        take_head(&mut BytesMut::from(text), 0, false, &mut HeaderMap::new())
    }

    fn complete(text: &str) -> Head {
        head(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_ends_at_the_empty_line_and_leaves_the_rest() {
        let text = "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX-A: \r\nset-cookie: b\r\n\r\nbody";
        let mut input = BytesMut::from(text);
        let head = take_head(&mut input, 0, false, &mut HeaderMap::new())
            .unwrap()
            .unwrap();
        assert_eq!(head.parts.status, StatusCode::OK);
        assert_eq!(&input[..], b"body");
        let cookies: Vec<_> = head.parts.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a", "b"]);
        assert_eq!(head.parts.headers["x-a"], "");
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
                    take_head(&mut input, known, false, &mut HeaderMap::new())
                        .unwrap()
                        .is_none(),
                    "{text}"
                );
                known = input.len();
            }
            input.extend_from_slice(&[*last]);
            let head = take_head(&mut input, known, false, &mut HeaderMap::new()).unwrap();
            assert_eq!(head.unwrap().parts.status, StatusCode::NO_CONTENT, "{text}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn the_body_is_framed_as_the_fields_say() {
        let table = [
            ("200 OK\r\ncontent-length: 5", Framing::sized(5), true),
            ("200 OK\r\ncontent-length: 5, 5", Framing::sized(5), true),
            (
                "200 OK\r\ntransfer-encoding: Chunked",
                Framing::chunked(),
                true,
            ),
            (
                "200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 9",
                Framing::chunked(),
                false,
            ),
            ("200 OK", Framing::UntilClose, false),
            ("204 No Content\r\ncontent-length: 5", Framing::Over, true),
            ("304 Not Modified\r\ncontent-length: 5", Framing::Over, true),
            ("101 Switching Protocols", Framing::Over, true),
            (
                "200 OK\r\ncontent-length: 0\r\nconnection: a, Close",
                Framing::sized(0),
                false,
            ),
        ];
        for (text, framing, keep_alive) in table {
            let head = complete(&format!("HTTP/1.1 {text}\r\n\r\n"));
            assert_eq!(
                (head.framing, head.keep_alive),
                (framing, keep_alive),
                "{text}"
            );
        }
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let head = take_head(&mut input, 0, true, &mut HeaderMap::new())
            .unwrap()
            .unwrap();
        assert_eq!(head.framing, Framing::Over, "an answer to HEAD");
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
}
