//! Decides which requests are allowed: known hosts, no other site's pages, the bearer token. Pure.
//!
//! A browser on the operator's machine can reach loopback for any page that it shows. A page can point its own name
//! at 127.0.0.1 (DNS rebinding), which an unknown `Host` reveals, and can send requests whose answers it can't read,
//! which `Origin` and `Sec-Fetch-Site` reveal.
//!
//! Keeps true: a token is compared in constant time, and an empty one opens nothing.
//! Must not know: what a request asks for.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Version};

use crate::config::secret::Secret;

/// Names that every system resolves to loopback (RFC 6761 §6.3; Debian's /etc/hosts).
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "ip6-localhost", "ip6-loopback"];

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// On this address.
    Tcp(IpAddr),
    /// On the unix socket, which the socket's file mode protects and no browser can open.
    Unix,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardRefusal {
    /// The request names a `Host` that the guard does not know.
    UnknownHost,
    /// It comes from another site's page.
    CrossSite,
    /// It needs a token and has none, or a wrong one.
    Unauthenticated,
    /// It needs a token, and none is configured.
    NoTokenConfigured,
}

/// Refuses a request that a page of another site may have made a browser send.
///
/// `allowed` is `admin.allowed_hosts`: names that an attacker can't point at this machine.
pub(crate) fn same_site(
    entrance: Entrance,
    head: &Parts,
    allowed: &[String],
) -> Result<(), GuardRefusal> {
    let (uri, headers) = (&head.uri, &head.headers);
    let host = sole(headers, &HOST).and_then(|host| host.to_str().ok());
    if let Entrance::Tcp(listening) = entrance {
        // Probes of load balancers use HTTP/1.0 without a Host; browsers don't.
        let probe = head.version == Version::HTTP_10 && !headers.contains_key(HOST);
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        let known = host.is_some_and(|host| is_known(&host, listening, allowed));
        let target_known = uri
            .authority()
            .is_none_or(|authority| is_known(authority, listening, allowed));
        if !(known || probe) || !target_known {
            return Err(GuardRefusal::UnknownHost);
        }
    }
    if headers.contains_key(ORIGIN) {
        let origin = sole(headers, &ORIGIN).and_then(|origin| origin.to_str().ok());
        let authority = origin.and_then(|origin| {
            origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"))
        });
        match (authority, host) {
            (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => {}
            _ => return Err(GuardRefusal::CrossSite),
        }
    }
    // `same-site` may be the page of another program on another port, because ports don't belong to a site.
    let elsewhere = headers
        .get_all("sec-fetch-site")
        .iter()
        .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if elsewhere {
        return Err(GuardRefusal::CrossSite);
    }
    Ok(())
}

/// Refuses a request without the bearer token, unless it came by the unix socket.
pub(crate) fn authorized(
    entrance: Entrance,
    headers: &HeaderMap,
    token: Option<&Secret>,
) -> Result<(), GuardRefusal> {
    if entrance == Entrance::Unix {
        return Ok(());
    }
    let Some(token) = token else {
        return Err(GuardRefusal::NoTokenConfigured);
    };
    let given = sole(headers, &AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked(7))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, given)| Secret::new(given.trim_ascii().to_vec()));
    // `Secret` compares in constant time.
    match given {
        Some(given) if !given.expose().is_empty() && given == *token => Ok(()),
        _ => Err(GuardRefusal::Unauthenticated),
    }
}

fn sole<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

fn is_known(authority: &Authority, listening: IpAddr, allowed: &[String]) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = literal.parse::<IpAddr>() {
        // DNS rebinding needs a name. On a wildcard listener any address can be one of the machine's own.
        let address = address.to_canonical();
        return address.is_loopback()
            || address == listening.to_canonical()
            || listening.is_unspecified();
    }
    // A fully qualified name may end with a dot.
    let name = host.strip_suffix('.').unwrap_or(host);
    let allowed = allowed.iter().map(String::as_str);
    let mut known = LOOPBACK_NAMES.into_iter().chain(allowed);
    known.any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Entrance = Entrance::Tcp(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn verdict(
        entrance: Entrance,
        lines: &[(&'static str, &'static str)],
    ) -> Result<(), GuardRefusal> {
        same_site(entrance, &head("/", headers(lines)), &[])
    }

    fn head(target: &str, headers: HeaderMap) -> Parts {
        let mut request = http::Request::get(target).body(()).unwrap();
        *request.headers_mut() = headers;
        request.into_parts().0
    }

    #[test]
    fn loopback_in_every_spelling_is_known_and_other_names_are_not() {
        for host in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1:9464",
            "127.9.9.9",
            "[::1]:9464",
        ] {
            assert_eq!(verdict(LOOPBACK, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x@localhost",
            "10.0.0.1",
            "",
        ] {
            let refused = Err(GuardRefusal::UnknownHost);
            assert_eq!(verdict(LOOPBACK, &[("host", host)]), refused, "{host}");
        }
        assert_eq!(verdict(LOOPBACK, &[]), Err(GuardRefusal::UnknownHost));
    }

    #[test]
    fn only_http_1_0_may_come_without_a_host() {
        let mut probe = head("/healthz", HeaderMap::new());
        let refused = Err(GuardRefusal::UnknownHost);
        assert_eq!(same_site(LOOPBACK, &probe, &[]), refused);
        probe.version = Version::HTTP_10;
        assert_eq!(same_site(LOOPBACK, &probe, &[]), Ok(()));
        probe.headers = headers(&[("host", "evil.example")]);
        assert_eq!(same_site(LOOPBACK, &probe, &[]), refused);
    }

    #[test]
    fn two_hosts_are_none() {
        let mut both = headers(&[("host", "localhost")]);
        both.append(HOST, HeaderValue::from_static("localhost"));
        assert_eq!(
            same_site(LOOPBACK, &head("/", both), &[]),
            Err(GuardRefusal::UnknownHost)
        );
    }

    #[test]
    fn an_absolute_target_must_be_known_too() {
        let strange = head("http://evil.example/", headers(&[("host", "localhost")]));
        let refused = Err(GuardRefusal::UnknownHost);
        assert_eq!(same_site(LOOPBACK, &strange, &[]), refused);
    }

    #[test]
    fn the_listen_address_is_known_and_a_wildcard_listener_knows_every_address() {
        let ours = Entrance::Tcp("10.0.0.5".parse().unwrap());
        assert_eq!(verdict(ours, &[("host", "10.0.0.5:9464")]), Ok(()));
        assert_eq!(
            verdict(ours, &[("host", "10.0.0.6")]),
            Err(GuardRefusal::UnknownHost)
        );
        let wildcard = Entrance::Tcp("::".parse().unwrap());
        assert_eq!(verdict(wildcard, &[("host", "10.0.0.6")]), Ok(()));
        assert_eq!(
            verdict(wildcard, &[("host", "x.example")]),
            Err(GuardRefusal::UnknownHost)
        );
    }

    #[test]
    fn an_allowed_name_is_known_with_any_port_and_no_name_beside_it() {
        let allowed = ["renewd.monitoring.svc".to_owned()];
        let verdict = |lines: &[(&'static str, &'static str)]| {
            same_site(LOOPBACK, &head("/", headers(lines)), &allowed)
        };
        for host in [
            "renewd.monitoring.svc",
            "Renewd.Monitoring.svc:9464",
            "renewd.monitoring.svc.:80",
            "localhost",
        ] {
            assert_eq!(verdict(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "monitoring.svc",
            "x.renewd.monitoring.svc",
            "renewd.monitoring.svc.evil.example",
            "x@renewd.monitoring.svc",
        ] {
            let refused = Err(GuardRefusal::UnknownHost);
            assert_eq!(verdict(&[("host", host)]), refused, "{host}");
        }
        let host = ("host", "renewd.monitoring.svc");
        assert_eq!(
            verdict(&[host, ("origin", "http://evil.example")]),
            Err(GuardRefusal::CrossSite)
        );
        let own = ("origin", "http://renewd.monitoring.svc");
        assert_eq!(verdict(&[host, own]), Ok(()));
    }

    #[test]
    fn another_site_is_refused_by_origin_and_by_fetch_metadata() {
        let host = ("host", "localhost:9464");
        for origin in [
            "http://localhost:3000",
            "http://evil.example",
            "null",
            "localhost:9464",
        ] {
            let refused = Err(GuardRefusal::CrossSite);
            assert_eq!(
                verdict(LOOPBACK, &[host, ("origin", origin)]),
                refused,
                "{origin}"
            );
            assert_eq!(
                verdict(Entrance::Unix, &[host, ("origin", origin)]),
                refused,
                "{origin}"
            );
        }
        for site in ["cross-site", "same-site", "", "CROSS"] {
            let refused = Err(GuardRefusal::CrossSite);
            assert_eq!(
                verdict(LOOPBACK, &[host, ("sec-fetch-site", site)]),
                refused,
                "{site}"
            );
        }
        let own = [
            host,
            ("origin", "http://localhost:9464"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(verdict(LOOPBACK, &own), Ok(()));
        assert_eq!(
            verdict(LOOPBACK, &[host, ("sec-fetch-site", "none")]),
            Ok(())
        );
    }

    #[test]
    fn only_the_exact_bearer_token_opens() {
        let token = Secret::new(b"correct".to_vec());
        let check = |lines: &[(&'static str, &'static str)]| {
            authorized(LOOPBACK, &headers(lines), Some(&token))
        };
        assert_eq!(check(&[("authorization", "Bearer correct")]), Ok(()));
        assert_eq!(check(&[("authorization", "bearer correct")]), Ok(()));
        for wrong in [
            "Bearer correc",
            "Bearer correctx",
            "Bearer ",
            "Basic correct",
            "correct",
            "",
        ] {
            let refused = Err(GuardRefusal::Unauthenticated);
            assert_eq!(check(&[("authorization", wrong)]), refused, "{wrong}");
        }
        assert_eq!(check(&[]), Err(GuardRefusal::Unauthenticated));
    }

    #[test]
    fn without_a_configured_token_only_the_unix_socket_opens() {
        let lines = headers(&[("authorization", "Bearer ")]);
        let refused = Err(GuardRefusal::NoTokenConfigured);
        assert_eq!(authorized(LOOPBACK, &lines, None), refused);
        assert_eq!(authorized(Entrance::Unix, &HeaderMap::new(), None), Ok(()));
        let empty = Secret::new(Vec::new());
        let refused = Err(GuardRefusal::Unauthenticated);
        assert_eq!(authorized(LOOPBACK, &lines, Some(&empty)), refused);
    }
}
