//! Paths that are closed to the outside: which requests a rule of `[[routes.block]]` refuses.
//!
//! Keeps true: a rule is never narrower than what Express routes: it refuses what can be read as its path in any way,
//! and under whatever method the backend may take it for.
//! Must not know: configuration files, how the refusal is written.

use std::net::IpAddr;

use http::Method;
use ipnet::IpNet;

use super::pattern::{Breadth, Pattern, covers};
use super::readings::Readings;

/// One rule: these methods of these paths, for all clients except these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRule {
    path: Pattern,
    methods: Vec<Method>,
    allow: Vec<IpNet>,
}

impl BlockRule {
    /// `path` starts with `/` and is written plainly: no escapes, no doubled slashes, no dot segments. A segment
    /// `{name}` stands for one or more (an encoded slash decodes to more), a last segment `*` for everything below,
    /// the path above it included. No `methods` are all of them; clients inside `allow` pass.
    pub fn new(path: &str, methods: Vec<Method>, allow: Vec<IpNet>) -> Self {
        Self {
            path: Pattern::new(path, Breadth::Several),
            methods,
            allow,
        }
    }

    /// Whether a request with these readings is refused. A client without an address (a unix socket's) is inside no
    /// network. `overridden` says whether the backend may take the request for another method than it has; it is asked
    /// only where that matters.
    pub fn refuses(
        &self,
        method: &Method,
        readings: &Readings<'_>,
        client: Option<IpAddr>,
        overridden: impl Fn() -> bool,
    ) -> bool {
        self.is_about(readings)
            && !client.is_some_and(|client| self.allow.iter().any(|net| net.contains(&client)))
            && (covers(&self.methods, method) || overridden())
    }

    /// Whether it says anything about a path with these readings, to whatever methods and clients.
    pub(crate) fn is_about(&self, readings: &Readings<'_>) -> bool {
        readings.iter().any(|reading| self.path.matches(reading))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(rule: &BlockRule, method: &Method, path: &str, client: Option<IpAddr>) -> bool {
        rule.refuses(method, &Readings::of(path), client, || false)
    }

    fn refused(path: &str, target: &str) -> bool {
        let rule = BlockRule::new(path, Vec::new(), Vec::new());
        refuses(&rule, &Method::GET, target, None)
    }

    #[test]
    fn every_spelling_of_a_path_is_refused() {
        for target in [
            "/internal/authorize",
            "/Internal/AUTHORIZE/",
            "/internal//authorize",
            "//internal/authorize",
            "/x/../internal/./authorize",
            "/internal/%61uthorize",
            "/internal%2fauthorize",
            "\\internal\\authorize",
        ] {
            assert!(refused("/Internal/authorize/", target), "{target}");
        }
    }

    #[test]
    fn dot_segments_lead_nowhere_and_somewhere() {
        for (path, target) in [
            ("/internal/*", "/internal/.."),
            ("/internal/*", "/internal/../x"),
            ("/internal/*", "/internal/%2e%2e/z"),
            ("/internal/*", "/internal/..%2f"),
            ("/internal/*", "/internal/x/../../y"),
            ("/internal/*", "/y/..%2finternal"),
            ("/files/*", "/files/../x"),
            ("/files/secret", "/files/a%5c..%2f..%2fsecret"),
            ("/secret", "/a//../secret"),
            ("/admin/*", "/admin/..%2fusers"),
            ("/debug/{what}", "/debug/..%2fx"),
            // One component takes the dot segment for a name, and the next resolves it.
            ("/{user}/a/private/*", "/../a/b/..%2fprivate/f"),
            ("/{user}/a/private/*", "/../a/b/%2e%2e/private/f"),
            ("/{user}/a/private/*", "/../a/./b/../private/f"),
        ] {
            assert!(refused(path, target), "{path} {target}");
        }
    }

    #[test]
    fn other_paths_pass() {
        for target in [
            "/internal",
            "/internal/authorize/x",
            "/internal/authorized",
            "/x/internal/authorize",
            "*",
        ] {
            assert!(!refused("/internal/authorize", target), "{target}");
        }
    }

    #[test]
    fn a_star_is_the_path_and_everything_below() {
        for target in ["/internal", "/internal/", "/INTERNAL/a/b", "/internal//"] {
            assert!(refused("/internal/*", target), "{target}");
        }
        for target in ["/internals", "/", "/x/internal"] {
            assert!(!refused("/internal/*", target), "{target}");
        }
        assert!(refused("/*", "/") && refused("/*", "/any/where"));
        assert!(refused("/", "/") && !refused("/", "/any"));
    }

    #[test]
    fn a_name_in_braces_is_at_least_one_segment() {
        for (path, target) in [
            ("/streams/{channel}", "/streams/live_1"),
            ("/streams/{channel}", "/streams/a%2Fb"),
            ("/streams/{channel}/state", "/streams/a/state/state"),
            ("/{a}/x/{b}/y", "/1/x/2/x/3/y"),
            ("/{a}/*", "/1/2"),
        ] {
            assert!(refused(path, target), "{path} {target}");
        }
        for (path, target) in [
            ("/streams/{channel}", "/streams"),
            ("/streams/{channel}/state", "/streams/state"),
            ("/streams/{channel}/state", "/streams/a/states"),
            ("/{a}/x/{b}/y", "/1/x/y"),
            ("/{a}/*", "/"),
        ] {
            assert!(!refused(path, target), "{path} {target}");
        }
    }

    #[test]
    fn a_path_of_many_segments_costs_no_more_than_its_length() {
        let rule = BlockRule::new("/{a}/x/{b}/x/{c}/x/{d}/y", Vec::new(), Vec::new());
        // Four nested tries over 4000 segments would not end in a lifetime.
        assert!(!refuses(&rule, &Method::GET, &"/x".repeat(4000), None));
    }

    #[test]
    fn methods_are_as_listed_and_get_includes_head() {
        let rule = |methods: &[Method]| BlockRule::new("/a", methods.to_vec(), Vec::new());
        let refuses = |rule: &BlockRule, method| refuses(rule, &method, "/a", None);
        let get = rule(&[Method::GET]);
        assert!(refuses(&get, Method::GET) && refuses(&get, Method::HEAD));
        assert!(!refuses(&get, Method::POST));
        assert!(!refuses(&rule(&[Method::POST]), Method::HEAD));
        assert!(refuses(&rule(&[]), Method::OPTIONS));
        // The backend may take this one for a POST.
        let readings = Readings::of("/a");
        assert!(rule(&[Method::POST]).refuses(&Method::GET, &readings, None, || true));
    }

    #[test]
    fn clients_inside_the_allowed_networks_pass() {
        let allow = ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().unwrap());
        let rule = BlockRule::new("/a", Vec::new(), allow.to_vec());
        let passes = |client: Option<&str>| {
            let client = client.map(|client| client.parse().unwrap());
            !refuses(&rule, &Method::GET, "/a", client)
        };
        assert!(passes(Some("10.1.2.3")) && passes(Some("2001:db8::1")));
        assert!(!passes(Some("192.0.2.1")) && !passes(Some("2a00::1")) && !passes(None));
    }
}
