//! Is this request target one of ours? Served, guarded or foreign, and what a foreign one looks like when forwarded.
//!
//! Keeps true: whatever Express 4 or 5 would route to the handler of an owned path is never [`Match::Foreign`]
//! (`tests/spellings.rs` holds it against both). A foreign target without odd characters costs no allocation.
//! Must not know: methods, headers, configuration.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

/// Which list of the configuration an owned path is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `routes.token`.
    Token,
    /// `routes.refresh`.
    Refresh,
}

/// Whose a request target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// A spelling that Express routes: answer it.
    Served(Route),
    /// Not a served spelling, but the key of an owned path: 404, never forwarded.
    Guarded,
    /// Somebody else's: forward it.
    Foreign,
}

/// The owned paths, prepared for one comparison a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPaths(Vec<Owned>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    /// As configured, but in lower case and without doubled or trailing slashes; empty for `/`.
    spelling: Box<[u8]>,
    /// [`guard_key`] of the configured path.
    key: Box<[u8]>,
    route: Route,
}

impl OwnedPaths {
    /// Prepares the paths of `routes.token` and `routes.refresh`, each as configured: any letter case, with or without a
    /// trailing slash. A path on both lists counts as a token route.
    pub fn new(token: &[String], refresh: &[String]) -> Self {
        let token = token.iter().map(|path| Owned::new(path, Route::Token));
        let refresh = refresh.iter().map(|path| Owned::new(path, Route::Refresh));
        Self(token.chain(refresh).collect())
    }

    /// Says whose `target` is. Absolute-form targets count by their path alone, whatever scheme, host and userinfo.
    pub fn classify(&self, target: &Uri) -> Match {
        let path = target.path();
        if let Some(owned) = self.0.iter().find(|owned| owned.is_spelled(path)) {
            return Match::Served(owned.route);
        }
        if self.is_guarded(path) {
            Match::Guarded
        } else {
            Match::Foreign
        }
    }

    fn is_guarded(&self, path: &str) -> bool {
        if Spelling::of(path) < Spelling::Odd {
            // Lower-casing and trimming one trailing slash is all that its key takes.
            let trimmed = trim_trailing_slash(path.as_bytes());
            return self
                .0
                .iter()
                .any(|owned| trimmed.eq_ignore_ascii_case(&owned.key));
        }
        self.has_key(&build_key(path, Authorities::Kept))
            || self.has_key(&build_key(path, Authorities::Dropped))
    }

    fn has_key(&self, key: &[u8]) -> bool {
        self.0.iter().any(|owned| *owned.key == *key)
    }
}

impl Owned {
    fn new(path: &str, route: Route) -> Self {
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

    /// What Express routes here: any letter case, one trailing slash, and a doubled slash where a router may be mounted.
    /// Where routers are mounted is the backend's secret, so every boundary inside the path may be doubled; the
    /// leading slash is no boundary, and three slashes match nowhere.
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

/// The key under which paths are compared where being missed would be dangerous: cut at `?` or `#`, `\` as `/`,
/// percent-decoded once, lower-cased (ASCII), dot segments resolved (RFC 3986 section 5.2.4), slashes collapsed, trailing slash
/// trimmed. Bytes, because decoding may leave UTF-8; `/` for the root; what doesn't start with a slash stays as it is.
pub fn guard_key(path: &str) -> Cow<'_, [u8]> {
    key_of(path, Spelling::of(path))
}

/// Whether `found` holds for a key under which the backend may see this path: its [`guard_key`], or the one that is left
/// where a parser takes `//user@host` in it for an authority.
pub fn any_key(path: &str, found: impl Fn(&[u8]) -> bool) -> bool {
    let spelling = Spelling::of(path);
    found(&key_of(path, spelling))
        || (spelling == Spelling::Odd && found(&build_key(path, Authorities::Dropped)))
}

/// The target as it is forwarded: path and query byte for byte, scheme, authority and fragment gone; `*` stays `*`.
/// `None` for the authority form, which only `CONNECT` may use.
///
/// An absolute form without a path is forwarded as `/`, for `OPTIONS` too: once parsed it can't be told from one with `/`.
pub fn origin_form(target: &Uri) -> Option<PathAndQuery> {
    let forwarded = target.path_and_query()?;
    if forwarded == "/" {
        // `http://host#fragment` parses to an empty path that reads as `/` but, alone, is written as nothing at all.
        return Some(PathAndQuery::from_static("/"));
    }
    if forwarded.as_str().starts_with('?') {
        // `http://host?query` has no path either, and reads as if it had one only where it is displayed.
        return PathAndQuery::try_from(format!("/{}", forwarded.as_str())).ok();
    }
    Some(forwarded.clone())
}

/// What becomes of `//user@host` inside a path. Express hands a target that contains a no-break space (byte 0xA0, part of
/// the UTF-8 of `à`; anywhere, the query included) to Node's `url.parse`, and that takes `//user@host` at the start, or
/// right after a mount, for an authority and routes by what follows: `//a@b/refresh-token?à` is `/refresh-token`. Node 20
/// refuses such bytes outright; older parsers are looser, and the guard costs nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Authorities {
    Kept,
    Dropped,
}

/// What [`guard_key`] has to do to a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Spelling {
    /// Trim one trailing slash.
    Key,
    /// And cut and lower-case it.
    Plain,
    /// All it can do.
    Odd,
}

impl Spelling {
    /// In one pass, for every request asks.
    fn of(path: &str) -> Self {
        let mut spelling = Self::Key;
        let mut after_slash = false;
        for byte in path.bytes() {
            let needs = match byte {
                b'%' | b'\\' => Self::Odd,
                b'/' | b'.' if after_slash => Self::Odd,
                b'A'..=b'Z' | b'?' | b'#' => Self::Plain,
                _ => Self::Key,
            };
            spelling = spelling.max(needs);
            after_slash = byte == b'/';
        }
        spelling
    }
}

fn key_of(path: &str, spelling: Spelling) -> Cow<'_, [u8]> {
    match spelling {
        Spelling::Key => Cow::Borrowed(trim_trailing_slash(path.as_bytes())),
        Spelling::Plain | Spelling::Odd => Cow::Owned(build_key(path, Authorities::Kept)),
    }
}

fn trim_trailing_slash(path: &[u8]) -> &[u8] {
    match path {
        [shorter @ .., b'/'] if !shorter.is_empty() => shorter,
        _ => path,
    }
}

fn build_key(path: &str, authorities: Authorities) -> Vec<u8> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let decoded = decode_once(path.as_bytes().get(..end).unwrap_or_default());
    let Some(relative) = decoded.strip_prefix(b"/") else {
        return decoded;
    };

    let mut segments: Vec<&[u8]> = Vec::new();
    let mut after_doubled_slash = false;
    for segment in relative.split(|byte| *byte == b'/') {
        let dropped =
            authorities == Authorities::Dropped && after_doubled_slash && segment.contains(&b'@');
        after_doubled_slash = segment.is_empty();
        match segment {
            _ if dropped => {}
            b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }

    let mut key = Vec::with_capacity(decoded.len());
    for segment in segments.into_iter().filter(|segment| !segment.is_empty()) {
        key.push(b'/');
        key.extend_from_slice(segment);
    }
    if key.is_empty() {
        key.push(b'/');
    }
    key
}

/// Percent-decodes once, lower-cases and turns `\` into `/`, whether it was escaped or not. Broken escapes stay literal.
fn decode_once(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, beyond) = match (first, tail) {
            (b'%', [high, low, beyond @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high * 16 + low, beyond),
                _ => (b'%', tail),
            },
            _ => (*first, tail),
        };
        decoded.push(match byte {
            b'\\' => b'/',
            _ => byte.to_ascii_lowercase(),
        });
        rest = beyond;
    }
    decoded
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
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

    fn classify(target: &str) -> Match {
        defaults().classify(&target.parse().unwrap())
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
            assert_eq!(classify(target), Match::Served(Route::Token), "{target}");
        }
        for target in [
            "/refresh-token",
            "/Refresh-Token/",
            "/api/live//refresh-token?",
        ] {
            assert_eq!(classify(target), Match::Served(Route::Refresh), "{target}");
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
            "/api/live/token/x",
            "/api/live/token;x",
            "/api/live/token%20",
            "/api/live/token%00",
            "/api/live/%2574oken",
            "/api/live/token/..",
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
    fn configured_paths_may_have_capitals_slashes_and_escapes() {
        let owned = OwnedPaths::new(&strings(&["/Api/Token/", "/a%62c"]), &strings(&["/"]));
        let classify = |target: &str| owned.classify(&target.parse().unwrap());
        assert_eq!(classify("/api/token"), Match::Served(Route::Token));
        assert_eq!(classify("/API/TOKEN/"), Match::Served(Route::Token));
        assert_eq!(classify("/A%62C"), Match::Served(Route::Token));
        assert_eq!(classify("/abc"), Match::Guarded);
        assert_eq!(classify("/"), Match::Served(Route::Refresh));
        assert_eq!(classify("//"), Match::Guarded);
        assert_eq!(classify("/x/.."), Match::Guarded);
    }

    #[test]
    fn guard_keys_are_normal_forms() {
        for (path, key) in [
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("/", "/"),
            ("//", "/"),
            ("", ""),
            ("*", "*"),
            ("/A?x", "/a"),
            ("/a#x", "/a"),
            ("\\a\\..\\b", "/b"),
            ("/a//b", "/a/b"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.hidden", "/a/.hidden"),
            ("/a/...", "/a/..."),
            ("/%41%", "/a%"),
        ] {
            assert_eq!(guard_key(path), key.as_bytes(), "{path}");
        }
        assert!(matches!(guard_key("/a/b/"), Cow::Borrowed(_)));
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
            let origin = origin_form(&target.parse().unwrap()).unwrap();
            assert_eq!(origin.as_str(), forwarded, "{target}");
        }
        assert_eq!(origin_form(&"host:80".parse().unwrap()), None);
    }

    proptest::proptest! {
        #[test]
        fn a_key_is_a_path_without_empty_segments(path in "/[a-zA-Z0-9/.%\\\\@?#é]{0,40}") {
            let key = guard_key(&path).into_owned();
            proptest::prop_assert!(key.starts_with(b"/"));
            proptest::prop_assert!(!key.windows(2).any(|pair| pair == b"//"));
            proptest::prop_assert!(key.len() == 1 || !key.ends_with(b"/"));
        }

        #[test]
        fn no_target_panics(target in "[/a-z%\\\\@:.?#*]{1,60}") {
            if let Ok(uri) = target.parse::<Uri>() {
                let _ = defaults().classify(&uri);
            }
        }
    }
}
