//! Every metric's name, kind and help text, in one place. Names are the contract's: never change one.
//!
//! Keeps true: a metric that isn't listed here doesn't exist.

/// One metric: what stands in its `# HELP` and `# TYPE` lines.
#[derive(Debug)]
pub struct Family {
    /// The metric's name.
    pub name: &'static str,
    /// For operators: what it counts and, where it matters, what to do.
    pub help: &'static str,
    /// The metric's kind.
    pub kind: MetricKind,
}

/// A metric's kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, by these upper bounds.
    Histogram(&'static [f64]),
}

/// Decisions take microseconds from memory and up to `decision.timeout` otherwise.
const DECISION_SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

/// Forwarded requests take what the backend takes, up to its response timeout; streams take longer still.
const EXCHANGE_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

macro_rules! families {
    ($($constant:ident = $kind:expr, $name:literal, $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub(crate) const $constant: Family = Family { name: $name, help: $help, kind: $kind };
        )*

        /// Every family that the recorder holds.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    TOKEN_REQUESTS = MetricKind::Counter, "renewd_token_requests_total",
        "Token requests answered, by outcome. class groups the outcomes: ok (a token was issued), denied (a rule refused), client (the request was wrong), failed (renewd could not answer). role is unknown if the request was refused before its role was known.";
    SHADOW_DECISIONS = MetricKind::Counter, "renewd_shadow_decisions_total",
        "Token requests that renewd decided but forwarded (decision.mode = observe). outcome is renewd's decision, backend is the status class of the backend's answer, or error if it gave none.";
    UNAUTHENTICATED = MetricKind::Counter, "renewd_unauthenticated_total",
        "Logins refused with 401, or that would have been while observing, by reason: missing (none was sent), malformed (not a JSON Web Token), signature (no key in auth.jwt verifies it), algorithm (not in auth.jwt.algorithms), not_yet_valid (its nbf is in the future: compare the clocks), audience or issuer (not the configured one), subject (auth.jwt.subject_claim is missing), account (the accounts source does not know it, or refuses it), session (the account has a newer session).";
    DECISION_MODE = MetricKind::Gauge, "renewd_decision_mode",
        "1 for the decision.mode in use, 0 for the others. In any mode except enforce, the backend answers the token endpoints.";
    ENFORCE_PERCENT = MetricKind::Gauge, "renewd_enforce_percent",
        "decision.enforce_percent: the percentage of subjects to which decision.mode = enforce applies.";
    DRAINING_PUBLISHERS = MetricKind::Gauge, "renewd_draining_publishers",
        "Publishers who hold tokens from renewd and still renew them at renewd, although the backend answers their other requests (decision.mode, enforce_percent, drain_holders). Each person counts once, in any number of channels and under any number of uids. 0 if renewd answers everybody.";
    DECISION_MODE_OK_UNTIL = MetricKind::Gauge, "renewd_decision_mode_ok_until_timestamp_seconds",
        "decision.mode_ok_until in seconds since the Unix epoch, or 0 if it is not set. Before this time no alert fires because decision.mode or enforce_percent lets the backend answer.";
    TOKEN_REQUEST_DURATION = MetricKind::Histogram(DECISION_SECONDS), "renewd_token_request_duration_seconds",
        "Time from the end of a token request's header section to its answer.";
    TOKENS_ISSUED = MetricKind::Counter, "renewd_tokens_issued_total",
        "Agora tokens issued.";
    WILDCARD_TOKENS_ISSUED = MetricKind::Counter, "renewd_wildcard_tokens_issued_total",
        "Tokens issued for uid 0 (token.zero_uid = allow). Anyone who sees such a token can use it. They also count in renewd_tokens_issued_total.";
    SESSIONS = MetricKind::Gauge, "renewd_sessions",
        "Sessions that hold an unexpired token.";
    TOKEN_LAPSES = MetricKind::Counter, "renewd_token_lapses_total",
        "Tokens that were not renewed within 90 seconds after their expiry although the stream goes on. cause is refused if the holder asked for a new token and was refused, silent if the holder did not ask. A viewer who leaves is silent too; a publisher who is silent has lost the stream.";
    RATE_LIMITED = MetricKind::Counter, "renewd_rate_limited_total",
        "Token requests answered with 429, by the limit that was exceeded. subject and address: one caller asks too often. channel and global: the limit is too low for the audience.";
    RATE_LIMIT_PER_SECOND = MetricKind::Gauge, "renewd_rate_limit_per_second",
        "Token requests per second that each rate limit allows one subject, one address, one channel, or all together (global), apart from its burst; 0 if the limit is off.";
    RATE_LIMIT_KEYS = MetricKind::Gauge, "renewd_rate_limit_keys",
        "Keys that each rate limit remembers, at most rate_limit.max_keys.";
    RATE_LIMIT_OVERFLOW = MetricKind::Counter, "renewd_rate_limit_overflow_total",
        "Requests that were charged to a shared limit because rate_limit.max_keys was reached.";
    SOURCE_LOOKUPS = MetricKind::Counter, "renewd_source_lookups_total",
        "Lookups that decisions needed, by outcome: hit (answered from memory), miss (answered by the source), stale (an older answer was used), error (no answer).";
    SOURCE_LOOKUP_DURATION = MetricKind::Histogram(DECISION_SECONDS), "renewd_source_lookup_duration_seconds",
        "Duration of lookups in a source.";
    SOURCE_UP = MetricKind::Gauge, "renewd_source_up",
        "1 while the source answers, and until it is first asked; 0 if its last lookup failed.";
    SOURCE_DOWN_SINCE = MetricKind::Gauge, "renewd_source_down_since_timestamp_seconds",
        "When the first lookup failed after the source last answered, in seconds since the Unix epoch; 0 while it answers.";
    SOURCE_REST_UNTIL = MetricKind::Gauge, "renewd_source_rest_until_timestamp_seconds",
        "Until when users who hold a token can renew it while the source gives no answer, in seconds since the Unix epoch; 0 while it answers. This is stale_if_error after the first failure; for jwks, the time until which the known keys are used.";
    REISSUE = MetricKind::Counter, "renewd_reissue_total",
        "Tokens of the project that were found in the backend's answers and in the messages of its sockets. route is the path of the [[reissue.rule]], or 'socket ' and the path of the [[reissue.socket]]; outcome is replaced (by a shorter one), short (its lifetime was short enough), withheld (the caller may not have it), or error (it could not be judged or replaced).";
    HTTP_REQUESTS = MetricKind::Counter, "renewd_http_requests_total",
        "Requests on the public listeners. handler is live (token endpoints), forward (forwarded to the backend), health, or reject (refused before routing). code is none if the client left before a response.";
    HTTP_REQUEST_DURATION = MetricKind::Histogram(EXCHANGE_SECONDS), "renewd_http_request_duration_seconds",
        "Time from the end of a request's header section to the end of its response body.";
    HTTP_PARSE_ERRORS = MetricKind::Counter, "renewd_http_parse_errors_total",
        "Requests refused because they are not acceptable HTTP.";
    UPSTREAM_REQUESTS = MetricKind::Counter, "renewd_upstream_requests_total",
        "Requests to a backend server, by outcome.";
    UPSTREAM_REQUEST_DURATION = MetricKind::Histogram(EXCHANGE_SECONDS), "renewd_upstream_request_duration_seconds",
        "Time from the first attempt to the backend's response header section.";
    UPSTREAM_UP = MetricKind::Gauge, "renewd_upstream_up",
        "1 while the backend server accepts connections, and until it is first tried; 0 if it does not.";
    UPSTREAM_RETRIES = MetricKind::Counter, "renewd_upstream_retries_total",
        "Repeated attempts for requests that a backend server did not answer and that may be sent again.";
    UPSTREAM_EXPOSED = MetricKind::Gauge, "renewd_upstream_exposed",
        "1 if the port of a backend server on a loopback address also answers on another address of this host, where clients can bypass renewd. Checked at the start, after a reload and every hour. A firewall in front of this host is not seen.";
    CONNECTIONS = MetricKind::Gauge, "renewd_connections",
        "Open client connections, tunnels included.";
    CONNECTIONS_MAX = MetricKind::Gauge, "renewd_connections_max",
        "The most client connections at once, over all listeners: the smaller of server.max_connections and what the descriptor limit allows. 0 until known.";
    DESCRIPTORS = MetricKind::Gauge, "renewd_descriptors",
        "How the file descriptors are shared: clients, requests (to the backend), streams (tunnels and event streams to the backend), reserve (accepting, the admin listener, files, sources). 0 until known.";
    UPSTREAM_SOCKETS = MetricKind::Gauge, "renewd_upstream_sockets",
        "Open sockets to the backend, by the share of the file descriptors that they belong to. requests includes idle connections.";
    UPSTREAM_SOCKETS_REFUSED = MetricKind::Counter, "renewd_upstream_sockets_refused_total",
        "Requests answered with 503 overloaded because no socket to the backend became free within upstream.connect_timeout. If this grows, the backend is too slow for its load, a client holds many requests open, or LimitNOFILE is too low.";
    TUNNELS = MetricKind::Gauge, "renewd_tunnels",
        "Open upgrade tunnels (WebSocket, socket.io).";
    ACCEPT_ERRORS = MetricKind::Counter, "renewd_accept_errors_total",
        "Failed attempts to accept a connection. If this grows steadily, file descriptors or memory are exhausted.";
    FORWARDED_HEADERS_DROPPED = MetricKind::Counter, "renewd_forwarded_headers_dropped_total",
        "Requests whose X-Forwarded headers were dropped because they came from a private address that is not in server.trusted_proxies. If it is a load balancer, add it there; otherwise all of its clients share one address limit.";
    CONFIG_RELOAD_SUCCESSFUL = MetricKind::Gauge, "renewd_config_last_reload_successful",
        "1 if the configuration was last loaded successfully; 0 if the file is invalid, and the former configuration stays in use. renewd check lists the errors.";
    CONFIG_RELOAD_TIMESTAMP = MetricKind::Gauge, "renewd_config_last_reload_success_timestamp_seconds",
        "When the configuration was last loaded successfully, in seconds since the Unix epoch.";
    CONFIG_RESTART_REQUIRED = MetricKind::Gauge, "renewd_config_restart_required",
        "1 if the configuration file has a change that needs a restart.";
    CONFIG_FALLBACK = MetricKind::Gauge, "renewd_config_fallback",
        "1 if the process runs on the last valid configuration because the file was invalid at start.";
    CONFIG_HASH = MetricKind::Gauge, "renewd_config_hash",
        "48 bits of a hash of the configuration in use. Replicas with the same configuration have the same value.";
    REVOCATIONS = MetricKind::Gauge, "renewd_revocations",
        "Revocations in force.";
    REVOCATION_STORE_AGE = MetricKind::Gauge, "renewd_revocation_store_age_seconds",
        "How long ago this process last knew all revocations of the others that share [redis]; 0 without [redis].";
    EJECTIONS = MetricKind::Counter, "renewd_ejections_total",
        "Rules at Agora that remove a revoked user from a channel, by outcome: done (the rule was made), failed (Agora refused it, or took it in no time that would still have helped), not_possible (the token is for uid 0 or a string user account), dropped (not needed any more), deleted (the revocation was lifted), retried (an attempt failed and is repeated), unauthorized (an attempt was answered with 401 or 403, and is repeated once [agora.rest] has changed, or after 10 minutes). Only while [agora.rest] is configured.";
    STATE_WRITABLE = MetricKind::Gauge, "renewd_state_writable",
        "1 while the state directory can be written; 0 if it cannot, and what must survive a restart would be lost.";
    STATE_DAMAGED = MetricKind::Gauge, "renewd_state_damaged",
        "1 if something in the state directory was damaged when it was loaded. Every intact record was used.";
    STORE_MODE = MetricKind::Gauge, "renewd_store_mode",
        "1 for what holds now, with [redis]: shared while replicas share their rate limits, local while the store gives no answer and rate_limit.on_store_error decides. Without [redis] there is no such series.";
    CERTIFICATE_EXPIRY = MetricKind::Gauge, "renewd_certificate_expiry_timestamp_seconds",
        "When the first certificate of [server.tls] to expire does so, in seconds since the Unix epoch; NaN without a certificate.";
    LOG_DROPPED = MetricKind::Counter, "renewd_log_dropped_total",
        "Log and audit lines lost because their reader was too slow or their file could not be written.";
    BUILD_INFO = MetricKind::Gauge, "renewd_build_info",
        "Always 1. The labels show which build is running.";
}
