//! Whether the backend may take a request for another method than it has.
//!
//! Must not know: which rules that matters to.

use http::{Method, Uri};

use super::hop::has_method_override;
use super::request_fields::RequestFields;

/// Where the backend reads another method from: `routes.method_override`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodOverride {
    /// In the headers that the method-override package's documentation lists.
    pub header: bool,
    /// In query parameters of these names.
    pub queries: Vec<Box<str>>,
}

impl MethodOverride {
    /// Whether a request with this target and these headers may become one of another method.
    pub(crate) fn applies(&self, target: &Uri, fields: RequestFields<'_>) -> bool {
        (self.header && has_method_override(fields)) || self.is_in_query(target)
    }

    /// Whether a request that is an `OPTIONS` stays one without its headers: those can be taken away, a query can't.
    pub(crate) fn leaves_preflight(&self, method: &Method, target: &Uri) -> bool {
        *method == Method::OPTIONS && !self.is_in_query(target)
    }

    fn is_in_query(&self, target: &Uri) -> bool {
        if self.queries.is_empty() {
            return false;
        }
        let query = target.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes()).any(|(key, _)| {
            // Express 4's query parser, qs 6.11 (`lib/parse.js`, `parseKeys`), takes `_method[]`, `_method[0]` and
            // `[_method]` for `_method` too.
            let mut parts = key.split(['[', ']']).filter(|part| !part.is_empty());
            let name = parts.next().unwrap_or_default();
            self.queries.iter().any(|query| **query == *name)
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn applies(queries: &[&str], target: &'static str) -> bool {
        let place = MethodOverride {
            header: true,
            queries: queries.iter().map(|query| (*query).into()).collect(),
        };
        place.applies(&Uri::from_static(target), (&HeaderMap::new()).into())
    }

    #[test]
    fn a_query_counts_where_it_is_named() {
        for target in [
            "/a?_method=GET",
            "/a?x&_method",
            "/a?%5Fmethod=GET",
            "/a?_method[]=GET",
            "/a?[_method]=GET",
            "/a?%5B_method%5D=GET",
            "/a?%5B_method%5D[0]=GET",
        ] {
            assert!(applies(&["_method"], target), "{target}");
            assert!(!applies(&[], target), "{target}");
            assert!(!applies(&["method"], target), "{target}");
        }
        for target in ["/a", "/a?_methods=GET", "/a?x=_method", "/_method=GET"] {
            assert!(!applies(&["_method"], target), "{target}");
        }
    }

    #[test]
    fn headers_count_unless_the_backend_reads_none() {
        let mut headers = HeaderMap::new();
        headers.insert("x-http-method-override", HeaderValue::from_static("GET"));
        let place = |header| MethodOverride {
            header,
            queries: Vec::new(),
        };
        let target = Uri::from_static("/a");
        assert!(place(true).applies(&target, (&headers).into()));
        assert!(!place(false).applies(&target, (&headers).into()));
    }
}
