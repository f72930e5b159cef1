//! The header fields that are forwarded: hop-by-hop fields are removed (RFC 9110 section 7.6.1), renewd's own are
//! added, and all others keep their order and their repeated values.
//!
//! Keeps true: maps are rebuilt, never pruned, because `HeaderMap::remove` moves the last field into the gap (http 1.5,
//! `HeaderMap::remove_found`); a `Connection` line can't remove a field that the backend relies on.
//! Must not know: bodies, connections, how the client's address was found.

use std::io::Write;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version};

use super::forwarded::{
    ForwardingClaims, Origin, X_FORWARDED_HOST, X_FORWARDED_PROTO, is_claim, is_same_name,
};
use super::request_fields::{LineCopier, RequestFields, write_line};
use super::trailers::may_be_trailer;

/// The header that names a request in every log.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The changes to a forwarded request's fields.
#[derive(Clone, Debug)]
pub struct RequestChanges<'a> {
    /// `Host`: the request's effective authority, or the upstream's where HTTP/1.0 named none.
    pub host: &'a HeaderValue,
    /// For `X-Forwarded-*`; a trusted peer's other claims (`Forwarded`, `X-Real-IP`, `X-Forwarded-Port`, …) pass.
    pub origin: &'a Origin<'a>,
    /// `x-request-id`.
    pub request_id: &'a [u8],
    /// Whether this opens a WebSocket tunnel ([`is_websocket_upgrade`]); other upgrades are stripped.
    pub upgrade: bool,
    /// Whether a body follows whose length isn't announced.
    pub chunked: bool,
    /// For a preflight of an owned path: a method-override header could turn it into a `POST` at the backend.
    pub keeps_method: bool,
}

/// Writes the fields of a request on its way to the backend, a line each.
///
/// The fields are written as text: no map of them is needed, and building one takes several times as long.
pub fn write_request_fields<'a>(
    incoming: impl Into<RequestFields<'a>>,
    changes: &RequestChanges<'_>,
    out: &mut Vec<u8>,
) {
    let incoming = incoming.into();
    let takes_trailers = write_travelling(incoming, changes, out);
    if takes_trailers {
        write_field(&TE, b"trailers", out);
    }
    if changes.upgrade {
        write_field(&UPGRADE, b"websocket", out);
    }
    // Each of the two is this hop's alone (RFC 9110 §7.8, §10.1.4).
    let options: &[u8] = match (changes.upgrade, takes_trailers) {
        (true, false) => b"Upgrade",
        (false, true) => b"TE",
        (true, true) => b"Upgrade, TE",
        (false, false) => b"",
    };
    if !options.is_empty() {
        write_field(&CONNECTION, options, out);
    }
    if changes.chunked {
        write_field(&TRANSFER_ENCODING, b"chunked", out);
    }
    let origin = changes.origin;
    if let Some(client) = origin.client_ip {
        out.extend_from_slice(b"x-forwarded-for: ");
        write_address(client, out);
        out.extend_from_slice(b"\r\n");
    }
    write_field(&X_FORWARDED_PROTO, origin.scheme.as_str().as_bytes(), out);
    if let Some(host) = &origin.host {
        write_field(&X_FORWARDED_HOST, host.as_bytes(), out);
    }
    write_field(&X_REQUEST_ID, changes.request_id, out);
}

/// Writes the client's fields that are sent on. Says whether the client takes trailers.
fn write_travelling(
    incoming: RequestFields<'_>,
    changes: &RequestChanges<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let nominated = Nominated::by(incoming);
    // First, as clients write it.
    let mut host = Some(changes.host);
    if !incoming.contains(&HOST) {
        write_host(&mut host, out);
    }
    let mut takes_trailers = false;
    let mut lines = LineCopier::new(incoming.head(), out);
    incoming.iter().for_each(|field| {
        let (name, value) = (field.name, field.value);
        if name == b"host" {
            if host.is_some_and(|host| *host == *value) {
                host = None;
                lines.copy(field);
            } else {
                write_host(&mut host, lines.out());
            }
        } else if travels(name, changes) && !nominated.contains(name) {
            if name != b"expect" || !expects_continue(value) {
                lines.copy(field);
            } else {
                write_other_expectations(value, lines.out());
            }
        } else if name == b"te" {
            takes_trailers |=
                elements_of(value).any(|element| element.eq_ignore_ascii_case(b"trailers"));
        }
    });
    lines.out();
    takes_trailers
}

/// Whether this asks for the interim answer that is given here. What else may be expected is the backend's to refuse.
pub(crate) fn expects_continue(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(is_continue)
}

/// Whether an element of `Expect` is `100-continue`.
fn is_continue(element: &[u8]) -> bool {
    element.trim_ascii().eq_ignore_ascii_case(b"100-continue")
}

/// Writes what else is expected than the interim answer, if anything is.
fn write_other_expectations(value: &[u8], out: &mut Vec<u8>) {
    let others = elements_of(value).filter(|element| !is_continue(element));
    let others: Vec<&[u8]> = others.collect();
    if !others.is_empty() {
        write_field(&EXPECT, &others.join(&b", "[..]), out);
    }
}

/// Counts this hop in the `Max-Forwards` of an `OPTIONS` (RFC 9110 §7.6.2). Whether the request may go on; what isn't a
/// number means nothing, and stays.
pub(crate) fn may_go_on(headers: &mut HeaderMap) -> bool {
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let (Some(value), None) = (lines.next(), lines.next()) else {
        return true;
    };
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return true;
    }
    // A number that is too large to be parsed counts as the largest.
    let left = value.to_str().ok().and_then(|digits| digits.parse().ok());
    let Some(left) = left.unwrap_or(u64::MAX).checked_sub(1) else {
        return false;
    };
    headers.insert(MAX_FORWARDS, left.into());
    true
}

/// Writes `Host`, unless it has been written.
fn write_host(host: &mut Option<&HeaderValue>, out: &mut Vec<u8>) {
    if let Some(host) = host.take() {
        write_field(&HOST, host.as_bytes(), out);
    }
}

/// Writes one field's line.
pub(crate) fn write_field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    write_line(name.as_str().as_bytes(), value, out);
}

/// Whether a client's field is for the backend, as far as its name says. Of all the names here only a few begin with
/// the letters that most fields begin with.
fn travels(name: &[u8], changes: &RequestChanges<'_>) -> bool {
    match name.first() {
        Some(b'x' | b'f') => {
            !((changes.keeps_method && is_method_override(name))
                || is_same_name(name, X_REQUEST_ID.as_str().as_bytes())
                || is_void_claim(name, changes.origin.claims))
        }
        Some(b'c' | b'e' | b'h' | b'k' | b'p' | b't' | b'u') => {
            !(is_hop_by_hop_name(name)
                || name == b"http2-settings"
                || (changes.chunked && name == b"content-length"))
        }
        _ => true,
    }
}

/// The header map of a response on its way to the client. `Transfer-Encoding` is made anew, and a `Content-Length`
/// beside it is void (RFC 9112 section 6.3). The backend's `x-request-id`, if any, is replaced by renewd's.
///
/// `switched` is for a 101 that answers a [`is_websocket_upgrade`]: `Connection` and `Upgrade` are kept in that one
/// case.
pub fn response_headers(
    mut incoming: HeaderMap,
    request_id: HeaderValue,
    switched: bool,
) -> HeaderMap {
    if incoming.keys().all(travels_back) {
        // Nearly always: what the connection's own fields say was read, and they were dropped, with the response
        // itself.
        incoming.insert(X_REQUEST_ID, request_id);
        return incoming;
    }
    let nominated = Nominated::by((&incoming).into());
    let length_is_void = incoming.contains_key(TRANSFER_ENCODING);
    let mut outgoing = HeaderMap::with_capacity(incoming.len() + 1);
    move_fields(incoming, &mut outgoing, |name| {
        let kept = switched && (*name == CONNECTION || *name == UPGRADE);
        let void = length_is_void && *name == CONTENT_LENGTH;
        kept || (travels_back(name) && !void && !nominated.contains(name.as_str().as_bytes()))
    });
    outgoing.insert(X_REQUEST_ID, request_id);
    outgoing
}

/// The fields of an interim response that are for the client.
pub(crate) fn interim_fields(
    incoming: &HeaderMap,
) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let nominated = Nominated::by(incoming.into());
    incoming.iter().filter(move |(name, _)| {
        let is_nominated = nominated.contains(name.as_str().as_bytes());
        travels_back(name) && **name != CONTENT_LENGTH && !is_nominated
    })
}

/// Whether a backend's field is for the client, as far as its name says.
fn travels_back(name: &HeaderName) -> bool {
    !(is_hop_by_hop(name) || *name == X_REQUEST_ID)
}

/// The trailers that travel on, either way and over either protocol: nothing that frames a message, says whose request
/// it is, or belongs to one hop (RFC 9110 section 6.5.1).
pub(crate) fn trailers(incoming: HeaderMap) -> HeaderMap {
    let mut outgoing = HeaderMap::with_capacity(incoming.len());
    move_fields(incoming, &mut outgoing, |name| {
        !(is_hop_by_hop(name)
            || !may_be_trailer(name)
            || is_claim(name.as_str().as_bytes())
            || is_method_override(name.as_str().as_bytes())
            || is_same_name(name.as_str().as_bytes(), X_REQUEST_ID.as_str().as_bytes()))
    });
    outgoing
}

/// Moves the fields that `keep` wants, in order. Names and values are moved: cloning them costs more than all else
/// here.
fn move_fields(incoming: HeaderMap, outgoing: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let mut fields = incoming.into_iter().peekable();
    // The first value of each name brings the name, those that follow come without.
    while let Some((name, value)) = fields.next() {
        let Some(name) = name.filter(|name| keep(name)) else {
            while fields.next_if(|(name, _)| name.is_none()).is_some() {}
            continue;
        };
        if fields.peek().is_none_or(|(next, _)| next.is_some()) {
            outgoing.append(name, value);
            continue;
        }
        outgoing.append(&name, value);
        while let Some((_, value)) = fields.next_if(|(name, _)| name.is_none()) {
            outgoing.append(&name, value);
        }
    }
}

/// Writes an address. IPv4 by hand: `Display` takes ten times as long.
fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(address) = address else {
        // Writing to a vector can't fail.
        let _ = write!(out, "{address}");
        return;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

/// Whether a request asks for a WebSocket (RFC 6455 section 4.2.1): an HTTP/1.1 `GET` whose `Connection` lists
/// `upgrade` and whose `Upgrade` offers `websocket`, both in any letter case.
pub(crate) fn is_websocket_upgrade<'a>(
    method: &Method,
    version: Version,
    fields: impl Into<RequestFields<'a>>,
) -> bool {
    let fields = fields.into();
    *method == Method::GET
        && version == Version::HTTP_11
        && lists(fields, &UPGRADE, b"websocket")
        && lists(fields, &CONNECTION, b"upgrade")
}

/// The fields that every hop makes for itself. `TE` and `Upgrade` are put back where they apply; `Trailer` announces
/// trailers end to end.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    is_hop_by_hop_name(name.as_str().as_bytes())
}

/// The same of a name in lower case.
fn is_hop_by_hop_name(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// Whether a backend that honours method-override headers may take this request for another method than it has.
pub(crate) fn has_method_override(fields: RequestFields<'_>) -> bool {
    fields.iter().any(|field| is_method_override(field.name))
}

fn is_method_override(name: &[u8]) -> bool {
    // The names that the method-override package's documentation lists, and Express apps copy.
    const NAMES: [&[u8]; 3] = [
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
    ];
    NAMES.iter().any(|expected| is_same_name(name, expected))
}

/// Whether a forwarding header is replaced by renewd's, comes from a peer that isn't trusted, or only looks like one.
fn is_void_claim(name: &[u8], claims: ForwardingClaims) -> bool {
    is_claim(name)
        && (claims != ForwardingClaims::Believed
            || name.contains(&b'_')
            || matches!(
                name,
                b"x-forwarded-for" | b"x-forwarded-proto" | b"x-forwarded-host"
            ))
}

/// The fields that `Connection` lines nominate as hop-by-hop. Nearly always empty.
struct Nominated(Vec<Box<[u8]>>);

impl Nominated {
    fn by(fields: RequestFields<'_>) -> Self {
        let options = elements(fields, &CONNECTION);
        // These name no field, and are on nearly every request.
        let fields = options.filter(|option| {
            !(option.eq_ignore_ascii_case(b"keep-alive")
                || option.eq_ignore_ascii_case(b"close")
                || option.eq_ignore_ascii_case(b"upgrade"))
        });
        Self(fields.map(Box::from).collect())
    }

    /// Whether this name, in lower case, is among them.
    fn contains(&self, name: &[u8]) -> bool {
        !self.0.is_empty()
            && !is_end_to_end(name)
            && self.0.iter().any(|field| field.eq_ignore_ascii_case(name))
    }
}

/// Fields that stay even if `Connection` nominates them. Otherwise a client could remove what a proxy before renewd
/// added, or what says which user the request is from (RFC 9110 section 7.6.1 forbids nominating fields meant for all
/// recipients). Express alone would ignore every nomination.
fn is_end_to_end(name: &[u8]) -> bool {
    is_claim(name)
        || name.starts_with(b"sec-")
        || name.starts_with(b"access-control-")
        || matches!(
            name,
            b"accept"
                | b"authorization"
                | b"cache-control"
                | b"content-encoding"
                | b"content-length"
                | b"content-range"
                | b"content-type"
                | b"cookie"
                | b"date"
                | b"host"
                | b"location"
                | b"origin"
                | b"range"
                | b"referer"
                | b"retry-after"
                | b"set-cookie"
                | b"trailer"
                | b"vary"
                | b"www-authenticate"
        )
}

fn lists(fields: RequestFields<'_>, name: &HeaderName, wanted: &[u8]) -> bool {
    elements(fields, name).any(|element| element.eq_ignore_ascii_case(wanted))
}

/// The elements of a comma-separated list over all its lines, trimmed.
fn elements<'a>(fields: RequestFields<'a>, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    fields.all(name).flat_map(elements_of)
}

fn elements_of(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = line.split(|byte| *byte == b',');
    elements
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::http::forwarded::ClientScheme;

    static NAMED: HeaderValue = HeaderValue::from_static("live.example");
    static ID: HeaderValue = HeaderValue::from_static("id-1");

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let lines = headers.iter();
        lines
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    fn origin(claims: ForwardingClaims) -> Origin<'static> {
        Origin {
            client_ip: Some("192.0.2.1".parse().unwrap()),
            host: Some(Cow::Owned(HeaderValue::from_static("asked.example"))),
            scheme: ClientScheme::Http,
            claims,
        }
    }

    fn changes<'a>(origin: &'a Origin<'_>) -> RequestChanges<'a> {
        RequestChanges {
            host: &NAMED,
            origin,
            request_id: ID.as_bytes(),
            upgrade: false,
            chunked: false,
            keeps_method: false,
        }
    }

    fn written(incoming: &HeaderMap, changes: &RequestChanges<'_>) -> Vec<String> {
        let mut out = Vec::new();
        write_request_fields(incoming, changes, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\r\n"));
        text.lines().map(str::to_owned).collect()
    }

    /// The fields that are forwarded before renewd's own four.
    fn forwarded(pairs: &[(&'static str, &str)]) -> Vec<String> {
        let mut lines = written(&map(pairs), &changes(&origin(ForwardingClaims::None)));
        let own = lines.split_off(lines.len() - 4);
        assert_eq!(
            own,
            [
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-proto: http",
                "x-forwarded-host: asked.example",
                "x-request-id: id-1"
            ]
        );
        lines
    }

    #[test]
    fn addresses_are_written_as_everybody_writes_them() {
        for address in [
            "0.0.0.0",
            "9.10.99.100",
            "255.200.1.109",
            "::1",
            "2001:db8::a",
        ] {
            let mut out = Vec::new();
            write_address(address.parse().unwrap(), &mut out);
            assert_eq!(out, address.as_bytes());
        }
    }

    #[test]
    fn order_and_repeated_values_stay() {
        let lines = forwarded(&[
            ("user-agent", "a"),
            ("host", "replaced"),
            ("x-b", "1"),
            ("keep-alive", "timeout=5"),
            ("cookie", "c"),
            ("x-a", "2"),
            ("x-b", "3"),
            ("trailer", "x-checksum"),
        ]);
        assert_eq!(
            lines,
            [
                "user-agent: a",
                "host: live.example",
                "x-b: 1",
                "x-b: 3",
                "cookie: c",
                "x-a: 2",
                "trailer: x-checksum"
            ]
        );
    }

    #[test]
    fn a_missing_host_is_written_first() {
        assert_eq!(forwarded(&[("x-a", "1")]), ["host: live.example", "x-a: 1"]);
    }

    #[test]
    fn hop_by_hop_fields_and_what_connection_nominates_stay_behind() {
        let lines = forwarded(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "2"),
            ("x-stays", "3"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAM"),
            ("expect", "100-continue"),
        ]);
        assert_eq!(lines, ["host: live.example", "x-stays: 3"]);
    }

    #[test]
    fn connection_cannot_take_away_what_the_backend_relies_on() {
        let kept = [
            ("authorization", "Bearer x"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("cookie", "a=b"),
            ("origin", "https://a.example"),
            ("sec-websocket-key", "k"),
        ];
        let names: Vec<_> = kept.iter().map(|(name, _)| *name).collect();
        let nomination = format!("host, x-forwarded-for, x-request-id, {}", names.join(", "));
        let mut pairs = vec![("connection", nomination.as_str()), ("host", "x")];
        pairs.extend(kept);
        let mut expected = vec!["host: live.example".to_owned()];
        expected.extend(kept.iter().map(|(name, value)| format!("{name}: {value}")));
        assert_eq!(forwarded(&pairs), expected);
    }

    #[test]
    fn trailers_carry_nothing_that_fields_before_a_body_decide() {
        let all = map(&[
            ("x-checksum", "1"),
            ("connection", "close"),
            ("keep-alive", "timeout=9"),
            ("upgrade", "websocket"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "other"),
            ("authorization", "Bearer x"),
            ("set-cookie", "a=1"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x_real_ip", "192.0.2.1"),
            ("x-request-id", "1"),
            ("x-http-method-override", "POST"),
            ("server-timing", "db;dur=53"),
        ]);
        assert_eq!(
            lines(&trailers(all)),
            ["x-checksum: 1", "server-timing: db;dur=53"]
        );
    }

    #[test]
    fn trailers_are_asked_for_when_the_client_reads_them() {
        assert_eq!(
            forwarded(&[("host", "x"), ("te", "gzip, Trailers")]),
            ["host: live.example", "te: trailers", "connection: TE"]
        );
    }

    #[test]
    fn claims_of_an_untrusted_peer_are_replaced() {
        let lines = forwarded(&[
            ("host", "x"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x-request-id", "theirs"),
            ("x_request_id", "theirs"),
        ]);
        assert_eq!(lines, ["host: live.example"]);
    }

    #[test]
    fn other_claims_of_a_trusted_peer_pass() {
        let incoming = map(&[
            ("host", "x"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-port", "443"),
            ("x_real_ip", "1.1.1.1"),
            ("x-real-ip", "2.2.2.2"),
        ]);
        let lines = written(&incoming, &changes(&origin(ForwardingClaims::Believed)));
        assert_eq!(
            lines[..3],
            [
                "host: live.example",
                "x-forwarded-port: 443",
                "x-real-ip: 2.2.2.2"
            ]
        );
        assert_eq!(lines[3], "x-forwarded-for: 192.0.2.1");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked() {
        let origin = origin(ForwardingClaims::None);
        let chunked = RequestChanges {
            chunked: true,
            ..changes(&origin)
        };
        let lines = written(&map(&[("host", "x"), ("content-length", "3")]), &chunked);
        assert_eq!(
            lines[..2],
            ["host: live.example", "transfer-encoding: chunked"]
        );
    }

    #[test]
    fn a_websocket_keeps_its_upgrade() {
        let incoming = map(&[
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
        ]);
        assert!(is_websocket_upgrade(
            &Method::GET,
            Version::HTTP_11,
            &incoming
        ));
        assert!(!is_websocket_upgrade(
            &Method::POST,
            Version::HTTP_11,
            &incoming
        ));
        assert!(!is_websocket_upgrade(
            &Method::GET,
            Version::HTTP_10,
            &incoming
        ));
        let h2c = map(&[("connection", "upgrade"), ("upgrade", "h2c")]);
        assert!(!is_websocket_upgrade(&Method::GET, Version::HTTP_11, &h2c));
        let not_nominated = map(&[("upgrade", "websocket")]);
        assert!(!is_websocket_upgrade(
            &Method::GET,
            Version::HTTP_11,
            &not_nominated
        ));

        let origin = origin(ForwardingClaims::None);
        let upgrade = RequestChanges {
            upgrade: true,
            ..changes(&origin)
        };
        assert_eq!(
            written(&incoming, &upgrade)[1..4],
            [
                "sec-websocket-version: 13",
                "upgrade: websocket",
                "connection: Upgrade"
            ]
        );
    }

    #[test]
    fn method_overrides_stay_behind_a_preflight() {
        let incoming = map(&[
            ("x-http-method-override", "POST"),
            ("x_http_method", "POST"),
            ("x-method-override", "POST"),
        ]);
        let origin = origin(ForwardingClaims::None);
        let preflight = RequestChanges {
            keeps_method: true,
            ..changes(&origin)
        };
        assert_eq!(written(&incoming, &preflight).len(), 5);
        assert_eq!(written(&incoming, &changes(&origin)).len(), 8);
    }

    #[test]
    fn responses_lose_hop_by_hop_fields_and_void_lengths() {
        let incoming = map(&[
            ("server", "node"),
            ("set-cookie", "a"),
            ("connection", "keep-alive, x-hop, set-cookie"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("upgrade", "h2c"),
            ("set-cookie", "b"),
            ("x-request-id", "theirs"),
            ("x-end", "1"),
        ]);
        let outgoing = response_headers(incoming, HeaderValue::from_static("id-1"), false);
        assert_eq!(
            lines(&outgoing),
            [
                "server: node",
                "set-cookie: a",
                "set-cookie: b",
                "x-end: 1",
                "x-request-id: id-1"
            ]
        );
        let with_length = response_headers(
            map(&[("content-length", "3")]),
            HeaderValue::from_static("id-1"),
            false,
        );
        assert_eq!(with_length[CONTENT_LENGTH], "3");
    }

    #[test]
    fn a_switch_to_websocket_keeps_connection_and_upgrade() {
        let incoming = map(&[
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-accept", "s"),
        ]);
        let outgoing = response_headers(incoming, HeaderValue::from_static("id-1"), true);
        assert_eq!(
            lines(&outgoing),
            [
                "upgrade: websocket",
                "connection: Upgrade",
                "sec-websocket-accept: s",
                "x-request-id: id-1"
            ]
        );
    }
}
