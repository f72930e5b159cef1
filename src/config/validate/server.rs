//! `[server]` and `[admin]`: listeners and their limits.
//!
//! Keeps true: no two listeners can take the same connection; the admin listener is never a public one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::{ANY_DURATION, POSITIVE_DURATION, Strictness, seconds};
use crate::config::credentials::{SecretReader, could_be_a_variable, warn_of_pasting};
use crate::config::diagnostic::quoted;
use crate::config::model::{Admin, Listen, Routes, Server, ServerLimits, Timeouts};
use crate::config::raw::{RawItem, RawTable};

const LISTEN_HINT: &str = "write \"[::]:3000\" (all addresses), \"127.0.0.1:3000\", \"unix:/path\", \"systemd:NAME\" or \"env:PORT\"; plain: before it keeps TLS off";
const ADMIN_HINT: &str =
    "write an address with a port, such as \"127.0.0.1:9464\", or \"unix:/path\"";

/// 96 bits, written in base64, can't be guessed over a network.
const SHORTEST_TOKEN: usize = 16;

pub(super) fn server(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Server {
    let timeouts = table.table("timeouts");
    let timeout = |name, default| timeouts.duration(name, POSITIVE_DURATION, seconds(default));
    let limits = table.table("limits");
    let workers: usize = table.number("workers", 0..=1024, 0);
    let (plain, listen) = listen(table, secrets).into_iter().unzip();
    let trusted_proxies = networks(table, "trusted_proxies");
    let proxy_protocol = proxy_protocol(table, &trusted_proxies);
    Server {
        listen,
        plain,
        workers: if workers == 0 {
            secrets.environment.cores().max(1)
        } else {
            workers
        },
        trusted_proxies,
        max_connections: table.number("max_connections", 1..=10_000_000, 20_000),
        drain_timeout: table.duration("drain_timeout", ANY_DURATION, seconds(30)),
        shutdown_delay: table.duration("shutdown_delay", ANY_DURATION, seconds(0)),
        tunnel_drain_timeout: table.duration("tunnel_drain_timeout", ANY_DURATION, seconds(2)),
        health_path: health_path(table),
        h2c: table.boolean("h2c", false),
        proxy_protocol,
        tls: super::tls::tls(&table.table("tls"), secrets),
        timeouts: Timeouts {
            header: timeout("header", 10),
            idle: timeout("idle", 75),
            body_stall: timeout("body_stall", 30),
            write_stall: timeout("write_stall", 60),
            tunnel_idle: timeout("tunnel_idle", 3600),
            tls_handshake: timeout("tls_handshake", 10),
        },
        limits: ServerLimits {
            header_bytes: limits.size("header_bytes", 1024..=1 << 20, 16 << 10),
            // `http::HeaderMap` holds 32 768.
            header_fields: limits.number("header_fields", 1..=32_768, 100),
            // `http::Uri` holds 65 534.
            target_bytes: limits.size("target_bytes", 64..=65_534, 8 << 10),
        },
    }
}

/// Nobody could connect if no proxy were trusted.
fn proxy_protocol(table: &RawTable<'_>, trusted: &[IpNet]) -> bool {
    let Some(item) = table.item("proxy_protocol") else {
        return false;
    };
    let asked = item.boolean().unwrap_or(false);
    // A list whose entries were all refused has been reported already.
    if asked && trusted.is_empty() && table.list("trusted_proxies").is_empty() {
        item.error(
            "every connection would be refused: server.trusted_proxies is empty",
            "write the addresses of the load balancers that send the PROXY header into trusted_proxies",
        );
    }
    asked
}

/// Each listener, and whether it is `plain:`.
fn listen(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Vec<(bool, Listen)> {
    let Some(item) = table.item("listen") else {
        let default = Listen::Tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 3000)));
        return vec![(false, default)];
    };
    let Some(entries) = item.list() else {
        return Vec::new();
    };
    if entries.is_empty() {
        item.error("no listener is named", LISTEN_HINT);
    }
    let parsed = entries.iter();
    parsed
        .filter_map(|entry| public_listener(entry, secrets))
        .collect()
}

fn public_listener(item: &RawItem<'_>, secrets: &SecretReader<'_>) -> Option<(bool, Listen)> {
    let text = item.text()?;
    let (plain, text) = match text.strip_prefix("plain:") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    listener(item, text, secrets).map(|listen| (plain, listen))
}

fn listener(item: &RawItem<'_>, text: &str, secrets: &SecretReader<'_>) -> Option<Listen> {
    if let Some(name) = text.strip_prefix("systemd:") {
        // systemd.socket(5): FileDescriptorName= takes no control characters or colons.
        if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
            item.error(
                "not a socket's name",
                "write systemd:NAME as in the socket unit's FileDescriptorName=NAME",
            );
            return None;
        }
        return Some(Listen::Systemd(name.to_owned()));
    }
    if let Some(variable) = text.strip_prefix("env:") {
        return port_from(item, variable, secrets);
    }
    address_or_path(item, text, LISTEN_HINT, secrets)
}

fn port_from(item: &RawItem<'_>, variable: &str, secrets: &SecretReader<'_>) -> Option<Listen> {
    if !could_be_a_variable(variable) {
        item.error(
            "no environment variable is named",
            "write env:PORT, or the name of another variable with a port number",
        );
        return None;
    }
    let Some(value) = secrets.environment.variable(variable) else {
        let what = format!("the environment variable {} isn't set", quoted(variable));
        match secrets.strictness {
            Strictness::Run => item.error(what, "set it to a port number"),
            Strictness::Check => item.note(format!("not checked: {what}")),
        }
        return None;
    };
    let Ok(port) = value.trim().parse() else {
        item.error(
            format!("the environment variable {variable} holds no port"),
            "set it to a number, 0 to 65535",
        );
        return None;
    };
    Some(Listen::Tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))
}

fn address_or_path(
    item: &RawItem<'_>,
    text: &str,
    hint: &str,
    secrets: &SecretReader<'_>,
) -> Option<Listen> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(item, path, secrets).map(Listen::Unix);
    }
    let address = text.parse().ok();
    if address.is_none() {
        item.error(format!("{} is not a listener", quoted(text)), hint);
    }
    address.map(Listen::Tcp)
}

/// The path that follows `unix:`, here and in `upstream.servers`.
pub(super) fn socket_path(
    item: &RawItem<'_>,
    path: &str,
    secrets: &SecretReader<'_>,
) -> Option<PathBuf> {
    let path = secrets.resolve(path);
    // unix(7): sun_path holds 108 bytes with the final NUL.
    if path.file_name().is_none() || path.as_os_str().len() > 107 {
        item.error(
            "not a socket's path",
            "write unix: and a path, at most 107 bytes",
        );
        return None;
    }
    Some(path)
}

/// A list of addresses and CIDR blocks.
pub(super) fn networks(table: &RawTable<'_>, name: &str) -> Vec<IpNet> {
    let entries = table.list(name);
    let parse = |item: &RawItem<'_>| {
        let text = item.text()?;
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        if network.is_err() {
            item.error(
                format!("{} is not a network", quoted(text)),
                "write an address or a CIDR block, such as \"10.0.0.0/8\"",
            );
        }
        network.ok().map(|network| network.trunc())
    };
    entries.iter().filter_map(parse).collect()
}

fn health_path(table: &RawTable<'_>) -> Option<String> {
    let item = table.item("health_path")?;
    let text = item.text()?;
    if text.is_empty() {
        return None;
    }
    let path = super::routes::path(&item, text);
    path.then(|| text.to_owned())
}

pub(super) fn admin(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Admin {
    let default = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 9464)));
    let token_item = table.secret("token_file");
    let token = token_item.as_ref().and_then(|item| {
        secrets.warn_of_readers(item);
        secrets.warn_of_writers(item);
        let token = secrets.named_file(item)?;
        warn_of_pasting(&token, item);
        let length = token.expose().trim_ascii().len();
        if length < SHORTEST_TOKEN && secrets.strictness == Strictness::Check {
            item.warning(
                format!("the token in it has {length} characters: it can be guessed"),
                "make one with `openssl rand -base64 32`",
            );
        }
        Some(token)
    });
    let allowed_hosts = allowed_hosts(table);
    let Some(item) = table.item("listen") else {
        return Admin {
            listen: default,
            token,
            allowed_hosts,
        };
    };
    let listen = item
        .text()
        .and_then(|text| address_or_path(&item, text, ADMIN_HINT, secrets));
    if let Some(Listen::Tcp(address)) = &listen
        && !address.ip().to_canonical().is_loopback()
        && token_item.is_none()
    {
        item.warning(
            "reachable from other machines, without a token file",
            "listen on 127.0.0.1, or set admin.token_file",
        );
    }
    Admin {
        listen: listen.unwrap_or(default),
        token,
        allowed_hosts,
    }
}

/// Names as they stand in a `Host` field.
fn allowed_hosts(table: &RawTable<'_>) -> Vec<String> {
    let entries = table.list("allowed_hosts");
    let name = |item: &RawItem<'_>| {
        let text = item.text()?;
        let name = text.strip_suffix('.').unwrap_or(text);
        let in_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(in_label);
        if !name.split('.').all(is_label) {
            item.error(
                format!("{} is not a host's name", quoted(text)),
                "write a name as the caller's URL has it, without scheme, port or wildcard: \"renewd.monitoring.svc\"",
            );
            return None;
        }
        Some(name.to_ascii_lowercase())
    };
    entries.iter().filter_map(name).collect()
}

/// Refuses two listeners that could take the same connection, and an admin listener on a public one.
pub(super) fn refuse_overlaps(root: &RawTable<'_>, server: &Server, admin: &Admin) {
    let entries = root.table("server").item("listen");
    let elements = entries.and_then(|item| item.list()).unwrap_or_default();
    // The positions agree only if every entry was valid.
    if elements.len() == server.listen.len() {
        for (index, (item, later)) in elements.iter().zip(&server.listen).enumerate() {
            let mut earlier = server.listen.iter().take(index);
            if earlier.any(|listen| overlap(listen, later)) {
                item.error("taken by an earlier listener", "give each its own port");
            }
        }
    }
    if let Some(public) = server
        .listen
        .iter()
        .find(|listen| overlap(listen, &admin.listen))
    {
        let message = format!("the same as the public listener {public}");
        let hint = "give it a port or path of its own";
        if let Some(item) = root.table("admin").item("listen") {
            item.error(message, hint);
            return;
        }
        let taking = elements.iter().zip(&server.listen);
        for (item, _) in taking.filter(|(_, listen)| overlap(listen, &admin.listen)) {
            item.error("127.0.0.1:9464 is the admin listener's", hint);
        }
    }
}

fn overlap(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Tcp(one), Listen::Tcp(other)) => {
            // Port 0 is a free port, a different one each time.
            one.port() != 0
                && one.port() == other.port()
                && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
        }
        (one, other) => one == other,
    }
}

/// Whether a socket bound to `bound` takes connections to `address`; `[::]` is dual-stack.
pub(super) fn covers(bound: IpAddr, address: IpAddr) -> bool {
    let (bound, address) = (bound.to_canonical(), address.to_canonical());
    match bound {
        IpAddr::V6(any) if any.is_unspecified() => true,
        IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
        _ => bound == address,
    }
}

pub(super) fn refuse_owned_health_path(table: &RawTable<'_>, server: &Server, routes: &Routes) {
    let Some(path) = &server.health_path else {
        return;
    };
    let key = super::routes::route_key(path);
    let mut owned = routes.token.iter().chain(&routes.refresh);
    if owned.any(|route| super::routes::route_key(route) == key)
        && let Some(item) = table.item("health_path")
    {
        item.error("this is a token route", "choose a path of its own");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &str) -> Listen {
        Listen::Unix(path.into())
    }

    fn tcp(text: &str) -> Listen {
        Listen::Tcp(text.parse().unwrap())
    }

    #[test]
    fn listeners_overlap_when_both_could_take_a_connection() {
        assert!(overlap(&tcp("[::]:1"), &tcp("127.0.0.1:1")));
        assert!(overlap(&tcp("10.0.0.1:1"), &tcp("0.0.0.0:1")));
        assert!(overlap(&unix("/a"), &unix("/a")));
        assert!(!overlap(&tcp("[::]:1"), &tcp("[::]:2")));
        assert!(!overlap(&tcp("0.0.0.0:1"), &tcp("[::1]:1")));
        assert!(!overlap(&tcp("127.0.0.1:0"), &tcp("127.0.0.1:0")));
        assert!(!overlap(&unix("/a"), &unix("/b")));
    }
}
