//! `[cors]`: which of renewd's own answers a browser may show to another site's page.
//!
//! Keeps true: the headers are those that npm's `cors`, in front of the backend's routes, writes for the same list and
//! the same `Origin` (`tests/forwarding/cors.rs` holds it against the real one). The backend answers preflights.
//! Must not know: configuration files, which answers are renewd's own.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};

use super::request_fields::RequestFields;

/// The origins, and what their pages are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsPolicy {
    /// Whose pages may read.
    pub origins: Origins,
    /// Whether they may when the request carried cookies; never with [`Origins::Any`].
    pub credentials: bool,
    /// Header names that pages may read, separated by commas.
    pub expose: Option<HeaderValue>,
}

/// The origins whose pages may read renewd's answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All origins.
    Any,
    /// Those that one of these matches.
    Listed(Vec<OriginPattern>),
}

impl CorsPolicy {
    /// Adds the headers for a request with this `Origin` (see [`origin`]).
    pub(crate) fn apply(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        match &self.origins {
            Origins::Any => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Origins::Listed(patterns) => {
                if let Some(origin) = origin
                    && let Ok(text) = origin.to_str()
                    && patterns.iter().any(|pattern| pattern.matches(text))
                {
                    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                }
                // Allowed or not: a cache must not give one origin's answer to another.
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
        }
        if self.credentials {
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        if let Some(names) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
    }
}

/// The request's `Origin`; none if it has several.
pub(crate) fn origin<'a>(fields: impl Into<RequestFields<'a>>) -> Option<HeaderValue> {
    let fields = fields.into();
    let is_only = fields.all(&ORIGIN).nth(1).is_none();
    fields.value(&ORIGIN).filter(|_| is_only)
}

/// Hosting where each account chooses the first label of its origins, of the private part of the public suffix list
/// (<https://publicsuffix.org/list/>) what apps like this one are put on.
const SHARED_HOSTING: [&str; 33] = [
    "amplifyapp.com",
    "appspot.com",
    "azurestaticapps.net",
    "azurewebsites.net",
    "cloudfront.net",
    "codesandbox.io",
    "csb.app",
    "deno.dev",
    "expo.app",
    "firebaseapp.com",
    "fly.dev",
    "framer.app",
    "github.io",
    "gitlab.io",
    "glitch.me",
    "herokuapp.com",
    "loca.lt",
    "lovable.app",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "replit.app",
    "run.app",
    "surge.sh",
    "trycloudflare.com",
    "up.railway.app",
    "vercel.app",
    "web.app",
    "webcontainer.io",
    "workers.dev",
];

/// An origin (RFC 6454 section 6.2) in which one `*` may stand: `https://app.example.com`, `https://*.vercel.app`
/// (any subdomain, at any depth), `https://app-*.vercel.app` (any characters of that label), `http://localhost:*`
/// (any port).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    scheme: Box<str>,
    host: Host,
    port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Exact(Box<str>),
    Between {
        prefix: Box<str>,
        suffix: Box<str>,
        /// Whether the wildcard takes dots: only where it is the whole of the first label. The owner of
        /// `*.example.com` owns the names below too, but `app-x.mallory.vercel.app` isn't from the owner of
        /// `app-x.vercel.app`.
        deep: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Port {
    Default,
    Exact(Box<str>),
    Any,
}

impl OriginPattern {
    /// Parses a pattern; the error says what is wrong with it. Letter case makes no difference, and a scheme's own
    /// port is left out, as browsers do.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.to_ascii_lowercase();
        let Some((scheme, authority)) = text.split_once("://") else {
            return Err("not an origin");
        };
        let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.bytes().all(in_scheme)
        {
            return Err("not an origin's scheme");
        }
        if authority.contains(['/', '?', '#']) {
            return Err("an origin has no path, and no slash at its end");
        }
        let (host, port) = split_port(authority);
        Ok(Self {
            host: Host::parse(host)?,
            port: Port::parse(port, scheme)?,
            scheme: scheme.into(),
        })
    }

    /// The shared hosting below which every account could have an origin that this matches.
    pub(crate) fn shared_suffix(&self) -> Option<&'static str> {
        let Host::Between { suffix, .. } = &self.host else {
            return None;
        };
        SHARED_HOSTING.into_iter().find(|shared| {
            let before = suffix.strip_suffix(shared);
            // A label of the pattern between the two is an account of that hosting.
            before.is_some_and(|before| before.ends_with('.') && before.matches('.').count() == 1)
        })
    }

    /// Whether an `Origin` header's value is one of these.
    pub fn matches(&self, origin: &str) -> bool {
        origin.split_once("://").is_some_and(|(scheme, authority)| {
            let (host, port) = split_port(authority);
            *scheme == *self.scheme && self.host.matches(host) && self.port.matches(port)
        })
    }
}

impl Host {
    fn parse(host: &str) -> Result<Self, &'static str> {
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()) {
            return Ok(Self::Exact(host.into()));
        }
        let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
        if !host.bytes().all(in_host) || host.split('.').any(str::is_empty) {
            return Err("not an origin's host");
        }
        let Some((prefix, suffix)) = host.split_once('*') else {
            return Ok(Self::Exact(host.into()));
        };
        if suffix.contains('*') {
            return Err("one * is enough");
        }
        if !suffix.contains('.') {
            return Err("a * needs a domain behind it");
        }
        Ok(Self::Between {
            deep: prefix.is_empty() && suffix.starts_with('.'),
            prefix: prefix.into(),
            suffix: suffix.into(),
        })
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(expected) => **expected == *host,
            Self::Between {
                prefix,
                suffix,
                deep,
            } => {
                let between = host
                    .strip_prefix(&**prefix)
                    .and_then(|rest| rest.strip_suffix(&**suffix));
                between.is_some_and(|between| {
                    let in_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                    let is_label = |label: &str| !label.is_empty() && label.bytes().all(in_label);
                    if *deep {
                        between.split('.').all(is_label)
                    } else {
                        is_label(between)
                    }
                })
            }
        }
    }
}

impl Port {
    fn parse(port: Option<&str>, scheme: &str) -> Result<Self, &'static str> {
        match (port, scheme) {
            (None, _) | (Some("80"), "http") | (Some("443"), "https") => Ok(Self::Default),
            (Some("*"), _) => Ok(Self::Any),
            (Some(port), _) if port.parse::<u16>().is_ok_and(|number| number > 0) => {
                Ok(Self::Exact(port.into()))
            }
            _ => Err("not an origin's port"),
        }
    }

    fn matches(&self, port: Option<&str>) -> bool {
        match (self, port) {
            (Self::Default | Self::Any, None) => true,
            (Self::Any, Some(port)) => port.parse::<u16>().is_ok(),
            (Self::Exact(expected), Some(port)) => **expected == *port,
            (Self::Default, Some(_)) | (Self::Exact(_), None) => false,
        }
    }
}

/// Host and port; the colons inside an IPv6 address's brackets divide nothing.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_below_shared_hosting_matches_every_customers_origin() {
        for (text, shared) in [
            ("https://*.vercel.app", Some("vercel.app")),
            ("https://my-app-*.vercel.app", Some("vercel.app")),
            ("https://*-app.Vercel.App:8443", Some("vercel.app")),
            ("https://*.up.railway.app", Some("up.railway.app")),
            ("https://my-app.vercel.app", None),
            ("https://*.my-app.vercel.app", None),
            ("https://*.example.com", None),
            ("https://*.notvercel.app", None),
            ("http://localhost:*", None),
        ] {
            let pattern = OriginPattern::parse(text).unwrap();
            assert_eq!(pattern.shared_suffix(), shared, "{text}");
        }
    }

    fn allowed(pattern: &str, origin: &str) -> bool {
        OriginPattern::parse(pattern).unwrap().matches(origin)
    }

    #[test]
    fn an_origin_is_its_scheme_host_and_port() {
        for (pattern, origin) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://localhost:*", "http://localhost:5173"),
            ("http://localhost:*", "http://localhost"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[::1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert!(allowed(pattern, origin), "{pattern} {origin}");
        }
        for origin in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://evil-app.example.com",
            "https://app.example.com/",
            "null",
            "",
        ] {
            assert!(!allowed("https://app.example.com", origin), "{origin}");
        }
        assert!(!allowed("http://localhost:*", "http://localhost:evil"));
    }

    #[test]
    fn a_wildcard_stands_for_subdomains_or_part_of_a_label() {
        for (pattern, origin) in [
            ("https://*.vercel.app", "https://preview-1.vercel.app"),
            ("https://*.vercel.app", "https://a.b.vercel.app"),
            (
                "https://app-*.vercel.app",
                "https://app-git-main.vercel.app",
            ),
            (
                "https://*-app.vercel.app:8443",
                "https://x-app.vercel.app:8443",
            ),
        ] {
            assert!(allowed(pattern, origin), "{pattern} {origin}");
        }
        for (pattern, origin) in [
            ("https://*.vercel.app", "https://vercel.app"),
            ("https://*.vercel.app", "https://.vercel.app"),
            ("https://*.vercel.app", "https://a..vercel.app"),
            ("https://*.vercel.app", "https://evilvercel.app"),
            ("https://*.vercel.app", "https://x.vercel.app.evil.example"),
            ("https://*.vercel.app", "https://evil.example/.vercel.app"),
            ("https://*.vercel.app", "https://evil.example#.vercel.app"),
            ("https://*.vercel.app", "https://user@x.vercel.app"),
            ("https://*.vercel.app", "https://x.vercel.app:8443"),
            ("https://*.vercel.app", "http://x.vercel.app"),
            ("https://app-*.vercel.app", "https://app-.vercel.app"),
            (
                "https://app-*.vercel.app",
                "https://app-x.mallory.vercel.app",
            ),
        ] {
            assert!(!allowed(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_a_reason() {
        for (text, reason) in [
            ("app.example.com", "not an origin"),
            ("null", "not an origin"),
            ("*", "not an origin"),
            (
                "https://app.example.com/",
                "an origin has no path, and no slash at its end",
            ),
            (
                "https://app.example.com/live",
                "an origin has no path, and no slash at its end",
            ),
            ("*://app.example.com", "not an origin's scheme"),
            ("https://user@app.example.com", "not an origin's host"),
            ("https://", "not an origin's host"),
            ("https://a..b", "not an origin's host"),
            ("https://*", "a * needs a domain behind it"),
            ("https://app-*", "a * needs a domain behind it"),
            ("https://10.0.0.*", "a * needs a domain behind it"),
            ("https://*.*.example.com", "one * is enough"),
            ("https://app.example.com:port", "not an origin's port"),
            ("https://app.example.com:0", "not an origin's port"),
        ] {
            assert_eq!(OriginPattern::parse(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn several_origin_lines_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(origin(&headers), None);
        headers.append(ORIGIN, HeaderValue::from_static("https://a.example"));
        assert_eq!(origin(&headers).unwrap(), "https://a.example");
        headers.append(ORIGIN, HeaderValue::from_static("https://b.example"));
        assert_eq!(origin(&headers), None);
    }
}
