//! Paths with wildcards, as rules of the configuration write them, compared with a target's readings segment by
//! segment.
//!
//! Keeps true: a hostile path costs time in proportion to its length, not more.
//! Must not know: what a rule is for, which readings a target has (`readings`).

use http::Method;

/// Which requests a rule means: these methods of this path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    path: Pattern,
    methods: Vec<Method>,
}

impl Target {
    /// `path` starts with `/` and is written plainly: no escapes, no doubled slashes, no dot segments. A segment
    /// `{name}` stands for one, a last segment `*` for everything below, the path above it included. No `methods` are
    /// all of them.
    pub(crate) fn new(path: &str, methods: Vec<Method>) -> Self {
        Self {
            path: Pattern::new(path, Breadth::One),
            methods,
        }
    }

    /// Whether it means a request that is read so. `overridden` says whether the backend may take the request for
    /// another method than it has; it is asked only where that matters.
    pub(crate) fn means(
        &self,
        reading: &[u8],
        method: &Method,
        overridden: impl Fn() -> bool,
    ) -> bool {
        self.path.matches(reading) && (covers(&self.methods, method) || overridden())
    }

    /// The path alone.
    pub(crate) fn path(&self) -> &Pattern {
        &self.path
    }
}

/// Whether these methods, where none are all, include this one; `GET` includes `HEAD`, which Express answers with the
/// same handler (`Route.prototype._handles_method`).
pub(crate) fn covers(methods: &[Method], method: &Method) -> bool {
    methods.is_empty()
        || methods.contains(method)
        || (*method == Method::HEAD && methods.contains(&Method::GET))
}

/// How much a segment `{name}` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breadth {
    /// One segment.
    One,
    /// One or more.
    Several,
}

/// A path with wildcards, compared with readings segment by segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<PatternSegment>,
    /// Whether more segments may follow.
    below: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternSegment {
    /// In lower case.
    Literal(Box<[u8]>),
    /// Exactly one.
    Any,
    /// One or more.
    Some,
}

impl Pattern {
    /// A path as [`Target::new`] describes it; `named` says what a segment `{name}` stands for.
    pub(crate) fn new(path: &str, named: Breadth) -> Self {
        let path = path.to_ascii_lowercase();
        let path = path.trim_matches('/');
        let (path, below) = match path.strip_suffix('*') {
            Some(above) if above.is_empty() || above.ends_with('/') => {
                (above.trim_end_matches('/'), true)
            }
            _ => (path, false),
        };
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let segment = |text: &str| {
            if text.starts_with('{') && text.ends_with('}') {
                match named {
                    Breadth::One => PatternSegment::Any,
                    Breadth::Several => PatternSegment::Some,
                }
            } else {
                PatternSegment::Literal(text.as_bytes().into())
            }
        };
        Self {
            segments: segments.map(segment).collect(),
            below,
        }
    }

    /// Whether a reading fits.
    ///
    /// Wildcards are tried from left to right, and only the last one reached is ever widened: what an earlier one could
    /// take more, the later one can take as well.
    pub(crate) fn matches(&self, reading: &[u8]) -> bool {
        let Some(path) = reading.strip_prefix(b"/") else {
            return false;
        };
        let mut rest = (!path.is_empty()).then_some(path);
        let mut at = 0;
        let mut widen: Option<(usize, Option<&[u8]>)> = None;
        loop {
            match (self.segments.get(at), rest) {
                (None, None) => return true,
                (None, Some(_)) if self.below => return true,
                (Some(PatternSegment::Literal(expected)), Some(path)) => {
                    let (segment, next) = first_segment(path);
                    if segment.eq_ignore_ascii_case(expected) {
                        (at, rest) = (at + 1, next);
                        continue;
                    }
                }
                (Some(PatternSegment::Any), Some(path)) => {
                    (at, rest) = (at + 1, first_segment(path).1);
                    continue;
                }
                (Some(PatternSegment::Some), Some(path)) => {
                    let (_, next) = first_segment(path);
                    (at, rest) = (at + 1, next);
                    widen = Some((at, next));
                    continue;
                }
                (None, Some(_)) | (Some(_), None) => {}
            }
            let Some((after, Some(path))) = widen else {
                return false;
            };
            let (_, next) = first_segment(path);
            (at, rest) = (after, next);
            widen = Some((after, next));
        }
    }
}

fn first_segment(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = path.splitn(2, |byte| *byte == b'/');
    (parts.next().unwrap_or_default(), parts.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::readings::Readings;

    fn meant(rule: &Target, method: &Method, path: &str, overridden: bool) -> bool {
        let readings = Readings::of(path);
        readings
            .iter()
            .any(|reading| rule.means(reading, method, || overridden))
    }

    fn includes(path: &str, target: &str) -> bool {
        let rule = Target::new(path, vec![Method::GET]);
        meant(&rule, &Method::GET, target, false)
    }

    #[test]
    fn a_name_in_braces_is_one_segment() {
        for (path, target) in [
            ("/api/live/{id}", "/api/live/65f"),
            ("/api/live/{id}", "/API/live/65f/"),
            ("/api/live/{id}", "/api//live/%36%35f"),
            ("/api/live/{id}/join", "/api/live/active/JOIN"),
            ("/api/live/active", "/api/live/activ%65"),
            ("/files/*", "/files/a/b"),
        ] {
            assert!(includes(path, target), "{path} {target}");
        }
        for (path, target) in [
            ("/api/live/{id}", "/api/live"),
            ("/api/live/{id}", "/api/live/65f/join"),
            ("/api/live/{id}/join", "/api/live/join"),
            ("/api/live/{id}/join", "/api/live/a/b/join"),
            ("/api/live/active", "/api/live/actives"),
        ] {
            assert!(!includes(path, target), "{path} {target}");
        }
    }

    #[test]
    fn a_slash_that_does_not_separate_belongs_to_its_segment() {
        for target in [
            "/api/live/12%2Fx",
            "/api/live/12%2f..",
            "/api/live/12%5Cx",
            "/api/live/..",
            "/api/live/.",
            "/api/live/%2e%2E",
        ] {
            assert!(includes("/api/live/{id}", target), "{target}");
        }
        assert!(includes("/api/live/{id}/join", "/api/live/12%2F/join"));
        assert!(includes("/api/live/{id}/join", "/api/live/../join"));
    }

    #[test]
    fn methods_are_as_listed_unless_the_backend_may_take_another() {
        let rule = Target::new("/a", vec![Method::GET]);
        assert!(meant(&rule, &Method::HEAD, "/a", false));
        assert!(!meant(&rule, &Method::POST, "/a", false));
        assert!(meant(&rule, &Method::POST, "/a", true));
        let all = Target::new("/a", Vec::new());
        assert!(meant(&all, &Method::DELETE, "/a", false));
    }
}
