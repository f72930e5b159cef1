//! The client's address: what `X-Forwarded-*` says, if the peer is trusted, and what renewd tells the backend.
//!
//! Keeps true: nothing an untrusted peer wrote decides the client address, and exactly one address goes out.
//! Must not know: sockets, limiters, logs.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::request_fields::RequestFields;
use super::sanity::is_authority;
use crate::terms::labels::labels;

/// `X-Forwarded-For`: the client, then each proxy.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`: the client's scheme.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`: the client's `Host`.
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Where a request comes from, once for log, limits and backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The client's address, IPv4-mapped IPv6 as IPv4; `None` on a unix socket whose peer names none.
    pub client_ip: Option<IpAddr>,
    /// For `X-Forwarded-Host`: what the client asked for; `None` if it said nothing.
    pub host: Option<Cow<'a, HeaderValue>>,
    /// For `X-Forwarded-Proto`.
    pub scheme: ClientScheme,
    /// How the forwarding headers that the peer sent are treated.
    pub claims: ForwardingClaims,
}

impl Origin<'_> {
    /// The client's address, where it tells clients from each other: without `trusted` proxies a private address may be
    /// a load balancer's, which all clients share.
    pub(crate) fn telling_address(&self, trusted: &[IpNet]) -> Option<IpAddr> {
        self.client_ip
            .filter(|address| !trusted.is_empty() || !is_private(*address))
    }
}

labels! {
    /// The client's scheme.
    pub enum ClientScheme {
        /// Plain.
        Http => "http",
        /// TLS, here or at a trusted proxy.
        Https => "https",
    }
}

/// How the forwarding headers that the peer sent are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingClaims {
    /// The peer sent none.
    None,
    /// The peer is trusted.
    Believed,
    /// The peer isn't trusted, so they are dropped.
    Dropped {
        /// The peer's address is private or loopback: likely a load balancer that `server.trusted_proxies` lacks.
        private_peer: bool,
    },
}

/// The connection that a request came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// There is a PROXY header that names no client: whoever speaks is not believed.
    pub nameless: bool,
    /// Whether the connection is TLS.
    pub tls: bool,
}

impl Peer {
    /// Whether this peer's forwarding headers and `x-request-id` are believed. A unix socket's peer has no address to
    /// list: it is a local proxy, and believed as soon as any proxy is.
    pub(crate) fn is_trusted(&self, trusted: &[IpNet]) -> bool {
        match self.address {
            _ if self.nameless => false,
            Some(address) => is_listed(trusted, address.to_canonical()),
            None => !trusted.is_empty(),
        }
    }
}

/// Finds the client behind `peer`. `host` is the request's effective authority ([`super::sanity::effective_host`]).
///
/// From a trusted peer `X-Forwarded-For` is walked right to left (all lines, as one list) past trusted addresses to
/// the first that isn't; an entry that isn't an address ends the walk at the proxy that reported it. Scheme and host
/// are the rightmost values.
pub fn resolve<'h, 'f>(
    peer: Peer,
    trusted: &[IpNet],
    fields: impl Into<RequestFields<'f>>,
    host: Option<&'h HeaderValue>,
) -> Origin<'h> {
    let fields = fields.into();
    let address = peer.address.map(|address| address.to_canonical());
    let own = Origin {
        client_ip: address,
        host: host.map(Cow::Borrowed),
        scheme: if peer.tls {
            ClientScheme::Https
        } else {
            ClientScheme::Http
        },
        claims: ForwardingClaims::None,
    };
    let may_claim = CLAIMS_BEGIN.iter().any(|byte| fields.may_begin_with(*byte));
    if !may_claim || !fields.iter().any(|field| is_claim(field.name)) {
        return own;
    }
    if !peer.is_trusted(trusted) {
        let private_peer = !peer.nameless && address.is_none_or(is_private);
        return Origin {
            claims: ForwardingClaims::Dropped { private_peer },
            ..own
        };
    }
    Origin {
        client_ip: walk(address, trusted, fields),
        host: rightmost(fields, &X_FORWARDED_HOST)
            .filter(|host| is_authority(host.as_bytes()))
            .and_then(|host| HeaderValue::from_str(host).ok())
            .map(Cow::Owned)
            .or(own.host),
        scheme: match rightmost(fields, &X_FORWARDED_PROTO) {
            Some(scheme) if is_one_of(scheme, ["https", "wss"]) => ClientScheme::Https,
            Some(scheme) if is_one_of(scheme, ["http", "ws"]) => ClientScheme::Http,
            _ => own.scheme,
        },
        claims: ForwardingClaims::Believed,
    }
}

/// The first letters of claims' names.
const CLAIMS_BEGIN: [u8; 2] = [b'x', b'f'];

/// Whether a header speaks for a client further away: `X-Forwarded-*`, `Forwarded`, `X-Real-IP`, and their
/// look-alikes with underscores, which CGI-like backends can't tell apart.
///
/// `name` is in lower case.
pub(crate) fn is_claim(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    // Most names are not asked further than their first letter.
    match name.first() {
        Some(b'x') => {
            name.get(..PREFIX.len())
                .is_some_and(|start| is_same_name(start, PREFIX))
                || is_same_name(name, b"x-real-ip")
        }
        Some(b'f') => name == b"forwarded",
        _ => false,
    }
}

/// Whether `name`, in lower case, is `expected` when underscores count as hyphens.
pub(crate) fn is_same_name(name: &[u8], expected: &[u8]) -> bool {
    name.len() == expected.len()
        && name
            .iter()
            .zip(expected)
            .all(|(byte, expected)| byte == expected || (*byte == b'_' && *expected == b'-'))
}

fn walk(peer: Option<IpAddr>, trusted: &[IpNet], fields: RequestFields<'_>) -> Option<IpAddr> {
    let mut client = peer;
    let lines: Vec<&[u8]> = fields.all(&X_FORWARDED_FOR).collect();
    for line in lines.into_iter().rev() {
        let Some(line) = visible(line) else {
            return client;
        };
        let entries = line.rsplit(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let Some(address) = parse_entry(entry) else {
                return client;
            };
            client = Some(address);
            if !is_listed(trusted, address) {
                return client;
            }
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = entry
        .parse::<IpAddr>()
        .ok()
        .or_else(|| entry.parse().ok().map(|socket: SocketAddr| socket.ip()))
        .or_else(|| bracketed().map(IpAddr::V6))?;
    Some(address.to_canonical())
}

/// The text of a value of visible ASCII, as `HeaderValue::to_str` has it.
fn visible(value: &[u8]) -> Option<&str> {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    let text = value.iter().all(is_visible).then_some(value)?;
    std::str::from_utf8(text).ok()
}

fn rightmost<'a>(fields: RequestFields<'a>, name: &HeaderName) -> Option<&'a str> {
    let last_line = visible(fields.all(name).last()?)?;
    last_line.rsplit(',').next().map(str::trim)
}

fn is_one_of(value: &str, expected: [&str; 2]) -> bool {
    expected
        .iter()
        .any(|expected| value.eq_ignore_ascii_case(expected))
}

fn is_listed(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Loopback, link-local, RFC 1918, RFC 6598 (carrier-grade NAT, used inside clouds), RFC 4193.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || (first == 100 && second & 0b1100_0000 == 64)
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn nets(nets: &[&str]) -> Vec<IpNet> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn peer(address: &str) -> Peer {
        Peer {
            address: Some(address.parse().unwrap()),
            nameless: false,
            tls: false,
        }
    }

    fn client(peer_address: &str, trusted: &[&str], lines: &[&str]) -> String {
        let pairs: Vec<_> = lines
            .iter()
            .map(|line| ("x-forwarded-for", *line))
            .collect();
        let origin = resolve(peer(peer_address), &nets(trusted), &headers(&pairs), None);
        origin.client_ip.unwrap().to_string()
    }

    #[test]
    fn a_private_address_tells_nothing_where_no_proxy_is_trusted() {
        let telling = |address: &str, trusted: &[&str]| {
            let origin = resolve(peer(address), &nets(trusted), &headers(&[]), None);
            origin.telling_address(&nets(trusted)).is_some()
        };
        for private in ["127.0.0.1", "10.1.2.3", "100.64.0.1", "::1", "fd00::1"] {
            assert!(!telling(private, &[]), "{private}");
            assert!(telling(private, &["192.168.0.0/16"]), "{private}");
        }
        assert!(telling("192.0.2.9", &[]) && telling("2001:db8::1", &[]));
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(client("192.0.2.9", &[], &["203.0.113.1"]), "192.0.2.9");
        assert_eq!(
            client("192.0.2.9", &["10.0.0.0/8"], &["203.0.113.1"]),
            "192.0.2.9"
        );
        assert_eq!(client("::ffff:192.0.2.9", &[], &[]), "192.0.2.9");
    }

    #[test]
    fn trusted_proxies_are_walked_from_the_right() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        for (lines, expected) in [
            (vec!["203.0.113.1"], "203.0.113.1"),
            (vec!["198.51.100.7, 203.0.113.1"], "203.0.113.1"),
            (vec!["198.51.100.7, 203.0.113.1, 10.2.3.4"], "203.0.113.1"),
            (vec!["203.0.113.1", "10.2.3.4, 10.0.0.2"], "203.0.113.1"),
            (vec!["10.9.9.9, 10.2.3.4"], "10.9.9.9"),
            (vec!["203.0.113.1:4711,10.2.3.4:80"], "203.0.113.1"),
            (vec!["[2a00::1]:4711, [2001:db8::5]"], "2a00::1"),
            (vec!["::ffff:203.0.113.1, ::ffff:10.0.0.3"], "203.0.113.1"),
            (vec!["203.0.113.1,, 10.0.0.3,"], "203.0.113.1"),
            (vec![""], "10.0.0.1"),
            (vec![], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &trusted, &lines), expected, "{lines:?}");
            assert_eq!(
                client("::ffff:10.0.0.1", &trusted, &lines),
                expected,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_walk() {
        for garbage in [
            "unknown",
            "_hidden",
            "1.2.3",
            "fe80::1%eth0",
            "[::1",
            "a b",
            "1.2.3.4:99999",
        ] {
            let line = format!("203.0.113.1, {garbage}, 10.0.0.3");
            assert_eq!(
                client("10.0.0.1", &["10.0.0.0/8"], &[&line]),
                "10.0.0.3",
                "{garbage}"
            );
        }
    }

    #[test]
    fn scheme_and_host_come_from_trusted_proxies_only() {
        let claims = headers(&[
            ("x-forwarded-proto", "http, HTTPS"),
            ("x-forwarded-host", "evil.example, live.example:8443"),
        ]);
        let host = HeaderValue::from_static("own.example");
        let believed = resolve(
            peer("10.0.0.1"),
            &nets(&["10.0.0.1/32"]),
            &claims,
            Some(&host),
        );
        assert_eq!(believed.scheme, ClientScheme::Https);
        assert_eq!(*believed.host.unwrap(), "live.example:8443");
        assert_eq!(believed.claims, ForwardingClaims::Believed);

        let refused = resolve(peer("10.0.0.1"), &[], &claims, Some(&host));
        assert_eq!(refused.scheme, ClientScheme::Http);
        assert_eq!(*refused.host.unwrap(), "own.example");
        assert_eq!(
            refused.claims,
            ForwardingClaims::Dropped { private_peer: true }
        );
    }

    #[test]
    fn unusable_schemes_and_hosts_of_a_trusted_proxy_are_replaced_by_ours() {
        let claims = headers(&[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b")]);
        let host = HeaderValue::from_static("own.example");
        let tls = Peer {
            tls: true,
            ..peer("10.0.0.1")
        };
        let origin = resolve(tls, &nets(&["10.0.0.0/8"]), &claims, Some(&host));
        assert_eq!(
            (origin.scheme, origin.host.unwrap().into_owned()),
            (ClientScheme::Https, host)
        );
    }

    #[test]
    fn dropped_claims_say_whether_the_peer_looks_like_a_load_balancer() {
        for (address, private_peer) in [
            ("127.0.0.1", true),
            ("172.16.3.4", true),
            ("100.64.0.1", true),
            ("169.254.1.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("::ffff:10.0.0.1", true),
            ("203.0.113.1", false),
            ("100.128.0.1", false),
            ("2a00::1", false),
        ] {
            let origin = resolve(
                peer(address),
                &[],
                &headers(&[("x_forwarded_for", "1.2.3.4")]),
                None,
            );
            assert_eq!(
                origin.claims,
                ForwardingClaims::Dropped { private_peer },
                "{address}"
            );
        }
    }

    #[test]
    fn a_unix_socket_is_believed_once_any_proxy_is() {
        let unix = Peer {
            address: None,
            nameless: false,
            tls: false,
        };
        let claims = headers(&[("x-forwarded-for", "203.0.113.1")]);
        assert_eq!(resolve(unix, &[], &claims, None).client_ip, None);
        let believed = resolve(unix, &nets(&["127.0.0.0/8"]), &claims, None);
        assert_eq!(believed.client_ip, Some("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn claims_are_recognised_with_underscores() {
        for name in [
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_port",
            "forwarded",
            "x-real-ip",
            "x_real-ip",
        ] {
            assert!(is_claim(name.as_bytes()), "{name}");
        }
        for name in [
            "x-forwarded",
            "forwarded-x",
            "x-real-ips",
            "x-forward-for",
            "via",
        ] {
            assert!(!is_claim(name.as_bytes()), "{name}");
        }
    }
}
