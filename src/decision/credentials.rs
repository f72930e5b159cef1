//! Row 2: where a request carries its JWT (`Authorization`, or the cookie of `auth.cookie`), and whether it is valid.
//!
//! Keeps true: a browser sends a cookie whichever page caused the request, so a cookie counts only where no other
//! site's page can have caused it: with a JSON body, which forms can't send, and an `Origin` of this host or one that
//! `[cors]` lists.
//! Must not know: which token is asked for.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};

use super::order::{DecisionRefusal, Now};
use crate::config::model::Config;
use crate::http::cors::{self, CorsPolicy, Origins};
use crate::http::media::{self, Media};
use crate::logins::jwt;
use crate::logins::jwt::{JwtClaims, JwtError};
use crate::snapshot::Snapshot;
use crate::terms::clock::Clock;

/// Verifies the request's login.
pub(super) async fn authenticate(
    snapshot: &Snapshot,
    clock: &Clock,
    headers: &HeaderMap,
    now: Now,
) -> Result<JwtClaims, DecisionRefusal> {
    let claims = match credentials(&snapshot.config, headers) {
        Ok(token) => {
            // This waits where the key set must be read again.
            snapshot.verifier.identify(token, clock, now.due).await
        }
        Err(error) => Err(error),
    };
    claims.map_err(|error| match error {
        JwtError::KeyUnknown => {
            DecisionRefusal::unverified("This login can't be verified right now")
        }
        JwtError::NoKeys | JwtError::NoTime => {
            DecisionRefusal::unavailable("Logins can't be verified right now")
        }
        _ => DecisionRefusal {
            unauthenticated: error.reason(),
            ..DecisionRefusal::new(error.outcome(), error.to_string())
        },
    })
}

/// The JWT of a request. `Authorization` counts wherever it is present, whatever its value.
pub(super) fn credentials<'h>(
    config: &Config,
    headers: &'h HeaderMap,
) -> Result<&'h str, JwtError> {
    let Some(name) = config.cookie.as_deref() else {
        return jwt::authorization(headers);
    };
    if headers.contains_key(AUTHORIZATION) {
        return jwt::authorization(headers);
    }
    let token = jwt::cookie(headers, name)?;
    if media::of(headers) == Some(Media::Json)
        && is_same_site_or_listed(config.cors.as_ref(), headers)
    {
        Ok(token)
    } else {
        Err(JwtError::CookieAlone)
    }
}

/// Whether the request comes from a page of this very host, or of one that `[cors]` lists. `"*"` lists no host here.
fn is_same_site_or_listed(policy: Option<&CorsPolicy>, headers: &HeaderMap) -> bool {
    let Some(origin) = cors::origin(headers) else {
        return false;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let listed = match policy.map(|policy| &policy.origins) {
        Some(Origins::Listed(patterns)) => patterns.iter().any(|pattern| pattern.matches(origin)),
        Some(Origins::Any) | None => false,
    };
    listed || is_of_host(origin, headers)
}

/// Whether an origin has the host and port of the request's `Host`. The scheme isn't compared: behind a proxy, renewd
/// doesn't know which one the client used.
fn is_of_host(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let (Some(host), Some((scheme, authority))) = (host, origin.split_once("://")) else {
        return false;
    };
    let usual = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    // Browsers leave out a scheme's default port; other clients may write it.
    let plain = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        authority
            .strip_suffix(usual)
            .map_or_else(|| authority.clone(), str::to_owned)
    };
    !authority.is_empty() && plain(host) == plain(authority)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::ORIGIN;

    use super::*;
    use crate::http::cors::OriginPattern;

    fn is_accepted(
        origins: &[&'static str],
        host: &'static str,
        policy: Option<&CorsPolicy>,
    ) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_static(origin));
        }
        headers.insert(HOST, HeaderValue::from_static(host));
        is_same_site_or_listed(policy, &headers)
    }

    fn policy(origins: Origins) -> CorsPolicy {
        CorsPolicy {
            origins,
            credentials: false,
            expose: None,
        }
    }

    #[test]
    fn a_page_of_the_same_host_and_port_is_ours() {
        for (origin, host) in [
            ("https://app.example", "app.example"),
            ("https://app.example", "App.Example:443"),
            ("http://app.example:80", "app.example"),
            ("http://localhost:3000", "localhost:3000"),
            ("http://[::1]:3000", "[::1]:3000"),
        ] {
            assert!(is_accepted(&[origin], host, None), "{origin} {host}");
        }
    }

    #[test]
    fn any_other_page_is_not() {
        for origin in [
            "https://evil.example",
            "https://app.example.evil.example",
            "https://xapp.example",
            "https://app.example:8443",
            "http://app.example:443",
            "https://",
            "null",
            "app.example",
            "file://app.example",
        ] {
            assert!(!is_accepted(&[origin], "app.example", None), "{origin}");
        }
        assert!(!is_accepted(&[], "app.example", None));
        let own = "https://app.example";
        assert!(!is_accepted(&[own, own], "app.example", None));
    }

    #[test]
    fn listed_origins_count_and_a_star_lists_none() {
        let pattern = OriginPattern::parse("https://*.vercel.app").unwrap();
        let listed = policy(Origins::Listed(vec![pattern]));
        let page = ["https://x.vercel.app"];
        assert!(is_accepted(&page, "api.example", Some(&listed)));
        assert!(!is_accepted(
            &["https://evil.example"],
            "api.example",
            Some(&listed)
        ));
        assert!(!is_accepted(
            &page,
            "api.example",
            Some(&policy(Origins::Any))
        ));
    }
}
