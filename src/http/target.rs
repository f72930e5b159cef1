//! Compares a request target with the paths that renewd owns: served, guarded, below one, or foreign; and how a foreign
//! target is forwarded.
//!
//! Keeps true: whatever Express 4 or 5 would route to the handler of an owned path is never [`Match::Foreign`]
//! (`tests/forwarding/spellings.rs` holds it against both). A plainly spelled target costs no allocation.
//! Must not know: methods, headers, configuration, how a path is read (`readings`).

use std::borrow::Cow;

use http::Uri;

use super::readings::{Readings, guard_key};

/// Which list of the configuration an owned path is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnedRoute {
    /// `routes.token`.
    Token,
    /// `routes.refresh`.
    Refresh,
}

/// Whose a request target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// A spelling that Express routes: answer it.
    Served(OwnedRoute),
    /// Not a served spelling, but read as an owned path: 404, never forwarded.
    Guarded,
    /// Read as a path below an owned one, which the backend may have mounted with all that is below.
    Below {
        /// Without dot segments, escapes and empty segments: the configuration says what becomes of it.
        plainly: bool,
    },
    /// The backend's: forward it.
    Foreign,
}

impl Match {
    /// Whether nothing but a preflight may come to the backend, where token requests are answered here; `refuses_below`
    /// says that of plainly spelled paths below owned ones.
    pub(crate) fn is_kept(self, refuses_below: bool) -> bool {
        match self {
            Self::Served(_) | Self::Guarded | Self::Below { plainly: false } => true,
            Self::Below { plainly: true } => refuses_below,
            Self::Foreign => false,
        }
    }
}

/// The owned paths, prepared for one comparison a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPaths {
    paths: Vec<Owned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    /// The path as configured, but in lower case and without doubled or trailing slashes; empty for `/`.
    spelling: Box<[u8]>,
    /// [`guard_key`] of the configured path.
    key: Box<[u8]>,
    route: OwnedRoute,
}

/// Where a reading is, seen from the owned paths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnedPlace {
    Owned,
    Below,
    Elsewhere,
}

impl OwnedPaths {
    /// Prepares the paths of `routes.token` and `routes.refresh`, each as configured: any letter case, with or
    /// without a trailing slash. A path on both lists counts as a token route.
    pub fn new(token: &[String], refresh: &[String]) -> Self {
        let token = token.iter().map(|path| Owned::new(path, OwnedRoute::Token));
        let refresh = refresh
            .iter()
            .map(|path| Owned::new(path, OwnedRoute::Refresh));
        Self {
            paths: token.chain(refresh).collect(),
        }
    }

    /// Says whose `target` is, which has these readings. Absolute-form targets count by their path alone, whatever
    /// scheme, host and userinfo.
    pub fn classify(&self, target: &Uri, readings: &Readings<'_>) -> Match {
        let path = target.path();
        if let Some(owned) = self.paths.iter().find(|owned| owned.is_spelled(path)) {
            return Match::Served(owned.route);
        }
        let mut below = false;
        for reading in readings.iter() {
            match self.place(reading) {
                OwnedPlace::Owned => return Match::Guarded,
                OwnedPlace::Below => below = true,
                OwnedPlace::Elsewhere => {}
            }
        }
        if below {
            let plainly = readings.is_plain();
            return Match::Below { plainly };
        }
        Match::Foreign
    }

    fn place(&self, reading: &[u8]) -> OwnedPlace {
        let mut place = OwnedPlace::Elsewhere;
        for owned in &self.paths {
            match owned.place(reading) {
                OwnedPlace::Owned => return OwnedPlace::Owned,
                OwnedPlace::Below => place = OwnedPlace::Below,
                OwnedPlace::Elsewhere => {}
            }
        }
        place
    }
}

impl Owned {
    fn new(path: &str, route: OwnedRoute) -> Self {
        let mut spelling = path.to_ascii_lowercase().into_bytes();
        spelling.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
        if spelling.last() == Some(&b'/') {
            spelling.pop();
        }
        Self {
            spelling: spelling.into(),
            key: guard_key(path).into(),
            route,
        }
    }

    /// Nothing is below an owned `/`: everything would be.
    fn place(&self, reading: &[u8]) -> OwnedPlace {
        let Some((head, tail)) = reading.split_at_checked(self.key.len()) else {
            return OwnedPlace::Elsewhere;
        };
        let place = match tail {
            [] => OwnedPlace::Owned,
            [b'/', ..] => OwnedPlace::Below,
            _ => return OwnedPlace::Elsewhere,
        };
        if head.eq_ignore_ascii_case(&self.key) {
            place
        } else {
            OwnedPlace::Elsewhere
        }
    }

    /// The spellings that Express routes here: any letter case, one trailing slash, and a doubled slash where a
    /// router may be mounted. Where routers are mounted is the backend's secret, so every boundary inside the path
    /// may be doubled; the leading slash is no boundary, and three slashes match nowhere.
    fn is_spelled(&self, path: &str) -> bool {
        let mut rest = path.as_bytes();
        // Most paths begin as these do and end otherwise.
        let last = trim_trailing_slash(rest).last().map(u8::to_ascii_lowercase);
        if last != self.spelling.last().copied() && !self.spelling.is_empty() {
            return false;
        }
        for (position, expected) in self.spelling.iter().enumerate() {
            let Some((first, tail)) = rest.split_first() else {
                return false;
            };
            if first.to_ascii_lowercase() != *expected {
                return false;
            }
            rest = match tail {
                [b'/', beyond @ ..] if *expected == b'/' && position > 0 => beyond,
                _ => tail,
            };
        }
        matches!(rest, [] | [b'/'])
    }
}

/// The target as it is forwarded: path and query byte for byte, scheme, authority and fragment gone; `*` stays `*`.
/// `None` for the authority form, which only `CONNECT` may use.
///
/// An absolute form without a path is forwarded as `/`, for `OPTIONS` too: once parsed it can't be told from one with
/// `/`.
pub fn origin_form(target: &Uri) -> Option<Cow<'_, str>> {
    let forwarded = target.path_and_query()?;
    if forwarded == "/" {
        // `http://host#fragment` parses to an empty path that reads as `/` but, alone, is written as nothing at all.
        return Some(Cow::Borrowed("/"));
    }
    if forwarded.as_str().starts_with('?') {
        // `http://host?query` has no path either, and reads as if it had one only where it is displayed.
        return Some(Cow::Owned(format!("/{}", forwarded.as_str())));
    }
    Some(Cow::Borrowed(forwarded.as_str()))
}

fn trim_trailing_slash(path: &[u8]) -> &[u8] {
    match path {
        [shorter @ .., b'/'] if !shorter.is_empty() => shorter,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(paths: &[&str]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    fn defaults() -> OwnedPaths {
        OwnedPaths::new(
            &strings(&["/api/live/token", "/api/live/agora-token"]),
            &strings(&["/api/live/refresh-token", "/refresh-token"]),
        )
    }

    fn place(owned: &OwnedPaths, target: &str) -> Match {
        let target: Uri = target.parse().unwrap();
        owned.classify(&target, &Readings::of(target.path()))
    }

    fn classify(target: &str) -> Match {
        place(&defaults(), target)
    }

    #[test]
    fn spellings_that_express_routes_are_served() {
        for target in [
            "/api/live/token",
            "/API/Live/ToKeN",
            "/api/live/token/",
            "/api/live/token?x=1",
            "/api/live/token/?",
            "/api/live/token#fragment",
            "/api/live//token",
            "/api//live/token/",
            "/api//live//agora-token",
            "http://example.com/api/live/token",
            "ws+weird://user:pass%40word@example.com:1/api/live/AGORA-token/?a#b",
        ] {
            assert_eq!(
                classify(target),
                Match::Served(OwnedRoute::Token),
                "{target}"
            );
        }
        for target in [
            "/refresh-token",
            "/Refresh-Token/",
            "/api/live//refresh-token?",
        ] {
            assert_eq!(
                classify(target),
                Match::Served(OwnedRoute::Refresh),
                "{target}"
            );
        }
    }

    #[test]
    fn other_spellings_of_an_owned_path_are_guarded() {
        for target in [
            "//api/live/token",
            "/api/live///token",
            "/api/live/token//",
            "/api/live/%74oken",
            "/api/live%2ftoken",
            "/api/live%5Ctoken",
            "/api/live\\token",
            "/api/./live/token",
            "/api/x/../live/token",
            "/../refresh-token",
            "/api/live/token/.",
            "/%52efresh-token",
            "//user@host/refresh-token?à",
            "/api/live//user@host/token?à",
            "/api/live///u@h:80/token?à",
            "/api/live//user%40host/token",
        ] {
            assert_eq!(classify(target), Match::Guarded, "{target}");
        }
    }

    #[test]
    fn unrelated_paths_are_foreign() {
        for target in [
            "/",
            "*",
            "/api/live/tokens",
            "/api/live/token2",
            "/api/live/active",
            "/api/live",
            "/api/live/",
            "/api/live/token-something/x",
            "/api/live/token;x",
            "/api/live/token%20",
            "/api/live/token%00",
            "/api/live/%2574oken",
            "/api/live/user@host/token",
            "/apiliv/token",
            "http://refresh-token/",
            "/%",
            "/%zz/%2",
        ] {
            assert_eq!(classify(target), Match::Foreign, "{target}");
        }
    }

    #[test]
    fn paths_below_an_owned_one_are_told_plain_from_odd() {
        for target in [
            "/api/live/token/x",
            "/api/live/token/join",
            "/API/live/Token/x/y/",
            "/refresh-token/.x?a",
        ] {
            assert_eq!(classify(target), Match::Below { plainly: true }, "{target}");
        }
        for target in [
            "/api/live/token/..",
            "/api/live/token/../active",
            "/api/live/token/x%20y",
            "/api/live//token/x",
            "/api/live/token%2fx",
            "/api/live/token\\x",
            "/api/live/x/../token/y",
            "/refresh-token//x",
        ] {
            assert_eq!(
                classify(target),
                Match::Below { plainly: false },
                "{target}"
            );
        }
    }

    #[test]
    fn configured_paths_may_have_capitals_slashes_and_escapes() {
        let (token, refresh) = (strings(&["/Api/Token/", "/a%62c"]), strings(&["/"]));
        let owned = OwnedPaths::new(&token, &refresh);
        let classify = |target: &str| place(&owned, target);
        assert_eq!(classify("/api/token"), Match::Served(OwnedRoute::Token));
        assert_eq!(classify("/API/TOKEN/"), Match::Served(OwnedRoute::Token));
        assert_eq!(classify("/A%62C"), Match::Served(OwnedRoute::Token));
        assert_eq!(classify("/abc"), Match::Guarded);
        assert_eq!(classify("/"), Match::Served(OwnedRoute::Refresh));
        assert_eq!(classify("//"), Match::Guarded);
        assert_eq!(classify("/x/.."), Match::Guarded);
        // Every path is below an owned `/`, so that none is guarded for this.
        assert_eq!(classify("/x"), Match::Foreign);
        assert_eq!(classify("/x/%20"), Match::Foreign);
        assert_eq!(classify("/a%62c/x"), Match::Below { plainly: false });
    }

    #[test]
    fn forwarded_targets_are_in_origin_form_byte_for_byte() {
        for (target, forwarded) in [
            ("/a?b", "/a?b"),
            ("/a?", "/a?"),
            ("//a//b/../%2F%zz?x=%20#gone", "//a//b/../%2F%zz?x=%20"),
            ("http://host:1/a?b", "/a?b"),
            ("http://host", "/"),
            ("http://host?x", "/?x"),
            ("http://host#x", "/"),
            ("*", "*"),
        ] {
            let target: Uri = target.parse().unwrap();
            let origin = origin_form(&target).unwrap();
            assert_eq!(origin, forwarded, "{target}");
        }
        assert_eq!(origin_form(&"host:80".parse().unwrap()), None);
    }

    proptest::proptest! {
        #[test]
        fn no_target_panics(target in "[/a-z%\\\\@:.?#*]{1,60}") {
            if let Ok(uri) = target.parse::<Uri>() {
                let _ = defaults().classify(&uri, &Readings::of(uri.path()));
            }
        }
    }
}
