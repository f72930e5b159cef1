//! `[redis]`: the URL of the store that replicas share.
//!
//! Keeps true: no part of the URL is ever shown, since it holds a password, and one that isn't encoded may stand
//! anywhere in it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, parse_redis_url};

use super::seconds;
use crate::config::credentials::{SecretLookup, SecretReader};
use crate::config::model::{Redis, UpstreamScheme, UpstreamServer};
use crate::config::raw::{RawItem, RawTable};
use crate::config::secret::Secret;

/// Every token request may wait this long.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=seconds(10);

const LONGEST_PREFIX: usize = 64;

const URL_HINT: &str = "write redis://HOST:6379, redis://:PASSWORD@HOST:6379 or redis://USER:PASSWORD@HOST:6379/DATABASE, \
                        with rediss:// for TLS, or unix:/PATH";

const ENCODE: &str = "percent-encode what stands for itself in a user name or password, as encodeURIComponent does: `/` is %2F, \
                      `#` is %23, `?` is %3F, `%` is %25";

/// The fault of a URL, and the way to correct it.
type UrlProblem = (&'static str, &'static str);

pub(super) fn redis(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Option<Redis> {
    let timeout = table.duration("timeout", TIMEOUTS, Duration::from_millis(50));
    let prefix = table.text("prefix", "renewd:");
    if let Some(item) = table.item("prefix") {
        check_prefix(&item, &prefix);
    }
    let (secret, item) = match secrets.read(table, "url") {
        SecretLookup::Secret(secret, item) => (secret, item),
        SecretLookup::Unknown => return None,
        SecretLookup::Absent => {
            if let Some(item) = table.item("timeout").or(table.item("prefix")) {
                item.warning(
                    "without `url` nothing is shared",
                    "url = \"credential:redis_url\", \"env:REDIS_URL\", or url_file",
                );
            }
            return None;
        }
    };
    item.hide();
    let text = std::str::from_utf8(secret.expose()).unwrap_or_default();
    match server(text.trim()) {
        Err((message, hint)) => {
            item.error(message, hint);
            None
        }
        Ok((server, info)) => {
            let settings = info.redis_settings();
            let password = settings.password();
            Some(Redis {
                server,
                user: settings.username().map(str::to_owned),
                password: password.map(|password| Secret::new(password.as_bytes().to_vec())),
                database: settings.db(),
                prefix,
                timeout,
            })
        }
    }
}

fn check_prefix(item: &RawItem<'_>, prefix: &str) {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
    if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(fits) {
        item.error(
            "not a prefix of keys",
            "write 1 to 64 letters, digits and signs without blanks and braces, such as \"renewd:\"; replicas with \
             the same prefix share their limits",
        );
    }
}

/// The server, and the rest of what the URL says.
fn server(text: &str) -> Result<(UpstreamServer, ConnectionInfo), UrlProblem> {
    if let Some(path) = text.strip_prefix("unix:").filter(|_| !text.contains("://")) {
        return unix(&format!("unix://{path}"));
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or(("not a Redis URL", URL_HINT))?;
    match scheme {
        "redis" | "valkey" => network(rest, UpstreamScheme::Http),
        "rediss" | "valkeys" => network(rest, UpstreamScheme::Https),
        "unix" | "redis+unix" | "valkey+unix" => unix(&format!("unix://{rest}")),
        _ => Err(("not a Redis URL", URL_HINT)),
    }
}

/// A server on the network. TLS is renewd's own, so that redis 1.8 (`url_to_tcp_connection_info`) reads the rest as if
/// there were none.
fn network(
    rest: &str,
    scheme: UpstreamScheme,
) -> Result<(UpstreamServer, ConnectionInfo), UrlProblem> {
    if rest.ends_with("#insecure") {
        return Err((
            "it asks for certificates that are not verified",
            "leave #insecure out; the authority of a private certificate is added to the system's, or named by \
             SSL_CERT_FILE",
        ));
    }
    if rest.contains('#') {
        return Err(("it holds a `#` that isn't encoded", ENCODE));
    }
    let url = parse_redis_url(&format!("redis://{rest}"))
        .ok_or(("not a Redis URL: its host or port can't be one", ENCODE))?;
    if url.host_str().is_some_and(|host| host.contains(',')) {
        return Err((
            "it names several servers",
            "name one: the server itself, or the address that always leads to the primary",
        ));
    }
    if url.query().is_some() {
        return Err(("it has options, or a `?` that isn't encoded", ENCODE));
    }
    if !url.username().is_empty() && url.password().is_none() {
        return Err((
            "it names a user without a password",
            "a password alone stands behind a colon: redis://:PASSWORD@HOST:6379",
        ));
    }
    let database = url.path().trim_matches('/');
    if !database.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err((
            "what stands behind the host is no number of a database",
            ENCODE,
        ));
    }
    let info = url
        .into_connection_info()
        .map_err(|_said| ("not a Redis URL", URL_HINT))?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(("not a Redis URL", URL_HINT));
    };
    let server = UpstreamServer {
        name: format!("{host}:{port}"),
        scheme,
        host: host.clone(),
        port: *port,
    };
    if server.port == 0 {
        return Err(("its port is 0", URL_HINT));
    }
    Ok((server, info))
}

/// A server on a unix socket; user, password and database stand behind the path, as redis 1.8 reads them
/// (`url_to_unix_connection_info`).
fn unix(text: &str) -> Result<(UpstreamServer, ConnectionInfo), UrlProblem> {
    const UNIX: UrlProblem = (
        "not the path of a unix socket",
        "write unix:/run/redis/redis.sock, with ?user=NAME&pass=PASSWORD&db=0 where they are needed",
    );
    let info = text.into_connection_info().map_err(|_said| UNIX)?;
    let ConnectionAddr::Unix(path) = info.addr() else {
        return Err(UNIX);
    };
    let path: PathBuf = path.clone();
    if !path.is_absolute() || path.ends_with("/") {
        return Err(UNIX);
    }
    let server = UpstreamServer {
        name: format!("unix:{}", path.display()),
        scheme: UpstreamScheme::Unix(path),
        host: "localhost".to_owned(),
        port: 0,
    };
    Ok((server, info))
}
