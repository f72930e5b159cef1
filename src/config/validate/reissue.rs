//! `[reissue]`: in which answers tokens are looked for.
//!
//! Keeps true: a rule's path is written as a request would spell it, so that it can match.

use std::time::Duration;

use super::routes::{method, pattern, route_key};
use super::{Strictness, tokens};
use crate::config::diagnostic::quoted;
use crate::config::model::{
    PublisherForOthers, Reissue, ReissueMode, ReissueRule, Routes, SocketLoginPlace, SocketRule,
    UnknownChannel, Withheld,
};
use crate::config::raw::{RawItem, RawTable};
use crate::http::pattern::{Breadth, Pattern, Target};

pub(super) fn reissue(table: &RawTable<'_>, routes: &Routes) -> Reissue {
    let modes = [
        ("replace", ReissueMode::Replace),
        ("observe", ReissueMode::Observe),
        ("off", ReissueMode::Off),
    ];
    let rules = table.tables("rule");
    let sockets = table.tables("socket");
    Reissue {
        mode: table.choice("mode", &modes, ReissueMode::Replace),
        rules: rules
            .iter()
            .filter_map(|table| rule(table, routes))
            .collect(),
        sockets: sockets.iter().filter_map(socket).collect(),
    }
}

/// Warns of sockets whose streams are told from calls by the source alone: a stream that hasn't begun is unknown to it.
pub(super) fn warn_of_unnamed_streams(
    streams: &RawTable<'_>,
    reissue: &Reissue,
    strictness: Strictness,
) {
    let mut sockets = reissue.sockets.iter();
    let shortens = sockets.any(|socket| socket.unknown_channel == UnknownChannel::Shorten);
    if strictness == Strictness::Check && shortens && streams.item("channel_pattern").is_none() {
        streams.unset(
            "channel_pattern",
            "unset: over a [[reissue.socket]] everybody gets a publisher's token for a stream that has no entry yet",
            "write what the names of streams begin with, such as \"live_*\", or \"\" if this is intended",
        );
    }
}

fn publisher_for_others(table: &RawTable<'_>) -> PublisherForOthers {
    let others = [
        ("withhold", PublisherForOthers::Withhold),
        ("subscriber", PublisherForOthers::Subscriber),
    ];
    table.choice(
        "publisher_for_others",
        &others,
        PublisherForOthers::Withhold,
    )
}

fn socket(table: &RawTable<'_>) -> Option<SocketRule> {
    let path = table.required("path", "path = \"/socket.io/*\"");
    let require_auth = table.boolean("require_auth", false);
    let login = match table.item("login").and_then(|item| item.list()) {
        None => vec![SocketLoginPlace::Handshake, SocketLoginPlace::SocketIo],
        Some(places) => places.iter().filter_map(login_place).collect(),
    };
    let unknown = [
        ("shorten", UnknownChannel::Shorten),
        ("withhold", UnknownChannel::Withhold),
    ];
    let unknown_channel = table.choice("unknown_channel", &unknown, UnknownChannel::Shorten);
    let publisher_for_others = publisher_for_others(table);
    let binary = table.boolean("binary", false);
    let route = template(&path?)?.to_owned();
    Some(SocketRule {
        target: Target::new(&route, Vec::new()),
        route: format!("socket {route}"),
        require_auth,
        login,
        unknown_channel,
        publisher_for_others,
        binary,
    })
}

fn login_place(item: &RawItem<'_>) -> Option<SocketLoginPlace> {
    let text = item.text()?;
    match (text, text.strip_prefix("query:")) {
        ("handshake", _) => Some(SocketLoginPlace::Handshake),
        ("socket.io", _) => Some(SocketLoginPlace::SocketIo),
        (_, Some(name)) if !name.is_empty() => Some(SocketLoginPlace::Query(name.to_owned())),
        _ => {
            item.error(
                format!("{} is no place where a socket's login is found", quoted(text)),
                "write \"handshake\" (its Authorization header or cookie), \"socket.io\" (auth.token of a CONNECT) or \
                 \"query:NAME\" (a parameter of the handshake's URL)",
            );
            None
        }
    }
}

fn rule(table: &RawTable<'_>, routes: &Routes) -> Option<ReissueRule> {
    let path = table.required("path", "path = \"/api/live/active\"");
    let methods = table.list("methods");
    let methods = methods.iter().filter_map(method).collect();
    let require_auth = table.boolean("require_auth", false);
    let trust_publisher = table.boolean("trust_publisher", false);
    let publisher_for_others = publisher_for_others(table);
    let withheld = [("null", Withheld::Null), ("empty", Withheld::Empty)];
    let withheld = table.choice("withheld", &withheld, Withheld::Null);
    let except = table.list("except");
    let except = except
        .iter()
        .filter_map(|item| Some((item, template(item)?)));
    let except: Vec<(&RawItem<'_>, &str)> = except.collect();
    let lifetime = lifetime(table);
    let path = path?;
    let route = template(&path)?;
    let target = Target::new(route, methods);
    for (item, path) in &except {
        warn_of_useless(item, path, &target);
    }
    let except = except
        .iter()
        .map(|(_, path)| Pattern::new(path, Breadth::One));
    let key = route_key(route);
    let mut owned = routes.token.iter().chain(&routes.refresh);
    if owned.any(|owned| route_key(owned) == key) {
        path.warning(
            format!("{} is answered by renewd itself", quoted(route)),
            "list paths that the backend answers; POST is never forwarded there while enforcing",
        );
    }
    Some(ReissueRule {
        route: route.to_owned(),
        target,
        except: except.collect(),
        lifetime,
        require_auth,
        trust_publisher,
        publisher_for_others,
        withheld,
    })
}

/// A path with wildcards.
fn template<'r>(item: &RawItem<'r>) -> Option<&'r str> {
    let text = item.text()?;
    if !pattern(item, text) {
        return None;
    }
    if text.contains("/:") {
        item.error(
            "a parameter is written in braces here",
            "write {id} where Express has :id",
        );
        return None;
    }
    Some(text)
}

fn warn_of_useless(item: &RawItem<'_>, path: &str, target: &Target) {
    let has_wildcards = path.contains(['{', '*']);
    if !has_wildcards && !target.path().matches(path.trim_end_matches('/').as_bytes()) {
        item.warning(
            "the rule doesn't mean this path anyway",
            "write whole paths, such as \"/api/live/streams\" for a rule about \"/api/live/{id}\"",
        );
    }
}

fn lifetime(table: &RawTable<'_>) -> Option<Duration> {
    let lifetime = tokens::lifetime(table)?;
    if let Some(item) = table.item("lifetime") {
        tokens::warn_if_long(&item, lifetime);
    }
    Some(lifetime)
}
