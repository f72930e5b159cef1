//! A URL that renewd itself asks: a source's, a hook's, a key set's. Pure.
//!
//! Keeps true: absolute, `http` or `https`, with a host and a port that can be one; no user, no password, no fragment.
//! Must not know: what is asked there, or how.

use std::fmt;
use std::net::IpAddr;

use ::http::Uri;
use ::http::uri::PathAndQuery;

/// The URL of a request that renewd makes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    uri: Uri,
    secure: bool,
    host: String,
    port: u16,
}

/// Why a text isn't such a URL. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Not `http://HOST…` or `https://HOST…`.
    #[error("not an http:// or https:// URL")]
    Malformed,
    /// `user:password@` isn't allowed: every reader of the configuration would see the password.
    #[error("a URL with a user or a password")]
    Credentials,
    /// `#…` never travels (RFC 9110 §4.2.4).
    #[error("a URL with a fragment")]
    Fragment,
    /// A port outside 1–65535.
    #[error("a URL whose port is no port")]
    Port,
}

impl Url {
    /// Reads an absolute URL.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        if text.contains('#') {
            return Err(BadUrl::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| BadUrl::Malformed)?;
        let (secure, usual) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(BadUrl::Malformed),
        };
        let authority = uri.authority().ok_or(BadUrl::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::Credentials);
        }
        // A port that is no port isn't "no port".
        let written = authority.as_str().len() > authority.host().len();
        let port = match (authority.port_u16(), written) {
            (Some(port), _) if port > 0 => port,
            (None, false) => usual,
            _ => return Err(BadUrl::Port),
        };
        let bracketed = authority
            .host()
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(authority.host());
        if host.is_empty() || (bracketed.is_some() && host.parse::<IpAddr>().is_err()) {
            return Err(BadUrl::Malformed);
        }
        let host = host.to_owned();
        Ok(Self {
            uri,
            secure,
            host,
            port,
        })
    }

    /// All of it, absolute.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether it is `https`.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host name, or address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port as written, else 80 or 443.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From its first `/`, without the query.
    pub(crate) fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", PathAndQuery::path)
    }

    /// Whether a request surely stays on this machine: the host is an address of the loopback network
    /// (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3), or `localhost` (RFC 6761 §6.3).
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// The URL as written.
impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_read_or_implied() {
        for (text, host, port, path) in [
            ("http://127.0.0.1:3001/a/b?c=d", "127.0.0.1", 3001, "/a/b"),
            ("https://keys.example", "keys.example", 443, "/"),
            ("http://[::1]/", "::1", 80, "/"),
            ("HTTP://Host:8080/X", "Host", 8080, "/X"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host(), url.port(), url.path()), (host, port, path));
        }
    }

    #[test]
    fn what_no_request_of_ours_can_go_to_is_refused() {
        for (text, why) in [
            ("", BadUrl::Malformed),
            ("/internal", BadUrl::Malformed),
            ("127.0.0.1:3001", BadUrl::Malformed),
            ("ftp://host/", BadUrl::Malformed),
            ("unix:/run/x.sock", BadUrl::Malformed),
            ("http://[backend]/", BadUrl::Malformed),
            ("http://a b/", BadUrl::Malformed),
            ("http://user:word@host/", BadUrl::Credentials),
            ("http://host/#part", BadUrl::Fragment),
            ("http://host:0/", BadUrl::Port),
            ("http://host:/", BadUrl::Port),
        ] {
            assert_eq!(Url::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn loopback_is_what_stays_on_this_machine() {
        let loopback = |text: &str| Url::parse(text).unwrap().is_loopback();
        assert!(loopback("http://127.0.0.9:1/"));
        assert!(loopback("http://[::1]/"));
        assert!(loopback("http://[::ffff:127.0.0.1]/"));
        assert!(loopback("http://LocalHost/"));
        assert!(!loopback("http://localhost.example/"));
        assert!(!loopback("http://10.0.0.1/"));
        assert!(!loopback("http://0.0.0.0/"));
    }
}
