//! `[upstream]`: the backend.
//!
//! Keeps true: requests are never forwarded to renewd's own listeners, if the addresses show it; a URL's password is
//! never shown.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::jwt::is_cookie_name;
use super::server::{covers, socket_path};
use super::{ANY_DURATION, POSITIVE_DURATION, seconds};
use crate::config::credentials::SecretReader;
use crate::config::model::{
    Admin, Affinity, HealthCheck, Listen, MOST_SERVERS, Server, Upstream, UpstreamScheme,
    UpstreamServer,
};
use crate::config::raw::{RawItem, RawTable};
use crate::http::forwarded;

const SERVER_HINT: &str =
    "write http://HOST:PORT, https://HOST:PORT or unix:PATH, such as \"http://127.0.0.1:3001\"";
const AFFINITY_HINT: &str = "write \"off\", \"address\" or \"cookie:NAME\"";
const PATH_HINT: &str = "write a path, such as \"/health\"";

/// Checks in shorter intervals add load and no knowledge.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=seconds(3600);

pub(super) fn upstream(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Upstream {
    Upstream {
        servers: servers(table, secrets),
        connect_timeout: table.duration("connect_timeout", POSITIVE_DURATION, seconds(2)),
        response_timeout: table.duration("response_timeout", POSITIVE_DURATION, seconds(60)),
        idle_timeout: table.duration("idle_timeout", POSITIVE_DURATION, seconds(4)),
        try_duration: table.duration("try_duration", ANY_DURATION, seconds(0)),
        exposed_ok: table.boolean("exposed_ok", false),
        max_requests: table.number("max_requests", 0..=u64::from(u32::MAX), 0),
        affinity: affinity(table),
        health: health(&table.table("health")),
    }
}

fn affinity(table: &RawTable<'_>) -> Affinity {
    let Some(item) = table.item("affinity") else {
        return Affinity::Off;
    };
    match item.text() {
        Some("address") => Affinity::Address,
        Some("off") | None => Affinity::Off,
        Some(text) => {
            let name = text.strip_prefix("cookie:");
            if let Some(name) = name.filter(|name| !name.is_empty() && is_cookie_name(name)) {
                return Affinity::Cookie(name.to_owned());
            }
            item.error("no way to keep a client on a server", AFFINITY_HINT);
            Affinity::Off
        }
    }
}

/// Warns if a client's requests alternate between several servers, or if all clients go to one.
pub(super) fn warn_of_affinity(table: &RawTable<'_>, upstream: &Upstream, server: &Server) {
    if upstream.servers.len() < 2 {
        return;
    }
    let Some(item) = table.item("affinity") else {
        if let Some(servers) = table.item("servers") {
            servers.warning(
                "several servers and no `affinity`: a client's requests go to each in turn, and socket.io's polling fails",
                "set affinity = \"address\" or \"cookie:NAME\", or \"off\" where any server can answer any client",
            );
        }
        return;
    };
    let private = server.listen.iter().find(|listen| is_private(listen));
    if let (Affinity::Address, true, Some(listen)) = (
        &upstream.affinity,
        server.trusted_proxies.is_empty(),
        private,
    ) {
        item.warning(
            format!("all clients that a proxy passes on to {listen} have its address, and go to one server"),
            "name the proxy in server.trusted_proxies",
        );
    }
}

/// Whether the listener is reachable only from this machine or its network, so that most likely a proxy is in front.
fn is_private(listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(address) => forwarded::is_private(address.ip().to_canonical()),
        Listen::Unix(_) => true,
        Listen::Systemd(_) => false,
    }
}

fn health(table: &RawTable<'_>) -> Option<HealthCheck> {
    let interval = table.duration("interval", INTERVALS, seconds(5));
    let Some(path) = table.item("path") else {
        if table.is_there() {
            table.missing("path", PATH_HINT);
        }
        return None;
    };
    let text = path.text()?;
    // `Request::get` of the http crate (1.5) would refuse such a path at the first check, or drop its fragment.
    if !text.starts_with('/') || text.contains('#') || text.parse::<http::Uri>().is_err() {
        path.error("not a path", PATH_HINT);
        return None;
    }
    Some(HealthCheck {
        path: text.to_owned(),
        interval,
    })
}

fn servers(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Vec<UpstreamServer> {
    let Some(item) = table.required("servers", "servers = [\"http://127.0.0.1:3001\"]") else {
        return Vec::new();
    };
    let Some(entries) = item.list() else {
        return Vec::new();
    };
    if entries.is_empty() {
        item.error("no server is named", SERVER_HINT);
    }
    if entries.len() > MOST_SERVERS {
        item.error(format!("more than {MOST_SERVERS} servers"), "name fewer");
    }
    let mut servers: Vec<UpstreamServer> = Vec::new();
    for entry in &entries {
        let Some(server) = server(entry, secrets) else {
            continue;
        };
        if servers.iter().any(|other| same(other, &server)) {
            entry.error("this server is named twice", "name it once");
        }
        servers.push(server);
    }
    servers
}

fn same(one: &UpstreamServer, other: &UpstreamServer) -> bool {
    let place = |server: &UpstreamServer| {
        let unix = match &server.scheme {
            UpstreamScheme::Unix(path) => Some(path.clone()),
            UpstreamScheme::Http | UpstreamScheme::Https => None,
        };
        (server.host.to_ascii_lowercase(), server.port, unix)
    };
    place(one) == place(other)
}

fn server(item: &RawItem<'_>, secrets: &SecretReader<'_>) -> Option<UpstreamServer> {
    let text = item.text()?;
    if text.contains('@') {
        item.hide();
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(UpstreamServer {
            name: text.to_owned(),
            scheme: UpstreamScheme::Unix(socket_path(item, path, secrets)?),
            host: "localhost".to_owned(),
            port: 0,
        });
    }
    server_at(text)
        .map_err(|message| item.error(message, SERVER_HINT))
        .ok()
}

/// The server that a URL names, or why there is none.
fn server_at(text: &str) -> Result<UpstreamServer, &'static str> {
    let schemes = [
        ("http://", UpstreamScheme::Http, 80),
        ("https://", UpstreamScheme::Https, 443),
    ];
    let scheme = schemes
        .into_iter()
        .find(|(prefix, ..)| text.starts_with(prefix));
    let parsed = scheme.and_then(|(_, scheme, port)| {
        let uri: http::Uri = text.parse().ok()?;
        let authority = uri.authority()?.clone();
        Some((scheme, port, uri, authority))
    });
    let Some((scheme, default_port, uri, authority)) = parsed else {
        return Err("not a server's URL");
    };
    if text.contains('@') {
        return Err("user and password have no meaning here");
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err("a path has no meaning here: targets are forwarded as they are");
    }
    let port = port(&authority, default_port).ok_or("not a port, 1 to 65535")?;
    let host = authority.host();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = address.unwrap_or(host);
    if host.is_empty() || (address.is_some() && host.parse::<IpAddr>().is_err()) {
        return Err("not a host");
    }
    Ok(UpstreamServer {
        name: text.to_owned(),
        scheme,
        host: host.to_owned(),
        port,
    })
}

/// The port of a server's URL; `None` where what is written is no port.
fn port(authority: &http::uri::Authority, default: u16) -> Option<u16> {
    // An invalid port isn't the same as no port.
    let written = authority.as_str().len() > authority.host().len();
    match (authority.port_u16(), written) {
        (Some(port), _) if port > 0 => Some(port),
        (None, false) => Some(default),
        _ => None,
    }
}

/// Refuses a server that is one of renewd's own listeners: an endless loop, or the admin listener made public.
pub(super) fn refuse_loops(
    table: &RawTable<'_>,
    upstream: &Upstream,
    server: &Server,
    admin: &Admin,
) {
    let entries = table.list("servers");
    if entries.len() != upstream.servers.len() {
        return;
    }
    for (item, backend) in entries.iter().zip(&upstream.servers) {
        if server.listen.iter().any(|listen| reaches(backend, listen)) {
            item.error(
                "this is renewd's own public listener: requests would be forwarded to renewd without end",
                "give the backend a port of its own, and name that",
            );
        } else if reaches(backend, &admin.listen) {
            item.error("this is the admin listener", "name the backend's port");
        }
    }
}

fn reaches(backend: &UpstreamServer, listen: &Listen) -> bool {
    let bound = match (&backend.scheme, listen) {
        (UpstreamScheme::Unix(path), Listen::Unix(bound)) => return path == bound,
        (UpstreamScheme::Http | UpstreamScheme::Https, Listen::Tcp(bound)) => bound,
        _ => return false,
    };
    if bound.port() != backend.port {
        return false;
    }
    if backend.host.eq_ignore_ascii_case("localhost") {
        return bound.ip().is_unspecified() || bound.ip().to_canonical().is_loopback();
    }
    let Ok(address) = backend.host.parse::<IpAddr>() else {
        return false;
    };
    // An address may be another machine's: only those that are surely this machine's count.
    let here = address.to_canonical().is_loopback() || address.is_unspecified();
    bound.ip() == address || (here && covers(bound.ip(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(host: &str, listen: &str) -> bool {
        let backend = UpstreamServer {
            name: String::new(),
            scheme: UpstreamScheme::Http,
            host: host.to_owned(),
            port: 3000,
        };
        reaches(&backend, &Listen::Tcp(listen.parse().unwrap()))
    }

    #[test]
    fn a_loop_is_seen_through_every_name_of_this_machine() {
        for host in ["127.0.0.1", "127.0.0.9", "::1", "localhost", "LocalHost"] {
            assert!(reached(host, "[::]:3000"), "{host}");
        }
        assert!(reached("10.0.0.1", "10.0.0.1:3000"));
    }

    #[test]
    fn a_socket_of_our_own_is_a_loop() {
        let backend = UpstreamServer {
            name: String::new(),
            scheme: UpstreamScheme::Unix("/run/renewd/public.sock".into()),
            host: "localhost".to_owned(),
            port: 0,
        };
        let bound = |path: &str| Listen::Unix(path.into());
        assert!(reaches(&backend, &bound("/run/renewd/public.sock")));
        assert!(!reaches(&backend, &bound("/run/backend.sock")));
        assert!(!reaches(&backend, &Listen::Tcp(([127, 0, 0, 1], 0).into())));
    }

    #[test]
    fn another_port_machine_or_family_is_no_loop() {
        assert!(!reached("127.0.0.1", "[::]:3001"));
        assert!(!reached("10.0.0.1", "[::]:3000"));
        assert!(!reached("::1", "0.0.0.0:3000"));
        assert!(!reached("backend", "[::]:3000"));
    }
}
