//! `[accounts]` and `[streams]`: where accounts and streams are looked up.
//!
//! Keeps true: a source that is chosen has all the keys it needs; the source isn't contacted to find out.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{ANY_DURATION, seconds};
use crate::config::credentials::{SecretLookup, SecretReader};
use crate::config::diagnostic::quoted;
use crate::config::model::{
    AccountsCollection, AccountsConfig, AccountsSource, ChannelPattern, DenyRule, Jwt,
    StreamsCollection, StreamsConfig, StreamsHttp, StreamsSource,
};
use crate::config::raw::{RawItem, RawTable};
use crate::http::url::Url;

/// Stands for the channel's name in `streams.url`.
const CHANNEL: &str = "{channel}";

const EXAMPLE_OF_STREAMS: &str = "http://127.0.0.1:3001/internal/streams/{channel}";

#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    None,
    File,
    Mongodb,
    Http,
}

pub(super) fn accounts(table: &RawTable<'_>, streams: &RawTable<'_>) -> AccountsConfig {
    let kinds = [
        ("mongodb", SourceKind::Mongodb),
        ("http", SourceKind::Http),
        ("none", SourceKind::None),
    ];
    let written = table.item("source");
    let kind = written.as_ref().and_then(|item| item.choice(&kinds));
    let streams_in_mongodb = streams
        .item("source")
        .is_some_and(|item| item.if_text() == Some("mongodb"));
    if written.is_none() && streams_in_mongodb {
        table.missing(
            "source",
            "streams are in MongoDB: say whether accounts are too (\"mongodb\"), or that every user with a valid JWT is \
             in good standing (\"none\")",
        );
    }
    // All keys are read whichever source is chosen, so that errors in the others are reported too.
    let collection = accounts_collection(table, kind == Some(SourceKind::Mongodb));
    let url = url(table, kind == Some(SourceKind::Http));
    AccountsConfig {
        source: match kind {
            Some(SourceKind::Mongodb) => AccountsSource::Mongodb(collection),
            Some(SourceKind::Http) => url.map_or(AccountsSource::None, AccountsSource::Http),
            _ => AccountsSource::None,
        },
        cache_ttl: cache_ttl(table),
        stale_if_error: table.duration("stale_if_error", ANY_DURATION, seconds(3600)),
    }
}

/// Both sides of a session are named, or neither.
pub(super) fn compare_sessions(table: &RawTable<'_>, accounts: &AccountsConfig, jwt: &Jwt) {
    let AccountsSource::Mongodb(collection) = &accounts.source else {
        return;
    };
    if collection.session_field.is_some()
        && jwt.session_claim.is_empty()
        && let Some(item) = table.item("session_field")
    {
        item.error(
            "no login's session is known to compare it with, so every user would be logged out",
            "name the claim in auth.jwt.session_claim, such as \"sessionId\"",
        );
    }
}

pub(super) fn streams(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> StreamsConfig {
    let kinds = [
        ("file", SourceKind::File),
        ("mongodb", SourceKind::Mongodb),
        ("http", SourceKind::Http),
    ];
    let kind = table.choice("source", &kinds, SourceKind::File);
    if let Some(item) = table.item("file")
        && item.if_text() == Some("")
    {
        item.error("no file is named", "write the path of the streams file");
    }
    if let Some(item) = table.item("file").filter(|_| kind == SourceKind::File) {
        secrets.warn_of_writers(&item);
    }
    let file = secrets.resolve(&table.text("file", "/etc/renewd/streams.toml"));
    let collection = streams_collection(table);
    let http = streams_http(table, secrets, kind == SourceKind::Http);
    StreamsConfig {
        source: match (kind, http) {
            (SourceKind::Mongodb, _) => StreamsSource::Mongodb(collection),
            (SourceKind::Http, Some(http)) => StreamsSource::Http(http),
            (SourceKind::Http | SourceKind::File | SourceKind::None, _) => {
                StreamsSource::File(file)
            }
        },
        channel_pattern: channel_pattern(table),
        cache_ttl: cache_ttl(table),
        stale_if_error: table.duration("stale_if_error", ANY_DURATION, seconds(3600)),
    }
}

fn channel_pattern(table: &RawTable<'_>) -> Option<ChannelPattern> {
    let text = table.text("channel_pattern", "");
    let pattern = ChannelPattern::new(&text);
    if let Some(item) = table.item("channel_pattern")
        && !text.is_empty()
        && pattern.is_none()
    {
        item.error(
            format!("{} fits no channel of Agora's", quoted(&text)),
            "write what the names begin with and a *, such as \"live_*\"",
        );
    }
    pattern
}

/// An answer that is older than this isn't used.
const LONGEST_TTL: Duration = seconds(60);

fn cache_ttl(table: &RawTable<'_>) -> Duration {
    table.duration("cache_ttl", Duration::ZERO..=LONGEST_TTL, seconds(2))
}

fn accounts_collection(table: &RawTable<'_>, wanted: bool) -> AccountsCollection {
    if wanted {
        table.required("collection", "collection = \"users\"");
    }
    AccountsCollection {
        collection: name(table, "collection", ""),
        id_field: name(table, "id_field", "_id"),
        deny_when: table
            .tables("deny_when")
            .iter()
            .filter_map(deny_rule)
            .collect(),
        session_field: optional_name(table, "session_field", ""),
    }
}

fn deny_rule(table: &RawTable<'_>) -> Option<DenyRule> {
    table.required("field", "field = \"isSuspended\"");
    let codes = [("account_suspended", true), ("unauthenticated", false)];
    Some(DenyRule {
        field: name(table, "field", ""),
        equals: match table.item("equals") {
            None => "true".to_owned(),
            Some(item) => item.scalar()?,
        },
        suspends: table.choice("code", &codes, true),
        reason_field: optional_name(table, "reason_field", ""),
    })
}

fn streams_collection(table: &RawTable<'_>) -> StreamsCollection {
    StreamsCollection {
        collection: name(table, "collection", "livestreams"),
        channel_field: name(table, "channel_field", "agoraChannelName"),
        live_field: name(table, "live_field", "isLive"),
        owner_field: name(table, "owner_field", "astrologerId"),
        banned_field: optional_name(table, "banned_field", "isBanned"),
        banned_viewers_field: optional_name(table, "banned_viewers_field", "bannedViewers.userId"),
        cohosts_field: optional_name(table, "cohosts_field", ""),
    }
}

/// A collection's or a field's name: a dotted path that no driver takes for an operator.
fn name(table: &RawTable<'_>, key: &str, default: &str) -> String {
    let text = table.text(key, default);
    if let Some(item) = table.item(key) {
        if text.is_empty() {
            item.error("empty", "write a name");
        } else {
            refuse_operators(&item, &text);
        }
    }
    text
}

/// The same, where `""` asks for nothing.
fn optional_name(table: &RawTable<'_>, key: &str, default: &str) -> Option<String> {
    let text = table.text(key, default);
    if let Some(item) = table.item(key) {
        refuse_operators(&item, &text);
    }
    (!text.is_empty()).then_some(text)
}

fn refuse_operators(item: &RawItem<'_>, text: &str) {
    let broken = |part: &str| part.is_empty() || part.starts_with('$') || part.contains('\0');
    if !text.is_empty() && text.split('.').any(broken) {
        item.error(
            format!("{} names no field", quoted(text)),
            "write a name, or a path such as \"activeSession.sessionId\"",
        );
    }
}

fn url(table: &RawTable<'_>, wanted: bool) -> Option<Url> {
    const EXAMPLE: &str = "http://127.0.0.1:3001/internal/account";
    let Some(item) = table.item("url") else {
        if wanted {
            table.missing("url", format!("url = \"{EXAMPLE}\""));
        }
        return None;
    };
    url_of(&item, EXAMPLE)
}

/// The URL that a value is.
pub(super) fn url_of(item: &RawItem<'_>, example: &str) -> Option<Url> {
    let text = item.text()?;
    match Url::parse(text) {
        Ok(url) => Some(url),
        Err(error) => {
            if text.contains('@') {
                item.hide();
            }
            item.error(
                error.to_string(),
                format!("write a URL such as \"{example}\""),
            );
            None
        }
    }
}

fn streams_http(
    table: &RawTable<'_>,
    secrets: &SecretReader<'_>,
    wanted: bool,
) -> Option<StreamsHttp> {
    let (live_pointer, owner_pointer) = (
        pointer(table, "live_pointer", "/live"),
        pointer(table, "owner_pointer", "/owner"),
    );
    let (banned_pointer, banned_viewers_pointer, cohosts_pointer) = (
        pointer(table, "banned_pointer", ""),
        pointer(table, "banned_viewers_pointer", ""),
        pointer(table, "cohosts_pointer", ""),
    );
    let headers = headers(table, secrets);
    if wanted && table.item("url").is_none() {
        table.missing("url", format!("url = \"{EXAMPLE_OF_STREAMS}\""));
    }
    Some(StreamsHttp {
        url: streams_url(table)?,
        live_pointer: live_pointer.unwrap_or_default(),
        owner_pointer: owner_pointer.unwrap_or_default(),
        banned_pointer,
        banned_viewers_pointer,
        cohosts_pointer,
        headers,
    })
}

/// The text before and after the channel's name.
fn streams_url(table: &RawTable<'_>) -> Option<(String, String)> {
    let item = table.item("url")?;
    let text = item.text()?;
    let hint = format!("write a URL such as \"{EXAMPLE_OF_STREAMS}\"");
    let Some((before, after)) = text.split_once(CHANNEL) else {
        item.error(
            "{channel} is missing, so every channel would be the same",
            hint,
        );
        return None;
    };
    // `{channel}` must stand after the host, or a channel's name could choose the host.
    let within_path = before
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains('/'));
    if !within_path || after.contains(CHANNEL) {
        item.error("{channel} must stand once, in the path or the query", hint);
        return None;
    }
    if let Err(error) = Url::parse(&format!("{before}channel{after}")) {
        if text.contains('@') {
            item.hide();
        }
        item.error(error.to_string(), hint);
        return None;
    }
    Some((before.to_owned(), after.to_owned()))
}

/// A JSON pointer (RFC 6901); `""` is none.
fn pointer(table: &RawTable<'_>, key: &str, default: &str) -> Option<String> {
    let text = table.text(key, default);
    if let Some(item) = table.item(key)
        && !text.is_empty()
        && !text.starts_with('/')
    {
        item.error(
            format!("{} is not a JSON pointer", quoted(&text)),
            "write a path such as \"/data/isLive\" (RFC 6901)",
        );
    }
    (!text.is_empty()).then_some(text)
}

fn headers(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let tables = table.tables("headers");
    let headers = tables.iter().filter_map(|table| header(table, secrets));
    headers.collect()
}

fn header(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = (header_name(table), header_value(table, secrets));
    Some((name?, value?))
}

fn header_name(table: &RawTable<'_>) -> Option<HeaderName> {
    let item = table.required("name", "name = \"x-internal-key\"")?;
    let text = item.text()?;
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        item.error(
            format!("{} is no header field's name", quoted(text)),
            "write a name such as \"x-internal-key\"",
        );
    }
    name
}

fn header_value(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Option<HeaderValue> {
    let (secret, item) = match secrets.read(table, "value") {
        SecretLookup::Secret(secret, item) => (secret, item),
        SecretLookup::Unknown => return None,
        SecretLookup::Absent => {
            table.missing("value", "value = \"env:NAME\", or value_file");
            return None;
        }
    };
    let Ok(mut value) = HeaderValue::from_bytes(secret.expose()) else {
        item.error(
            "no header field can have this value",
            "use visible ASCII characters",
        );
        return None;
    };
    value.set_sensitive(true);
    Some(value)
}
