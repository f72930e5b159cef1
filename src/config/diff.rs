//! Compares two configurations: what a reload changes at once, and what only a restart changes.
//!
//! Keeps true: pure; everything is hot but listeners, the worker count and the state store, and a change of those is
//! named, never silently ignored; every table of the configuration is compared, its secrets with it.
//! Must not know: how a reload is done.

use super::model::Config;

/// The differences between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Tables with values that take effect at once; empty when there are none.
    pub changed: Vec<&'static str>,
    /// Key paths whose new value takes effect after a restart.
    pub restart_required: Vec<&'static str>,
}

/// Compares the running configuration with the one that was read.
pub fn changes(running: &Config, read: &Config) -> ConfigChanges {
    let hot = effective(running, read.clone());
    // There is no `..`, so that a table that isn't compared doesn't compile.
    let Config {
        server,
        admin,
        decision,
        upstream,
        agora,
        routes,
        cors,
        token,
        cookie,
        jwt,
        mongodb,
        accounts,
        streams,
        reissue,
        authorize,
        policy,
        rate_limit,
        revocation,
        sessions,
        log,
        // These two are compared in `waiting`.
        redis: _,
        state_directory: _,
    } = running;
    let tables = [
        ("server", *server != hot.server),
        ("admin", *admin != hot.admin),
        ("decision", *decision != hot.decision),
        ("upstream", *upstream != hot.upstream),
        ("agora", *agora != hot.agora),
        ("routes", *routes != hot.routes),
        ("cors", *cors != hot.cors),
        ("token", *token != hot.token),
        ("auth", *cookie != hot.cookie),
        ("auth.jwt", *jwt != hot.jwt),
        ("mongodb", *mongodb != hot.mongodb),
        ("accounts", *accounts != hot.accounts),
        ("streams", *streams != hot.streams),
        ("reissue", *reissue != hot.reissue),
        ("authorize", *authorize != hot.authorize),
        ("policy", *policy != hot.policy),
        ("rate_limit", *rate_limit != hot.rate_limit),
        ("revocation", *revocation != hot.revocation),
        ("sessions", *sessions != hot.sessions),
        ("log", *log != hot.log),
    ];
    ConfigChanges {
        changed: differing(tables),
        restart_required: waiting(running, read),
    }
}

/// The key paths whose new value takes effect after a restart.
fn waiting(running: &Config, read: &Config) -> Vec<&'static str> {
    differing([
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
        ("redis", running.redis != read.redis),
        (
            "state.directory",
            running.state_directory != read.state_directory,
        ),
    ])
}

fn differing<const N: usize>(names: [(&'static str, bool); N]) -> Vec<&'static str> {
    let names = names.into_iter().filter(|(_, differs)| *differs);
    names.map(|(name, _)| name).collect()
}

/// The configuration to run after a reload: the one that was read, with the running values of the keys that need a
/// restart.
#[must_use]
pub fn effective(running: &Config, read: Config) -> Config {
    let mut effective = read;
    effective.server.listen.clone_from(&running.server.listen);
    effective.server.plain.clone_from(&running.server.plain);
    effective.server.workers = running.server.workers;
    effective.admin.listen = running.admin.listen.clone();
    effective.redis.clone_from(&running.redis);
    effective
        .state_directory
        .clone_from(&running.state_directory);
    effective
}
