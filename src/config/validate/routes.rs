//! `[routes]` and `[cors]`: which paths renewd owns, which are closed, and which origins may read renewd's answers.
//!
//! Keeps true: a path is written as a request would spell it, so that it can match; credentials are never allowed to
//! every origin.

use http::Method;
use http::header::{HeaderName, HeaderValue};

use super::Strictness;
use super::server::networks;
use crate::config::diagnostic::quoted;
use crate::config::model::{BelowOwned, Routes};
use crate::config::raw::{RawItem, RawTable};
use crate::http::block::BlockRule;
use crate::http::cors::{CorsPolicy, OriginPattern, Origins};
use crate::http::method_override::MethodOverride;

pub(super) fn routes(table: &RawTable<'_>) -> Routes {
    let mut seen = Vec::new();
    Routes {
        token: paths(
            table,
            "token",
            &["/api/live/token", "/api/live/agora-token"],
            &mut seen,
        ),
        refresh: paths(
            table,
            "refresh",
            &["/api/live/refresh-token", "/refresh-token"],
            &mut seen,
        ),
        below: table.choice(
            "below",
            &[
                ("refuse", BelowOwned::Refuse),
                ("forward", BelowOwned::Forward),
            ],
            BelowOwned::Refuse,
        ),
        method_override: method_override(table),
        block: table.tables("block").iter().filter_map(rule).collect(),
    }
}

fn method_override(table: &RawTable<'_>) -> MethodOverride {
    let Some(item) = table.item("method_override") else {
        return MethodOverride {
            header: true,
            queries: Vec::new(),
        };
    };
    let mut places = MethodOverride {
        header: false,
        queries: Vec::new(),
    };
    for entry in item.list().unwrap_or_default() {
        let Some(text) = entry.text() else { continue };
        match text.strip_prefix("query:") {
            Some(name) if !name.is_empty() => places.queries.push(name.into()),
            None if text == "header" => places.header = true,
            _ => entry.error(
                format!("{} is no place for a method", quoted(text)),
                "write \"header\", or \"query:_method\" with the parameter's own name",
            ),
        }
    }
    places
}

fn rule(table: &RawTable<'_>) -> Option<BlockRule> {
    let path = table.required("path", "path = \"/internal/*\"");
    let methods = table.list("methods");
    let methods = methods.iter().filter_map(method).collect();
    let allow = networks(table, "allow");
    let path = path?;
    let text = path.text()?;
    pattern(&path, text).then(|| BlockRule::new(text, methods, allow))
}

/// A method in upper case, as Node's parser wants it: one in another case would never match.
pub(super) fn method(item: &RawItem<'_>) -> Option<Method> {
    let text = item.text()?;
    let is_method = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let method = is_method
        .then(|| Method::from_bytes(text.as_bytes()).ok())
        .flatten();
    if method.is_none() {
        item.error(
            format!("{} is not a method", quoted(text)),
            "write \"GET\", \"POST\" and so on; leave `methods` out for all",
        );
    }
    method
}

/// Whether a path with wildcards can match; reports why not.
pub(super) fn pattern(item: &RawItem<'_>, text: &str) -> bool {
    const HINT: &str = "write \"/internal/authorize\", \"/internal/{any}/state\" or, with everything below, \"/internal/*\"";
    if !path(item, text) {
        return false;
    }
    let fixed = text.strip_suffix("/*").unwrap_or(text);
    let is_name = |segment: &str| {
        let name = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        name.is_some_and(|name| !name.is_empty() && !name.contains(['{', '}']))
    };
    let message = if fixed.contains('*') {
        "a * stands alone, at the end"
    } else if fixed
        .split('/')
        .any(|segment| segment.contains(['{', '}']) && !is_name(segment))
    {
        "a name in braces stands for whole segments"
    } else {
        return true;
    };
    item.error(message, HINT);
    false
}

fn paths(
    table: &RawTable<'_>,
    name: &str,
    default: &[&str],
    seen: &mut Vec<String>,
) -> Vec<String> {
    let Some(item) = table.item(name) else {
        seen.extend(default.iter().map(|path| route_key(path)));
        return default.iter().map(|path| (*path).to_owned()).collect();
    };
    let mut paths = Vec::new();
    for entry in item.list().unwrap_or_default() {
        let Some(text) = entry.text() else { continue };
        if !path(&entry, text) {
            continue;
        }
        let key = route_key(text);
        if seen.contains(&key) {
            entry.error(
                "the same path is listed already, in routes.token or routes.refresh",
                "letter case and a trailing slash make no difference; list it once",
            );
        }
        seen.push(key);
        paths.push(text.to_owned());
    }
    paths
}

/// Whether a request can spell this path; reports why not.
pub(super) fn path(item: &RawItem<'_>, text: &str) -> bool {
    const HINT: &str = "write it as Express has it, such as \"/api/live/token\"";
    let message = if !text.starts_with('/') {
        "a path starts with /"
    } else if text.contains(['?', '#']) {
        "a path has no ? or #"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['%', '\\']) {
        "only visible ASCII without % and \\ can match"
    } else if text.contains("//") || text.split('/').any(|part| part == "." || part == "..") {
        "doubled slashes and dot segments never match"
    } else {
        return true;
    };
    item.error(message, HINT);
    false
}

/// Paths with equal keys can't both be routes.
pub(super) fn route_key(path: &str) -> String {
    path.trim_end_matches('/').to_ascii_lowercase()
}

/// `cookie` tells whether a cookie may carry a login (`auth.cookie`).
pub(super) fn cors(
    table: &RawTable<'_>,
    strictness: Strictness,
    cookie: bool,
) -> Option<CorsPolicy> {
    let origins = origins(table, cookie);
    let credentials = table.boolean("allow_credentials", false);
    if origins == Some(Origins::Any)
        && credentials
        && let Some(item) = table.item("allow_credentials")
    {
        item.error(
            "with \"*\" every site could act for its visitors",
            "name the origins, or leave credentials out",
        );
    }
    let expose = expose(table);
    // Only `check` warns: an app without browser clients shouldn't be warned at every start.
    if strictness == Strictness::Check && table.item("allowed_origins").is_none() {
        table.unset(
            "allowed_origins",
            "unset: browsers on other origins can't read renewd's answers, though preflights say that they may",
            "list the origins that the backend's cors() allows, or write [] if no browser calls the token routes",
        );
    }
    Some(CorsPolicy {
        origins: origins?,
        credentials,
        expose,
    })
}

/// `None` allows no origin, and so says nothing.
fn origins(table: &RawTable<'_>, cookie: bool) -> Option<Origins> {
    let entries = table.item("allowed_origins")?.list()?;
    let mut patterns = Vec::new();
    let mut any = false;
    for entry in &entries {
        let Some(text) = entry.text() else { continue };
        if text == "*" {
            any = true;
            continue;
        }
        match OriginPattern::parse(text) {
            Ok(pattern) => {
                if text.contains("YOUR-PROJECT") {
                    entry.warning(
                        "this is the example's origin",
                        "put your project's name in place of YOUR-PROJECT, or leave the origin out",
                    );
                }
                if let Some(suffix) = pattern.shared_suffix().filter(|_| cookie) {
                    entry.error(
                        format!(
                            "any user of that hosting can have a page below {suffix}, and with auth.cookie that page would act as its visitor"
                        ),
                        "name the origins one by one, or leave auth.cookie out",
                    );
                }
                patterns.push(pattern);
            }
            Err(reason) => entry.error(
                reason,
                "write scheme://host, such as \"https://app.example.com\", \"https://*.example.com\" or \"http://localhost:*\"",
            ),
        }
    }
    if any {
        return Some(Origins::Any);
    }
    (!patterns.is_empty()).then_some(Origins::Listed(patterns))
}

/// The names as written, joined with commas, as npm's `cors` does.
fn expose(table: &RawTable<'_>) -> Option<HeaderValue> {
    let entries = table.item("expose_headers")?.list()?;
    let names = entries.iter().filter_map(header_name);
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return None;
    }
    HeaderValue::from_str(&names.join(",")).ok()
}

fn header_name<'r>(item: &RawItem<'r>) -> Option<&'r str> {
    let text = item.text()?;
    let is_name = HeaderName::from_bytes(text.as_bytes()).is_ok();
    if !is_name {
        item.error(
            format!("{} is not a header's name", quoted(text)),
            "write one such as \"x-request-id\"",
        );
    }
    is_name.then_some(text)
}
