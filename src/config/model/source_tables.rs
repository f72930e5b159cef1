//! `[mongodb]`, `[accounts]` and `[streams]` after validation: where accounts and streams are looked up.
//!
//! Must not know: how a source is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{ChannelPattern, Secret};
use crate::http::url::Url;

/// How long a source over HTTP may take; for MongoDB there is `mongodb.timeout`.
pub(crate) const HTTP_PATIENCE: Duration = Duration::from_secs(2);

/// `[mongodb]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mongodb {
    /// A connection string that the driver takes; credentials may be in it.
    pub uri: Secret,
    /// Never empty: mongoose's `test` where nothing else is named.
    pub database: String,
    /// How long one query may take, including the choice of a server and the connect: 2 s.
    pub timeout: Duration,
}

/// `[accounts]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountsConfig {
    /// The source that is asked.
    pub source: AccountsSource,
    /// How long an answer is good for: 2 s.
    pub cache_ttl: Duration,
    /// How long holders may refresh while the source gives no answer: 1 h.
    pub stale_if_error: Duration,
}

/// `accounts.source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountsSource {
    /// Every user with a valid JWT is in good standing.
    None,
    /// `"mongodb"`.
    Mongodb(AccountsCollection),
    /// `"http"`: the URL gets the caller's credentials.
    Http(Url),
}

impl AccountsSource {
    /// The value of `accounts.source`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mongodb(_) => "mongodb",
            Self::Http(_) => "http",
        }
    }

    /// The backend's URL that is asked, which clients must not reach.
    pub(crate) fn url(&self) -> Option<Url> {
        match self {
            Self::Http(url) => Some(url.clone()),
            Self::None | Self::Mongodb(_) => None,
        }
    }
}

/// A collection of accounts. Fields are dotted paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountsCollection {
    /// `astrologers`.
    pub collection: String,
    /// The field that holds the JWT's subject: `_id`.
    pub id_field: String,
    /// Any that matches denies.
    pub deny_when: Vec<DenyRule>,
    /// The field that the JWT's session must equal; `None` checks no session.
    pub session_field: Option<String>,
}

/// One of `accounts.deny_when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyRule {
    /// Which field.
    pub field: String,
    /// The value that denies: text, an identifier, a whole number, or `true` or `false` as mongoose casts them.
    pub equals: String,
    /// Whether it is `account_suspended` (403), else `unauthenticated` (401).
    pub suspends: bool,
    /// Where the document says why.
    pub reason_field: Option<String>,
}

/// `[streams]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsConfig {
    /// The source that is asked.
    pub source: StreamsSource,
    /// Channels that are streams even if the source doesn't know them; none by default.
    pub channel_pattern: Option<ChannelPattern>,
    /// How long an answer is good for: 2 s. A file's are always current.
    pub cache_ttl: Duration,
    /// How long holders may refresh while the source gives no answer: 1 h.
    pub stale_if_error: Duration,
}

impl StreamsConfig {
    /// The streams file, where that is the source.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.source {
            StreamsSource::File(path) => Some(path),
            StreamsSource::Mongodb(_) | StreamsSource::Http(_) => None,
        }
    }
}

/// `streams.source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamsSource {
    /// `"file"`: TOML with `[[stream]]` entries.
    File(PathBuf),
    /// `"mongodb"`.
    Mongodb(StreamsCollection),
    /// `"http"`.
    Http(StreamsHttp),
}

impl StreamsSource {
    /// The value of `streams.source`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Mongodb(_) => "mongodb",
            Self::Http(_) => "http",
        }
    }

    /// The backend's URL that is asked, which clients must not reach, with `{channel}` where a channel's name stands.
    pub(crate) fn url(&self) -> Option<Url> {
        match self {
            Self::Http(StreamsHttp { url, .. }) => {
                Url::parse(&format!("{}{{channel}}{}", url.0, url.1)).ok()
            }
            Self::File(_) | Self::Mongodb(_) => None,
        }
    }
}

/// A collection of streams. Fields are dotted paths; a path goes through arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsCollection {
    /// `livestreams`.
    pub collection: String,
    /// `agoraChannelName`.
    pub channel_field: String,
    /// `isLive`.
    pub live_field: String,
    /// `astrologerId`: an `ObjectId` or a string.
    pub owner_field: String,
    /// `isBanned`.
    pub banned_field: Option<String>,
    /// `bannedViewers.userId`.
    pub banned_viewers_field: Option<String>,
    /// Further subjects who may publish; off by default.
    pub cohosts_field: Option<String>,
}

/// A URL that tells of one stream in JSON. Pointers are RFC 6901's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsHttp {
    /// The text before and after `{channel}`, which is one path segment or part of the query.
    pub url: (String, String),
    /// `/live`.
    pub live_pointer: String,
    /// `/owner`.
    pub owner_pointer: String,
    /// Off by default.
    pub banned_pointer: Option<String>,
    /// Off by default.
    pub banned_viewers_pointer: Option<String>,
    /// Off by default.
    pub cohosts_pointer: Option<String>,
    /// Sent with each request; values are secrets (`HeaderValue::is_sensitive`).
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
