//! Everything hot, immutable, swapped whole on reload; and the few things that outlive every reload.
//!
//! Keeps true: a request takes the snapshot once and sees one configuration from start to end. What must survive a
//! reload (debts, sessions, replaced keys, the last valid streams) is carried from the previous snapshot when one is built.
//! Must not know: files, sockets, who reloads.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::access::jwt::Verifier;
use crate::access::sessions::{Rules, Sessions};
use crate::access::streams::{Stream, Streams};
use crate::agora::{BuildError, Signer};
use crate::backends::Backends;
use crate::clock::{Clock, Entropy};
use crate::config::model::Config;
use crate::http::target::OwnedPaths;
use crate::limit::Limiter;
use crate::readiness::Readiness;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;

/// One configuration and all that is derived from it.
#[derive(Debug)]
pub struct Snapshot {
    /// As validated.
    pub config: Config,
    /// `[routes]`, keyed for matching.
    pub owned: OwnedPaths,
    /// `[auth.jwt]`, keyed for verifying.
    pub verifier: Verifier,
    /// `[streams]`: the table as last read.
    pub streams: Streams,
    /// `[rate_limit]`, with everybody's debts.
    pub limiter: Limiter,
    /// The live tokens.
    pub sessions: Arc<Sessions>,
    /// `[agora]`, keyed for signing.
    pub signer: Signer,
    /// `log.audit`, open.
    pub audit: Arc<Audit>,
    /// `upstream.servers`, and what is known of them; a removed server's series go with its last snapshot.
    pub backends: Backends,
}

/// What reading `streams.file` came to.
#[derive(Debug)]
pub enum StreamsRead {
    /// Valid.
    Table(Vec<(Box<str>, Stream)>),
    /// There, but not valid.
    Invalid,
    /// Not there, or not readable.
    Unreadable,
}

impl Snapshot {
    /// Derives a snapshot. Fails only where the app id or certificate are not what validation promises.
    pub fn build(
        config: Config,
        streams: StreamsRead,
        audit: Arc<Audit>,
        previous: Option<&Self>,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Result<Self, BuildError> {
        let known = previous.map(|previous| &previous.streams);
        let sessions = match previous {
            Some(previous) => {
                previous.sessions.set_max(config.sessions.max);
                Arc::clone(&previous.sessions)
            }
            None => Arc::new(Sessions::new(config.sessions.max)),
        };
        Ok(Self {
            owned: OwnedPaths::new(&config.routes.token, &config.routes.refresh),
            verifier: Verifier::new(
                &config.jwt,
                previous.map(|previous| &previous.verifier),
                clock,
            ),
            streams: match streams {
                StreamsRead::Table(entries) => Streams::new(entries),
                StreamsRead::Invalid => Streams::invalid(known, clock.elapsed()),
                StreamsRead::Unreadable => Streams::unreadable(known, clock.elapsed()),
            },
            limiter: Limiter::new(
                &config.rate_limit,
                clock.clone(),
                previous.map(|previous| &previous.limiter),
            ),
            sessions,
            audit,
            signer: Signer::new(&config.agora.app_id, &config.agora.app_certificate)?,
            backends: Backends::new(
                &config.upstream,
                previous.map(|previous| &previous.backends),
                metrics,
            ),
            config,
        })
    }

    /// The rules a session must pass under this configuration.
    pub fn session_rules(&self) -> Rules {
        let policy = &self.config.policy;
        Rules {
            bind_uid: policy.bind_uid,
            max_streams_per_publisher: policy.max_streams_per_publisher,
            max_session: policy.max_session,
        }
    }
}

/// What every worker shares for the life of the process.
#[derive(Debug)]
pub struct Shared {
    /// The snapshot in force; take it once a request.
    pub current: ArcSwap<Snapshot>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Whether this process should get traffic.
    pub readiness: Readiness,
    /// Open client connections.
    pub connections: AtomicUsize,
    /// Set with the one warning about an untrusted private peer that speaks for others.
    pub untrusted_proxy_seen: OnceLock<()>,
}
