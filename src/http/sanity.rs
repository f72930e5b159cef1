//! Refuses requests that are valid HTTP, but that two servers could read in two ways (request smuggling).
//!
//! Keeps true: what passes has one meaning for its target, its host and its framing.
//! Must not know: which route a target belongs to, or how a refusal is written.

use std::net::Ipv6Addr;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri, Version};

use super::request_fields::RequestFields;

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SanityRefusal {
    /// `CONNECT` and `TRACE`: renewd is no forward proxy, and doesn't send cookies back.
    Method,
    /// The target is neither in origin form nor in absolute form nor `OPTIONS *` (RFC 9112 section 3.2).
    Target,
    /// HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    HostMissing,
    /// More than one `Host`.
    HostDuplicate,
    /// Not `host` or `host:port` (RFC 9110 section 4.2.1: without userinfo), in `Host` or in an absolute-form target.
    HostInvalid,
    /// Anything but exactly `chunked`, or any at all in HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncoding,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndEncoding,
}

impl SanityRefusal {
    /// 405 for methods (as nginx), else 400.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// For the JSON error.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Method => "This method is not allowed",
            Self::Target => "The request target is neither a path nor an absolute URI",
            Self::HostMissing => "The Host header is missing",
            Self::HostDuplicate => "There is more than one Host header",
            Self::HostInvalid => "The host is not a valid host name with an optional port",
            Self::TransferEncoding => "The only Transfer-Encoding served is chunked",
            Self::LengthAndEncoding => "Content-Length and Transfer-Encoding exclude each other",
        }
    }

    /// Whether where the body ends is in doubt, so that the connection has to close after the answer.
    pub(crate) fn closes(self) -> bool {
        matches!(self, Self::TransferEncoding | Self::LengthAndEncoding)
    }
}

/// Checks a request's head as it was parsed, before anything else looks at it.
pub fn check<'a>(
    method: &Method,
    target: &Uri,
    version: Version,
    fields: impl Into<RequestFields<'a>>,
) -> Result<(), SanityRefusal> {
    let fields = fields.into();
    // Framing first: a request whose end is in doubt must not be answered as if the next one could follow it.
    check_framing(version, fields)?;
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(SanityRefusal::Method);
    }
    check_target(method, target)?;
    check_host(target, version, fields)
}

/// The authority that the request is for: an absolute-form target's (without userinfo), which overrides `Host` (RFC
/// 9112 section 3.2.2), else `Host`. `None` for HTTP/1.0 without either.
pub fn effective_host<'a>(
    target: &Uri,
    fields: impl Into<RequestFields<'a>>,
) -> Option<HeaderValue> {
    match authority_of(target) {
        Some(authority) => HeaderValue::from_str(authority).ok(),
        None => fields.into().value(&HOST),
    }
}

/// Whether this is `host` or `host:port`: a registered name, an IPv4 address or a bracketed IPv6 address (RFC 3986
/// section 3.2.2), not empty, without userinfo.
pub(crate) fn is_authority(authority: &[u8]) -> bool {
    let position = |wanted| authority.iter().position(|byte| *byte == wanted);
    let host_end = if authority.starts_with(b"[") {
        position(b']').map(|bracket| bracket + 1)
    } else {
        position(b':')
    };
    let (host, port) = authority.split_at(host_end.unwrap_or(authority.len()));
    (is_registered_name(host) || is_ipv6_literal(host)) && is_port_suffix(port)
}

fn check_framing(version: Version, fields: RequestFields<'_>) -> Result<(), SanityRefusal> {
    let mut encodings = fields.all(&TRANSFER_ENCODING);
    let Some(encoding) = encodings.next() else {
        return Ok(());
    };
    let chunked = encoding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    if !chunked || encodings.next().is_some() || version < Version::HTTP_11 {
        return Err(SanityRefusal::TransferEncoding);
    }
    if fields.contains(&CONTENT_LENGTH) {
        return Err(SanityRefusal::LengthAndEncoding);
    }
    Ok(())
}

fn check_target(method: &Method, target: &Uri) -> Result<(), SanityRefusal> {
    match target.path_and_query() {
        None => Err(SanityRefusal::Target),
        Some(_) if target.path() == "*" && *method != Method::OPTIONS => Err(SanityRefusal::Target),
        Some(_) => Ok(()),
    }
}

fn check_host(
    target: &Uri,
    version: Version,
    fields: RequestFields<'_>,
) -> Result<(), SanityRefusal> {
    let authority = authority_of(target);
    if authority.is_some_and(|authority| !is_authority(authority.as_bytes())) {
        return Err(SanityRefusal::HostInvalid);
    }
    let mut hosts = fields.all(&HOST);
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(SanityRefusal::HostDuplicate),
        // An empty field says that the target has no authority, as RFC 9112 section 3.2 has it. With an absolute-form
        // target that is merely overridden; with a path alone the target is an `http:` URI without a host, which
        // section 4.2.1 of RFC 9110 requires to be rejected.
        (Some(host), None)
            if host.is_empty() && version < Version::HTTP_2 && authority.is_some() =>
        {
            Ok(())
        }
        (Some(host), None) if !is_authority(host) => Err(SanityRefusal::HostInvalid),
        // A field that contradicts the pseudo-header (RFC 9113 section 8.3.1); in HTTP/1.1 it is merely overridden.
        (Some(host), None)
            if version > Version::HTTP_11
                && authority
                    .is_some_and(|authority| !host.eq_ignore_ascii_case(authority.as_bytes())) =>
        {
            Err(SanityRefusal::HostDuplicate)
        }
        // From HTTP/2 on the authority is a pseudo-header, and part of the target.
        (None, _) if version == Version::HTTP_11 => Err(SanityRefusal::HostMissing),
        (None, _) if version > Version::HTTP_11 && authority.is_none() => {
            Err(SanityRefusal::HostMissing)
        }
        _ => Ok(()),
    }
}

fn authority_of(target: &Uri) -> Option<&str> {
    let authority = target.authority()?.as_str();
    Some(
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host),
    )
}

fn is_registered_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| REGISTERED_NAME[usize::from(*byte)])
}

/// RFC 3986: unreserved, sub-delims, and `%` of percent-encodings. A table, for every request asks.
const REGISTERED_NAME: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        allowed[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=%";
    let mut index = 0;
    while index < others.len() {
        allowed[others[index] as usize] = true;
        index += 1;
    }
    allowed
};

fn is_ipv6_literal(host: &[u8]) -> bool {
    let address = host
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    address
        .and_then(|address| std::str::from_utf8(address).ok())
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Nothing, `:` or `:` and a port number.
fn is_port_suffix(suffix: &[u8]) -> bool {
    match suffix {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn run(
        method: &str,
        target: &str,
        version: Version,
        pairs: &[(&'static str, &'static str)],
    ) -> Result<(), SanityRefusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check(
            &method.parse().unwrap(),
            &target.parse().unwrap(),
            version,
            &headers,
        )
    }

    fn get(pairs: &[(&'static str, &'static str)]) -> Result<(), SanityRefusal> {
        run("GET", "/", Version::HTTP_11, pairs)
    }

    #[test]
    fn ordinary_requests_pass() {
        assert_eq!(get(&[("host", "live.example")]), Ok(()));
        assert_eq!(
            get(&[("host", "x"), ("transfer-encoding", "Chunked")]),
            Ok(())
        );
        assert_eq!(get(&[("host", "x"), ("content-length", "3")]), Ok(()));
        assert_eq!(
            run("OPTIONS", "*", Version::HTTP_11, &[("host", "x")]),
            Ok(())
        );
        assert_eq!(run("GET", "/", Version::HTTP_10, &[]), Ok(()));
        assert_eq!(
            run(
                "GET",
                "http://u:p@x:80/",
                Version::HTTP_11,
                &[("host", "y")]
            ),
            Ok(())
        );
        assert_eq!(run("GET", "https://x/", Version::HTTP_2, &[]), Ok(()));
    }

    #[test]
    fn an_empty_host_is_void_beside_an_authority_and_refused_without() {
        let empty = [("host", "")];
        let absolute = |version| run("GET", "http://x/", version, &empty);
        assert_eq!(absolute(Version::HTTP_11), Ok(()));
        assert_eq!(absolute(Version::HTTP_10), Ok(()));
        assert!(absolute(Version::HTTP_2).is_err());
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            for (method, target) in [("GET", "/"), ("OPTIONS", "*")] {
                let refusal = run(method, target, version, &empty);
                assert_eq!(
                    refusal,
                    Err(SanityRefusal::HostInvalid),
                    "{version:?} {target}"
                );
            }
        }
    }

    #[test]
    fn connect_and_trace_are_refused() {
        for (method, target) in [("CONNECT", "x:443"), ("TRACE", "/")] {
            let refusal = run(method, target, Version::HTTP_11, &[("host", "x")]).unwrap_err();
            assert_eq!(
                (refusal, refusal.status().as_u16()),
                (SanityRefusal::Method, 405)
            );
        }
    }

    #[test]
    fn targets_must_be_paths_or_absolute() {
        assert_eq!(
            run("POST", "*", Version::HTTP_11, &[("host", "x")]),
            Err(SanityRefusal::Target)
        );
        assert_eq!(
            run("GET", "x:80", Version::HTTP_11, &[("host", "x")]),
            Err(SanityRefusal::Target)
        );
        assert_eq!(
            run("GET", "refresh-token", Version::HTTP_11, &[("host", "x")]),
            Err(SanityRefusal::Target)
        );
    }

    #[test]
    fn exactly_one_host_is_needed() {
        assert_eq!(get(&[]), Err(SanityRefusal::HostMissing));
        assert_eq!(
            get(&[("host", "x"), ("host", "x")]),
            Err(SanityRefusal::HostDuplicate)
        );
        assert_eq!(
            run(
                "GET",
                "/",
                Version::HTTP_10,
                &[("host", "x"), ("host", "y")]
            ),
            Err(SanityRefusal::HostDuplicate)
        );
        assert_eq!(
            run("GET", "http://x/", Version::HTTP_11, &[]),
            Err(SanityRefusal::HostMissing)
        );
        assert_eq!(
            run("GET", "/", Version::HTTP_2, &[]),
            Err(SanityRefusal::HostMissing)
        );
    }

    #[test]
    fn hosts_must_be_authorities() {
        for host in [
            "", "a b", "u@x", "x:y", "x:65536", "x:+1", "x/y", "[::1", "[::1]x", "[x]", "a,b\"",
            "x:1:2", ":80", "x?", "é",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
        for host in [
            "x",
            "live.example",
            "a_b.example:3000",
            "x:",
            "[::1]",
            "[2001:db8::1]:443",
            "192.0.2.1:80",
            "x%20y",
        ] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        assert_eq!(get(&[("host", "x/../y")]), Err(SanityRefusal::HostInvalid));
        assert_eq!(
            run("GET", "http://x:99999/", Version::HTTP_11, &[("host", "x")]),
            Err(SanityRefusal::HostInvalid)
        );
    }

    #[test]
    fn only_chunked_is_served() {
        for encoding in [
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "",
            "xchunked",
            "chunked;q=1",
        ] {
            assert_eq!(
                get(&[("host", "x"), ("transfer-encoding", encoding)]),
                Err(SanityRefusal::TransferEncoding),
                "{encoding}"
            );
        }
        assert_eq!(
            get(&[
                ("host", "x"),
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked")
            ]),
            Err(SanityRefusal::TransferEncoding)
        );
        assert_eq!(
            run(
                "POST",
                "/",
                Version::HTTP_10,
                &[("transfer-encoding", "chunked")]
            ),
            Err(SanityRefusal::TransferEncoding)
        );
        let both = get(&[
            ("host", "x"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
        ]);
        assert_eq!(both, Err(SanityRefusal::LengthAndEncoding));
        assert!(both.unwrap_err().closes());
    }

    #[test]
    fn an_absolute_target_overrides_host() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("header.example"));
        let host = |target: &str| effective_host(&target.parse().unwrap(), &headers).unwrap();
        assert_eq!(host("/"), "header.example");
        assert_eq!(host("http://user@target.example:81/"), "target.example:81");
        assert_eq!(
            effective_host(&"/".parse().unwrap(), &HeaderMap::new()),
            None
        );
    }
}
