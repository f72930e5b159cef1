//! `[agora]`, `[routes]` and `[token]`: what is minted, where it is asked for, how long it lives.
//!
//! Keeps true: an owned path is written as a request would spell it, so that it can match; half the lifetime is always
//! left before `refreshAt`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::seconds;
use crate::config::credentials::{Found, Secrets};
use crate::config::model::{Agora, DefaultRole, Routes, Token, TokenFormat, ZeroUid};
use crate::config::raw::{Item, Table, in_one_unit};
use crate::config::secret::Secret;

const HEXADECIMAL_HINT: &str = "copy the 32 hexadecimal digits from Agora's console";

pub(super) fn agora(table: &Table<'_>, secrets: &Secrets<'_>) -> Agora {
    if table.item("app_id").is_none() {
        table.missing("app_id", HEXADECIMAL_HINT);
    }
    if let Some(item) = table.item("app_id")
        && let Some(text) = item.text()
    {
        if !is_hexadecimal(text.as_bytes()) {
            item.error("not an app id", HEXADECIMAL_HINT);
        } else if text.bytes().all(|digit| digit == b'0') {
            item.warning("this is the example's app id", HEXADECIMAL_HINT);
        }
    }
    let app_certificate = match secrets.read(table, "app_certificate") {
        Found::Absent => {
            table.missing(
                "app_certificate",
                "app_certificate = \"credential:agora_certificate\", \"env:NAME\", or app_certificate_file",
            );
            None
        }
        Found::Unknown => None,
        Found::Secret(secret, item) => {
            if !is_hexadecimal(secret.expose()) {
                item.error("not a certificate", HEXADECIMAL_HINT);
            }
            Some(secret)
        }
    };
    Agora {
        app_id: table.text("app_id", ""),
        app_certificate: app_certificate.unwrap_or_else(|| Secret::new(Vec::new())),
    }
}

fn is_hexadecimal(bytes: &[u8]) -> bool {
    bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit)
}

pub(super) fn routes(table: &Table<'_>) -> Routes {
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
    }
}

fn paths(table: &Table<'_>, name: &str, default: &[&str], seen: &mut Vec<String>) -> Vec<String> {
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
pub(super) fn path(item: &Item<'_>, text: &str) -> bool {
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

pub(super) fn token(table: &Table<'_>) -> Token {
    const LIFETIMES: RangeInclusive<Duration> = seconds(60)..=seconds(24 * 3600);
    const WARNED_ABOVE: Duration = seconds(2 * 3600);
    let lifetime = whole_seconds(table, "lifetime", LIFETIMES).unwrap_or(seconds(3600));
    if let Some(item) = table.item("lifetime")
        && lifetime > WARNED_ABOVE
    {
        item.warning(
            "a token can't be recalled: whoever has one may use it this long",
            "2h or less",
        );
    }
    let half = seconds(lifetime.as_secs() / 2);
    let any = Duration::ZERO..=*LIFETIMES.end();
    let refresh_before = whole_seconds(table, "refresh_before", any);
    if let Some(item) = table.item("refresh_before")
        && refresh_before.is_some_and(|before| before > half)
    {
        let half = in_one_unit(half);
        item.error(
            "more than half the lifetime",
            format!("write at most \"{half}\""),
        );
    }
    let formats = [("007", TokenFormat::V007), ("006", TokenFormat::V006)];
    let roles = [
        ("auto", DefaultRole::Auto),
        ("publisher", DefaultRole::Publisher),
        ("subscriber", DefaultRole::Subscriber),
    ];
    let zero_uids = [("reject", ZeroUid::Reject), ("allow", ZeroUid::Allow)];
    Token {
        lifetime,
        // Left out with a short lifetime it is the half, not an error about a line that isn't there.
        refresh_before: refresh_before.unwrap_or(seconds(600).min(half)),
        format: table.choice("format", &formats, TokenFormat::V007),
        default_role: table.choice("default_role", &roles, DefaultRole::Auto),
        zero_uid: table.choice("zero_uid", &zero_uids, ZeroUid::Reject),
    }
}

fn whole_seconds(
    table: &Table<'_>,
    name: &str,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    let item = table.item(name)?;
    let duration = item.duration(range)?;
    if duration.subsec_nanos() != 0 {
        item.error("tokens count whole seconds", "leave the fraction out");
        return None;
    }
    Some(duration)
}
