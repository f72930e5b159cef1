//! `[upstream]`: the backend.
//!
//! Keeps true: requests are never forwarded to ourselves, where that can be seen from the addresses; a URL's password
//! is never shown.

use std::net::IpAddr;

use super::server::covers;
use super::{POSITIVE_DURATION, seconds, unavailable};
use crate::config::model::{Admin, Listen, Server, Upstream, UpstreamServer};
use crate::config::raw::{Item, Table};

const SERVER_HINT: &str = "write http://HOST:PORT, such as \"http://127.0.0.1:3001\"";

pub(super) fn upstream(table: &Table<'_>) -> Upstream {
    Upstream {
        servers: servers(table),
        connect_timeout: table.duration("connect_timeout", POSITIVE_DURATION, seconds(2)),
        response_timeout: table.duration("response_timeout", POSITIVE_DURATION, seconds(60)),
        idle_timeout: table.duration("idle_timeout", POSITIVE_DURATION, seconds(4)),
    }
}

fn servers(table: &Table<'_>) -> Vec<UpstreamServer> {
    let Some(item) = table.item("servers") else {
        table.missing("servers", "servers = [\"http://127.0.0.1:3001\"]");
        return Vec::new();
    };
    let Some(entries) = item.list() else {
        return Vec::new();
    };
    if entries.is_empty() {
        item.error("no server is named", SERVER_HINT);
    }
    if let Some(second) = entries.get(1) {
        unavailable(second, "more than one server", "name one");
    }
    entries.iter().filter_map(server).collect()
}

fn server(item: &Item<'_>) -> Option<UpstreamServer> {
    let text = item.text()?;
    if text.contains('@') {
        item.hide();
    }
    for scheme in ["https://", "unix:"] {
        if text.starts_with(scheme) {
            unavailable(item, &format!("a server with {scheme}"), SERVER_HINT);
            return None;
        }
    }
    let parsed = text
        .starts_with("http://")
        .then(|| text.parse::<http::Uri>().ok())
        .flatten();
    let Some((uri, authority)) = parsed.and_then(|uri| {
        let authority = uri.authority()?.clone();
        Some((uri, authority))
    }) else {
        item.error("not a server's URL", SERVER_HINT);
        return None;
    };
    if text.contains('@') {
        item.error("user and password have no meaning here", SERVER_HINT);
        return None;
    }
    if uri.path() != "/" || uri.query().is_some() {
        item.error(
            "a path has no meaning here: targets are forwarded as they are",
            SERVER_HINT,
        );
        return None;
    }
    // A port that is no port isn't "no port".
    let written_port = authority.as_str().len() > authority.host().len();
    let port = match (authority.port_u16(), written_port) {
        (Some(port), _) if port > 0 => port,
        (None, false) => 80,
        _ => {
            item.error("not a port, 1 to 65535", SERVER_HINT);
            return None;
        }
    };
    let host = authority.host();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = address.unwrap_or(host);
    if host.is_empty() || (address.is_some() && host.parse::<IpAddr>().is_err()) {
        item.error("not a host", SERVER_HINT);
        return None;
    }
    Some(UpstreamServer {
        name: text.to_owned(),
        host: host.to_owned(),
        port,
    })
}

/// A server that is one of our own listeners: an endless loop, or the admin listener made public.
pub(super) fn refuse_loops(table: &Table<'_>, upstream: &Upstream, server: &Server, admin: &Admin) {
    let entries = table.item("servers").and_then(|item| item.list());
    let entries = entries.unwrap_or_default();
    if entries.len() != upstream.servers.len() {
        return;
    }
    for (item, backend) in entries.iter().zip(&upstream.servers) {
        if server.listen.iter().any(|listen| reaches(backend, listen)) {
            item.error(
                "this is our own public listener: requests would go round in circles",
                "give the backend a port of its own, and name that",
            );
        } else if reaches(backend, &admin.listen) {
            item.error("this is the admin listener", "name the backend's port");
        }
    }
}

fn reaches(backend: &UpstreamServer, listen: &Listen) -> bool {
    let Listen::Tcp(bound) = listen else {
        return false;
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
    // Another machine's address is as far as one can tell from here: only what is surely this machine counts.
    let here = address.to_canonical().is_loopback() || address.is_unspecified();
    bound.ip() == address || (here && covers(bound.ip(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(host: &str, listen: &str) -> bool {
        let backend = UpstreamServer {
            name: String::new(),
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
    fn another_port_machine_or_family_is_no_loop() {
        assert!(!reached("127.0.0.1", "[::]:3001"));
        assert!(!reached("10.0.0.1", "[::]:3000"));
        assert!(!reached("::1", "0.0.0.0:3000"));
        assert!(!reached("backend", "[::]:3000"));
    }
}
