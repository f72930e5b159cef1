//! What a reload can change at once, and what only a restart can.
//!
//! Keeps true: pure; everything is hot but listeners, the worker count and the state store, and a change of those is
//! named, never silently ignored.
//! Must not know: how a reload is done.

use super::model::Config;

/// What is different between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Tables with values that take effect at once; empty when there are none.
    pub changed: Vec<&'static str>,
    /// Key paths whose new value waits for a restart.
    pub restart_required: Vec<&'static str>,
}

/// Compares what runs with what was read.
pub fn changes(running: &Config, read: &Config) -> Changes {
    let waiting = [
        (
            "server.listen",
            (&running.server.listen, &running.server.plain)
                != (&read.server.listen, &read.server.plain),
        ),
        (
            "server.workers",
            running.server.workers != read.server.workers,
        ),
        ("admin.listen", running.admin.listen != read.admin.listen),
        (
            "state.directory",
            running.state_directory != read.state_directory,
        ),
    ];
    let hot = effective(running, read.clone());
    let tables = [
        ("server", running.server != hot.server),
        ("admin", running.admin != hot.admin),
        ("decision", running.decision != read.decision),
        ("upstream", running.upstream != read.upstream),
        ("agora", running.agora != read.agora),
        ("routes", running.routes != read.routes),
        ("cors", running.cors != read.cors),
        ("token", running.token != read.token),
        ("auth", running.cookie != read.cookie),
        ("auth.jwt", running.jwt != read.jwt),
        ("streams", running.streams != read.streams),
        ("reissue", running.reissue != read.reissue),
        ("authorize", running.authorize != read.authorize),
        ("policy", running.policy != read.policy),
        ("rate_limit", running.rate_limit != read.rate_limit),
        ("sessions", running.sessions != read.sessions),
        ("log", running.log != read.log),
    ];
    let differing = |(name, differs): (&'static str, bool)| differs.then_some(name);
    Changes {
        changed: tables.into_iter().filter_map(differing).collect(),
        restart_required: waiting.into_iter().filter_map(differing).collect(),
    }
}

/// The configuration to run after a reload: what was read, with the running values of what waits for a restart.
#[must_use]
pub fn effective(running: &Config, read: Config) -> Config {
    let mut effective = read;
    effective.server.listen.clone_from(&running.server.listen);
    effective.server.plain.clone_from(&running.server.plain);
    if effective.server.tls == running.server.tls {
        // The same certificate: clients may go on resuming their sessions.
        effective.server.tls.clone_from(&running.server.tls);
    }
    effective.server.workers = running.server.workers;
    effective.admin.listen = running.admin.listen.clone();
    effective
        .state_directory
        .clone_from(&running.state_directory);
    effective
}
