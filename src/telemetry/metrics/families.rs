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
    /// Its kind.
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
        "Token requests answered, by how they ended. class says who has to act: ok nobody, denied the rules said no, client the request was wrong, failed we could not answer. role is unknown where the request was refused before its role was known.";
    SHADOW_DECISIONS = MetricKind::Counter, "renewd_shadow_decisions_total",
        "Token requests decided but forwarded (decision.mode = observe): our outcome against the status class of the backend's answer, error where it gave none.";
    UNAUTHENTICATED = MetricKind::Counter, "renewd_unauthenticated_total",
        "Logins refused with 401, or that would be while observing: missing none was sent, malformed not a JSON Web Token, signature no key verifies it (auth.jwt.secret or keys), algorithm its alg is not in auth.jwt.algorithms, not_yet_valid its nbf lies ahead (compare the clocks), audience or issuer not the configured one, subject it lacks auth.jwt.subject_claim, account the accounts source knows no such account, session the account is signed in with another session.";
    DECISION_MODE = MetricKind::Gauge, "renewd_decision_mode",
        "1 for the decision.mode in force, 0 for the others. In any mode but enforce the backend answers the token endpoints.";
    ENFORCE_PERCENT = MetricKind::Gauge, "renewd_enforce_percent",
        "decision.enforce_percent: the share of subjects to whom decision.mode = enforce applies.";
    DRAINING_PUBLISHERS = MetricKind::Gauge, "renewd_draining_publishers",
        "Publishers who hold tokens given here and renew them here, though the backend answers them by decision.mode or enforce_percent (decision.drain_holders): people, each once in however many channels and under however many uids. 0 where everybody is answered here.";
    DECISION_MODE_OK_UNTIL = MetricKind::Gauge, "renewd_decision_mode_ok_until_timestamp_seconds",
        "decision.mode_ok_until in seconds since the Unix epoch: until then nobody is alerted of a decision.mode or enforce_percent that lets the backend answer. 0 where it is not set.";
    TOKEN_REQUEST_DURATION = MetricKind::Histogram(DECISION_SECONDS), "renewd_token_request_duration_seconds",
        "Time from a token request's header section to its answer.";
    TOKENS_ISSUED = MetricKind::Counter, "renewd_tokens_issued_total",
        "Agora tokens minted.";
    WILDCARD_TOKENS_ISSUED = MetricKind::Counter, "renewd_wildcard_tokens_issued_total",
        "Tokens minted for uid 0, which anyone who sees them may use (token.zero_uid = allow). Counted in renewd_tokens_issued_total too.";
    SESSIONS = MetricKind::Gauge, "renewd_sessions",
        "Sessions that hold an unexpired token.";
    TOKEN_LAPSES = MetricKind::Counter, "renewd_token_lapses_total",
        "Tokens not renewed 90 seconds after their expiry although the stream goes on: refused if their holder asked and was told no, silent if nobody asked. Viewers leave silently; a publisher who does has lost the stream.";
    RATE_LIMITED = MetricKind::Counter, "renewd_rate_limited_total",
        "Token requests answered 429, by the limit that was exceeded. subject and address are one caller's fault; channel and global mean that the limit or the audience has to change.";
    RATE_LIMIT_KEYS = MetricKind::Gauge, "renewd_rate_limit_keys",
        "Keys that a rate limit remembers, at most rate_limit.max_keys each.";
    RATE_LIMIT_OVERFLOW = MetricKind::Counter, "renewd_rate_limit_overflow_total",
        "Requests charged to the shared overflow bucket because rate_limit.max_keys was reached.";
    SOURCE_LOOKUPS = MetricKind::Counter, "renewd_source_lookups_total",
        "Questions to a source that decisions need: hit from memory, miss from the source, stale an older answer stood in, error no answer.";
    SOURCE_LOOKUP_DURATION = MetricKind::Histogram(DECISION_SECONDS), "renewd_source_lookup_duration_seconds",
        "Time that lookups in a source took.";
    SOURCE_UP = MetricKind::Gauge, "renewd_source_up",
        "1 while the source answers (and until it is first asked), 0 when its last lookup failed.";
    SOURCE_DOWN_SINCE = MetricKind::Gauge, "renewd_source_down_since_timestamp_seconds",
        "When the first lookup failed since the source last answered, in seconds since the Unix epoch; 0 while it answers.";
    SOURCE_REST_UNTIL = MetricKind::Gauge, "renewd_source_rest_until_timestamp_seconds",
        "Until when those who hold a token can renew it while the source gives no answer (stale_if_error after its first failure; for jwks, how long the known keys verify), in seconds since the Unix epoch; 0 while it answers.";
    REISSUE = MetricKind::Counter, "renewd_reissue_total",
        "Tokens of the project found in the backend's answers, by the rule's path: replaced by a shorter one, short enough by themselves, withheld from who may not have them, or error: nobody could say.";
    HTTP_REQUESTS = MetricKind::Counter, "renewd_http_requests_total",
        "Requests on the public listeners. handler is live (token endpoints), forward (the backend's), health or reject (refused before routing); code is none where the client left before a response.";
    HTTP_REQUEST_DURATION = MetricKind::Histogram(EXCHANGE_SECONDS), "renewd_http_request_duration_seconds",
        "Time from a request's header section to the end of its response body.";
    HTTP_PARSE_ERRORS = MetricKind::Counter, "renewd_http_parse_errors_total",
        "Requests refused because they are not acceptable HTTP.";
    UPSTREAM_REQUESTS = MetricKind::Counter, "renewd_upstream_requests_total",
        "Exchanges with a backend server, by how they ended.";
    UPSTREAM_REQUEST_DURATION = MetricKind::Histogram(EXCHANGE_SECONDS), "renewd_upstream_request_duration_seconds",
        "Time from the first attempt to the backend's response header section.";
    UPSTREAM_UP = MetricKind::Gauge, "renewd_upstream_up",
        "1 while the backend server takes connections (and until it is first tried), 0 when it does not.";
    UPSTREAM_RETRIES = MetricKind::Counter, "renewd_upstream_retries_total",
        "Further attempts made for requests whose first attempt never reached the backend.";
    UPSTREAM_EXPOSED = MetricKind::Gauge, "renewd_upstream_exposed",
        "1 if the port of a backend server on a loopback address also answers on another address of this host, where clients go past renewd. Looked at on start, on reload and every hour; a firewall in front of it isn't seen.";
    CONNECTIONS = MetricKind::Gauge, "renewd_connections",
        "Open client connections, tunnels included.";
    CONNECTIONS_MAX = MetricKind::Gauge, "renewd_connections_max",
        "The most client connections kept open, all listeners together: the lesser of server.max_connections and what the descriptor limit allows. 0 until known.";
    DESCRIPTORS = MetricKind::Gauge, "renewd_descriptors",
        "What the file descriptors are for: clients, requests to the backend, streams (tunnels and event streams to the backend), reserve (accepting, the admin listener, files, sources). 0 until known.";
    UPSTREAM_SOCKETS = MetricKind::Gauge, "renewd_upstream_sockets",
        "Open sockets to the backend, by the share of the descriptors that they count in; those of requests include idle ones.";
    UPSTREAM_SOCKETS_REFUSED = MetricKind::Counter, "renewd_upstream_sockets_refused_total",
        "Requests answered 503 overloaded because no socket to the backend became free within upstream.connect_timeout. Growing: the backend is too slow for its load, somebody holds many requests open, or LimitNOFILE is too low.";
    TUNNELS = MetricKind::Gauge, "renewd_tunnels",
        "Open upgrade tunnels (WebSocket, socket.io).";
    ACCEPT_ERRORS = MetricKind::Counter, "renewd_accept_errors_total",
        "Failed accepts. Growing steadily: out of descriptors or memory.";
    FORWARDED_HEADERS_DROPPED = MetricKind::Counter, "renewd_forwarded_headers_dropped_total",
        "Requests whose X-Forwarded headers were dropped because a private peer that sent them is not in server.trusted_proxies. Behind a load balancer that entry is missing, and all clients share one address limit.";
    CONFIG_RELOAD_SUCCESSFUL = MetricKind::Gauge, "renewd_config_last_reload_successful",
        "1 if the last load of the configuration succeeded. 0: the file is invalid and the former configuration stays in force; renewd check names the errors.";
    CONFIG_RELOAD_TIMESTAMP = MetricKind::Gauge, "renewd_config_last_reload_success_timestamp_seconds",
        "When the configuration was last loaded successfully, in seconds since the Unix epoch.";
    CONFIG_RESTART_REQUIRED = MetricKind::Gauge, "renewd_config_restart_required",
        "1 if the file holds a change that only a restart can apply.";
    CONFIG_FALLBACK = MetricKind::Gauge, "renewd_config_fallback",
        "1 if the process runs on the last valid configuration because the file was invalid at start.";
    CONFIG_HASH = MetricKind::Gauge, "renewd_config_hash",
        "48 bits of the hash of the configuration in force: equal on replicas that run the same one.";
    STATE_WRITABLE = MetricKind::Gauge, "renewd_state_writable",
        "1 while the state directory can be written. 0: what must survive a restart will not.";
    STATE_DAMAGED = MetricKind::Gauge, "renewd_state_damaged",
        "1 if something in the state directory could not be read when it was loaded. Every intact record was taken.";
    CERTIFICATE_EXPIRY = MetricKind::Gauge, "renewd_certificate_expiry_timestamp_seconds",
        "When the first certificate of [server.tls] expires, in seconds since the Unix epoch; NaN without one.";
    LOG_DROPPED = MetricKind::Counter, "renewd_log_dropped_total",
        "Log and audit lines lost because their reader was too slow or their file could not be written.";
    BUILD_INFO = MetricKind::Gauge, "renewd_build_info",
        "Always 1; its labels say what is running.";
}
