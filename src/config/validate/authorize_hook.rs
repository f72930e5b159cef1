//! `[authorize]`, and the paths of the backend that are closed to the outside because renewd asks them.
//!
//! Must not know: what is asked there.

use std::net::IpAddr;
use std::time::Duration;

use super::source_tables::url_of;
use super::{ANY_DURATION, seconds};
use crate::config::model::{
    AccountsConfig, Authorize, OnError, StreamsConfig, Upstream, UpstreamScheme,
};
use crate::config::raw::RawTable;
use crate::http::block::BlockRule;
use crate::http::readings::{Readings, guard_key};
use crate::http::url::Url;

const EXAMPLE: &str = "http://127.0.0.1:3001/internal/authorize";

const TIMEOUT: Duration = Duration::from_millis(500);
const STALE: Duration = seconds(3600);

/// `None` where no hook is named.
pub(super) fn authorize(table: &RawTable<'_>) -> Option<Authorize> {
    let on_error = [
        ("unavailable", OnError::Unavailable),
        ("allow", OnError::Allow),
    ];
    let timeouts = Duration::from_millis(1)..=seconds(60);
    let timeout = table.duration("timeout", timeouts, TIMEOUT);
    let on_error = table.choice("on_error", &on_error, OnError::Unavailable);
    let stale_if_error = table.duration("stale_if_error", ANY_DURATION, STALE);
    let Some(item) = table.item("url") else {
        // Settings of a hook without its URL are a mistake.
        if (timeout, on_error, stale_if_error) != (TIMEOUT, OnError::Unavailable, STALE) {
            table.missing("url", format!("url = \"{EXAMPLE}\""));
        }
        return None;
    };
    Some(Authorize {
        url: url_of(&item, EXAMPLE)?,
        timeout,
        on_error,
        stale_if_error,
    })
}

/// The rules that close the hooks and sources on the backend to clients, which could learn from their answers. If the
/// configuration's own rules name such a path, the operator has decided.
pub(super) fn closed(
    authorize: Option<&Authorize>,
    accounts: &AccountsConfig,
    streams: &StreamsConfig,
    upstream: &Upstream,
    rules: &[BlockRule],
) -> Vec<BlockRule> {
    let hook = authorize.map(|authorize| authorize.url.clone());
    [hook, accounts.source.url(), streams.source.url()]
        .iter()
        .flatten()
        .filter(|url| {
            !rules
                .iter()
                .any(|rule| rule.is_about(&Readings::of(url.path())))
        })
        .filter_map(|url| closing(url, upstream))
        .collect()
}

/// The rule that closes a URL that renewd asks, if it leads to the backend; `None` if it leads elsewhere. A segment
/// with braces in it, as in `{channel}`, stands for any.
fn closing(url: &Url, upstream: &Upstream) -> Option<BlockRule> {
    let leads_there = upstream.servers.iter().any(|server| match server.scheme {
        // renewd asks no URL over a unix socket, but the server behind the socket may also listen on a port.
        UpstreamScheme::Unix(_) => url.is_loopback(),
        UpstreamScheme::Http | UpstreamScheme::Https => {
            server.port == url.port()
                && (server.host.eq_ignore_ascii_case(url.host())
                    || (is_loopback(&server.host) && url.is_loopback()))
        }
    });
    let key = guard_key(url.path());
    let key = String::from_utf8_lossy(&key);
    let segments = key.split('/').map(|segment| match segment {
        segment if segment.contains(['{', '}', '*']) => "{any}",
        segment => segment,
    });
    let path = segments.collect::<Vec<_>>().join("/");
    leads_there.then(|| BlockRule::new(&path, Vec::new(), Vec::new()))
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Affinity, UpstreamServer};

    fn upstream(scheme: UpstreamScheme, host: &str) -> Upstream {
        Upstream {
            servers: vec![UpstreamServer {
                name: String::new(),
                scheme,
                host: host.to_owned(),
                port: 3001,
            }],
            connect_timeout: seconds(2),
            response_timeout: seconds(60),
            idle_timeout: seconds(4),
            try_duration: seconds(0),
            exposed_ok: false,
            max_requests: 0,
            affinity: Affinity::Off,
            health: None,
        }
    }

    fn refused(url: &str, upstream: &Upstream, target: &str) -> bool {
        let rule = closing(&Url::parse(url).unwrap(), upstream);
        rule.is_some_and(|rule| rule.is_about(&Readings::of(target)))
    }

    #[test]
    fn a_hook_on_the_backend_is_closed_in_every_spelling() {
        let backend = upstream(UpstreamScheme::Http, "127.0.0.1");
        for url in [
            "http://127.0.0.1:3001/internal/Authorize?key=x",
            "http://localhost:3001/internal/authorize/",
            "http://127.0.0.1:3001/internal/%61uthorize",
        ] {
            for target in [
                "/internal/authorize",
                "/INTERNAL//authorize/",
                "/internal/%61uthorize",
            ] {
                assert!(refused(url, &backend, target), "{url} {target}");
            }
            assert!(!refused(url, &backend, "/internal/authorized"), "{url}");
        }
    }

    #[test]
    fn a_template_closes_every_channel() {
        let backend = upstream(UpstreamScheme::Http, "backend");
        let url = "http://Backend:3001/internal/x-{channel}/state";
        assert!(refused(url, &backend, "/internal/x-live_1/state"));
        assert!(!refused(url, &backend, "/internal/x-live_1"));
    }

    #[test]
    fn a_hook_elsewhere_closes_nothing() {
        let backend = upstream(UpstreamScheme::Http, "127.0.0.1");
        for url in [
            "http://127.0.0.1:4000/a",
            "http://10.0.0.1:3001/a",
            "https://hooks.example/a",
        ] {
            assert!(!refused(url, &backend, "/a"), "{url}");
        }
        let socket = upstream(UpstreamScheme::Unix("/run/app.sock".into()), "localhost");
        assert!(refused("http://127.0.0.1:4000/a", &socket, "/a"));
    }
}
