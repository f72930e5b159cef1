//! Every key of the configuration, and whether this build has what it asks for.
//!
//! Keeps true: a key is read, or refused by name; none is accepted and ignored. Building a part moves its rows from
//! [`UNBUILT`] to [`BUILT`], and the tests hold the reader and `config.example.toml` to these tables.
//! Must not know: what a key means.

/// A key that this build reads. The key of a table inside a list or an inline table stands under that list's path.
#[derive(Clone, Copy, Debug)]
pub struct BuiltKey {
    /// Dotted path.
    pub path: &'static str,
    /// Its value is a secret or should name one: no excerpt shows its line.
    pub secret: bool,
}

/// A key that is known but asks for a part that this build lacks.
#[derive(Clone, Copy, Debug)]
pub struct UnbuiltKey {
    /// Dotted path; a table's path stands for everything in it.
    pub path: &'static str,
    /// The one value that asks for nothing, so that accepting it ignores nothing.
    pub off: Option<Off>,
}

/// A value that leaves a part off.
#[derive(Clone, Copy, Debug)]
pub enum Off {
    /// `false`.
    False,
    /// A string.
    Text(&'static str),
}

const fn key(path: &'static str) -> BuiltKey {
    BuiltKey {
        path,
        secret: false,
    }
}

const fn secret(path: &'static str) -> BuiltKey {
    BuiltKey { path, secret: true }
}

const fn never(path: &'static str) -> UnbuiltKey {
    UnbuiltKey { path, off: None }
}

const fn off(path: &'static str, value: Off) -> UnbuiltKey {
    UnbuiltKey {
        path,
        off: Some(value),
    }
}

/// Every key that this build reads.
pub const BUILT: &[BuiltKey] = &[
    key("server.listen"),
    key("server.workers"),
    key("server.trusted_proxies"),
    key("server.max_connections"),
    key("server.drain_timeout"),
    key("server.shutdown_delay"),
    key("server.tunnel_drain_timeout"),
    key("server.health_path"),
    key("server.h2c"),
    key("server.timeouts.header"),
    key("server.timeouts.idle"),
    key("server.timeouts.body_stall"),
    key("server.timeouts.write_stall"),
    key("server.timeouts.tunnel_idle"),
    key("server.timeouts.tls_handshake"),
    key("server.limits.header_bytes"),
    key("server.limits.header_fields"),
    key("server.limits.target_bytes"),
    key("server.tls.certificate_file"),
    secret("server.tls.private_key_file"),
    key("server.tls.client_ca_file"),
    key("admin.listen"),
    secret("admin.token_file"),
    key("admin.allowed_hosts"),
    key("decision.mode"),
    key("decision.timeout"),
    key("decision.enforce_percent"),
    key("decision.drain_holders"),
    key("decision.mode_ok_until"),
    key("upstream.servers"),
    key("upstream.connect_timeout"),
    key("upstream.response_timeout"),
    key("upstream.idle_timeout"),
    key("upstream.try_duration"),
    key("upstream.exposed_ok"),
    key("upstream.max_requests"),
    key("upstream.affinity"),
    key("upstream.health.path"),
    key("upstream.health.interval"),
    key("agora.app_id"),
    secret("agora.app_certificate"),
    secret("agora.app_certificate_file"),
    secret("agora.previous_certificate"),
    secret("agora.previous_certificate_file"),
    secret("agora.backend_certificate"),
    secret("agora.backend_certificate_file"),
    key("routes.token"),
    key("routes.refresh"),
    key("routes.below"),
    key("routes.method_override"),
    key("routes.block.methods"),
    key("routes.block.path"),
    key("routes.block.allow"),
    key("token.lifetime"),
    key("token.refresh_before"),
    key("token.jitter"),
    key("token.backup"),
    key("token.services"),
    key("token.messaging_id_claim"),
    key("token.tier.claim"),
    key("token.tier.value"),
    key("token.tier.lifetime"),
    key("token.tier.max_session"),
    key("token.format"),
    key("token.default_role"),
    key("token.zero_uid"),
    key("auth.cookie"),
    key("auth.jwt.algorithms"),
    secret("auth.jwt.secret"),
    secret("auth.jwt.secret_file"),
    key("auth.jwt.public_key_file"),
    key("auth.jwt.jwks_url"),
    key("auth.jwt.keys.id"),
    key("auth.jwt.keys.algorithm"),
    secret("auth.jwt.keys.secret"),
    secret("auth.jwt.keys.secret_file"),
    key("auth.jwt.keys.public_key_file"),
    key("auth.jwt.issuer"),
    key("auth.jwt.audience"),
    key("auth.jwt.leeway"),
    key("auth.jwt.require_exp"),
    key("auth.jwt.key_grace"),
    key("auth.jwt.subject_claim"),
    key("auth.jwt.session_claim"),
    secret("mongodb.uri"),
    secret("mongodb.uri_file"),
    key("mongodb.database"),
    key("mongodb.timeout"),
    key("accounts.source"),
    key("accounts.collection"),
    key("accounts.id_field"),
    key("accounts.deny_when.field"),
    key("accounts.deny_when.equals"),
    key("accounts.deny_when.code"),
    key("accounts.deny_when.reason_field"),
    key("accounts.session_field"),
    key("accounts.url"),
    key("accounts.cache_ttl"),
    key("accounts.stale_if_error"),
    key("streams.source"),
    key("streams.file"),
    key("streams.collection"),
    key("streams.channel_field"),
    key("streams.live_field"),
    key("streams.owner_field"),
    key("streams.banned_field"),
    key("streams.banned_viewers_field"),
    key("streams.cohosts_field"),
    key("streams.url"),
    key("streams.live_pointer"),
    key("streams.owner_pointer"),
    key("streams.banned_pointer"),
    key("streams.banned_viewers_pointer"),
    key("streams.cohosts_pointer"),
    key("streams.headers.name"),
    secret("streams.headers.value"),
    secret("streams.headers.value_file"),
    key("streams.channel_pattern"),
    key("streams.cache_ttl"),
    key("streams.stale_if_error"),
    key("authorize.url"),
    key("authorize.timeout"),
    key("authorize.on_error"),
    key("authorize.stale_if_error"),
    key("policy.max_streams_per_publisher"),
    key("policy.max_session"),
    key("policy.bind_uid"),
    key("reissue.mode"),
    key("reissue.rule.methods"),
    key("reissue.rule.path"),
    key("reissue.rule.except"),
    key("reissue.rule.lifetime"),
    key("reissue.rule.require_auth"),
    key("reissue.rule.trust_publisher"),
    key("reissue.rule.publisher_for_others"),
    key("reissue.rule.withheld"),
    key("rate_limit.max_keys"),
    // A scope is a table, or "off".
    key("rate_limit.subject"),
    key("rate_limit.address"),
    key("rate_limit.channel"),
    key("rate_limit.global"),
    key("rate_limit.subject.requests"),
    key("rate_limit.subject.per"),
    key("rate_limit.subject.burst"),
    key("rate_limit.address.requests"),
    key("rate_limit.address.per"),
    key("rate_limit.address.burst"),
    key("rate_limit.channel.requests"),
    key("rate_limit.channel.per"),
    key("rate_limit.channel.burst"),
    key("rate_limit.global.requests"),
    key("rate_limit.global.per"),
    key("rate_limit.global.burst"),
    key("sessions.max"),
    key("cors.allowed_origins"),
    key("cors.allow_credentials"),
    key("cors.expose_headers"),
    key("state.directory"),
    key("log.format"),
    key("log.level"),
    key("log.access"),
    key("log.audit"),
];

/// Every key that is known and not built.
pub const UNBUILT: &[UnbuiltKey] = &[
    never("agora.rest"),
    off("rate_limit.on_store_error", Off::Text("local")),
    never("revocation"),
    never("redis"),
    never("reissue.socket"),
];

/// Paths whose value is a list of tables.
pub(super) const LISTS_OF_TABLES: &[&str] = &[
    "accounts.deny_when",
    "auth.jwt.keys",
    "reissue.rule",
    "routes.block",
    "streams.headers",
    "token.tier",
];

/// What a dotted path is.
#[derive(Clone, Copy, Debug)]
pub(super) enum KnownKey {
    /// Read by this build.
    Built(BuiltKey),
    /// Known, not built.
    Unbuilt(UnbuiltKey),
    /// A table with known keys in it.
    Section,
}

/// Looks a dotted path up; list positions are left out of it.
pub(super) fn look_up(path: &str) -> Option<KnownKey> {
    if let Some(built) = BUILT.iter().find(|key| key.path == path) {
        return Some(KnownKey::Built(*built));
    }
    if let Some(unbuilt) = UNBUILT.iter().find(|key| key.path == path) {
        return Some(KnownKey::Unbuilt(*unbuilt));
    }
    let inside = |known: &str| {
        known
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    all_paths().any(inside).then_some(KnownKey::Section)
}

/// What was probably meant by an unknown key: a near name in the same table, else the same name in another one.
pub(super) fn suggestion(table: &str, name: &str) -> Option<String> {
    let prefix = if table.is_empty() {
        String::new()
    } else {
        format!("{table}.")
    };
    let siblings = all_paths()
        .filter_map(|path| path.strip_prefix(prefix.as_str()))
        .filter_map(|rest| rest.split('.').next());
    let allowed = (name.len() / 3).clamp(1, 3);
    let near = siblings
        .map(|sibling| (strsim::damerau_levenshtein(sibling, name), sibling))
        .filter(|(distance, _)| *distance <= allowed)
        .min();
    if let Some((_, sibling)) = near {
        return Some(format!("did you mean `{sibling}`?"));
    }
    let elsewhere = all_paths().find_map(|path| {
        let (other, last) = path.rsplit_once('.')?;
        (last == name && other != table).then_some((other, last))
    });
    if let Some((other, last)) = elsewhere {
        return Some(format!("`{last}` belongs in [{other}]"));
    }
    let mut names: Vec<&str> = all_paths()
        .filter_map(|path| path.strip_prefix(prefix.as_str()))
        .filter_map(|rest| rest.split('.').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| format!("known here: {}", names.join(", ")))
}

fn all_paths() -> impl Iterator<Item = &'static str> {
    let unbuilt = UNBUILT.iter().map(|key| key.path);
    BUILT.iter().map(|key| key.path).chain(unbuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_in_both_tables_or_twice_in_one() {
        let mut paths: Vec<&str> = all_paths().collect();
        paths.sort_unstable();
        let count = paths.len();
        paths.dedup();
        assert_eq!(count, paths.len());
    }

    #[test]
    fn a_table_is_known_by_the_keys_in_it() {
        assert!(matches!(
            look_up("server.timeouts"),
            Some(KnownKey::Section)
        ));
        assert!(look_up("server.time").is_none());
        assert!(matches!(look_up("redis"), Some(KnownKey::Unbuilt(_))));
    }

    #[test]
    fn a_misspelt_key_gets_the_nearest_name_of_its_table() {
        assert_eq!(
            suggestion("server", "drain_timout").unwrap(),
            "did you mean `drain_timeout`?"
        );
        assert_eq!(suggestion("", "servr").unwrap(), "did you mean `server`?");
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_to_the_right_one() {
        assert_eq!(
            suggestion("server", "lifetime").unwrap(),
            "`lifetime` belongs in [token]"
        );
    }
}
