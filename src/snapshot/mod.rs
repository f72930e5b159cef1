//! Everything that a reload can change, immutable and swapped as a whole; and the few things that outlive every
//! reload.
//!
//! Keeps true: a request takes the snapshot once and sees one configuration from start to end. What must survive a
//! reload (debts, sessions, replaced keys, the last valid streams) is carried from the previous snapshot when one is
//! built. A build that fails has changed nothing, and what outlives a reload learns of a configuration only when that
//! is in force.
//! Must not know: files, sockets, what causes a reload.

mod source_builders;

use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use source_builders::Sources;
use tokio::runtime::Handle;

use crate::agora::reissue::Project;
use crate::agora::{BuildError, Signer};
use crate::config::model::{Config, OnStale, RevocationConfig};
use crate::forward::servers::Backends;
use crate::http::target::OwnedPaths;
use crate::io::descriptors::{Budgets, Shares};
use crate::io::fetch::Fetcher;
use crate::io::tls::{IdentityError, ServerIdentity};
use crate::limit::Limiter;
use crate::logins::jwt::{KeySet, Verifier};
use crate::logins::login_seals::LoginSeals;
use crate::logins::remembered::Logins;
use crate::logins::socket_sessions::SocketSessions;
use crate::revocation::Revocations;
use crate::sessions::{Rules, Sessions};
use crate::sources::accounts::ConfiguredAccounts;
use crate::sources::authorize::Authorizer;
use crate::sources::mongodb;
use crate::sources::mongodb::Database;
use crate::sources::proven::Proven;
use crate::sources::streams::{ConfiguredStreams, StreamState};
use crate::store::Store;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::{Metrics, ReissueMetrics};
use crate::terms::clock::{Clock, Entropy};
use crate::terms::readiness::Readiness;

/// One configuration and all that is derived from it.
#[derive(Debug)]
pub struct Snapshot {
    /// As validated.
    pub config: Config,
    /// `[server.tls]`, ready for handshakes.
    tls: Option<ServerIdentity>,
    /// `[routes]`, keyed for matching.
    pub owned: OwnedPaths,
    /// `[auth.jwt]`, keyed for verifying.
    pub verifier: Verifier,
    /// `[mongodb]`, where something asks for it.
    pub(crate) database: Option<Arc<Database>>,
    /// Which parts of the sources' configuration their answers have shown to be right.
    pub proven: Arc<Proven>,
    /// `[accounts]`: the source, and its recent answers.
    pub accounts: Arc<ConfiguredAccounts>,
    /// `[streams]`: the source, and its recent answers.
    pub streams: Arc<ConfiguredStreams>,
    /// `[authorize]`: the hook, and its outage.
    pub authorizer: Option<Authorizer>,
    /// `[rate_limit]`, with the debts of all keys.
    pub limiter: Limiter,
    /// `[redis]`: the store that replicas share.
    pub(crate) store: Option<Arc<Store>>,
    /// The seals of sockets' logins in the store, under `agora.app_certificate`.
    pub(crate) login_seals: LoginSeals,
    /// The live tokens.
    pub sessions: Arc<Sessions>,
    /// The logins that the accounts source refused.
    pub logins: Arc<Logins>,
    /// The operators' revocations.
    pub revocations: Arc<Revocations>,
    /// `[agora]`, keyed for signing.
    pub signer: Arc<Signer>,
    /// `[agora]`, for tokens that the backend minted.
    pub project: Arc<Project>,
    /// The series of `reissue.rule`, in its order, and then those of `reissue.socket`.
    pub reissue_metrics: Vec<Arc<ReissueMetrics>>,
    /// `log.audit`, open.
    pub audit: Arc<Audit>,
    /// `upstream.servers` and their state; a removed server's series disappear with its last snapshot.
    pub backends: Backends,
}

/// The result of reading `streams.file`; an empty `Table` where streams aren't read from a file.
#[derive(Debug)]
pub enum StreamsRead {
    /// The file is valid.
    Table(Vec<(Box<str>, StreamState)>),
    /// The file exists and is invalid.
    Invalid,
    /// The file is missing or can't be read.
    Unreadable,
}

/// Why no snapshot could be derived.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// `[agora]` can't sign.
    #[error(transparent)]
    Signer(#[from] BuildError),
    /// `[server.tls]` can't serve.
    #[error(transparent)]
    Tls(#[from] IdentityError),
}

impl Snapshot {
    /// Derives a snapshot. Fails only where the configuration isn't what validation promises, and then has changed
    /// nothing of what runs.
    pub fn build(
        config: Config,
        streams: StreamsRead,
        audit: Arc<Audit>,
        previous: Option<&Self>,
        metrics: &Metrics,
        clock: &Clock,
        control: &Control,
    ) -> Result<Self, SnapshotError> {
        // First what can fail: what comes after it makes series and tasks, and shows in what is carried over.
        let certificate = &config.agora.app_certificate;
        let signer = Arc::new(Signer::new(&config.agora.app_id, certificate)?);
        let tls = tls(&config, previous)?;
        let verifier = verifier(&config, previous, metrics, clock, control);
        let database = mongodb::carried(
            config.mongodb.as_ref(),
            previous.and_then(|previous| previous.database.as_ref()),
        );
        let proven = carried(previous, |previous| &previous.proven);
        let sources = Sources {
            config: &config,
            database: database.as_ref(),
            proven: &proven,
            previous,
            metrics,
            clock,
            control,
        };
        let accounts = sources.accounts();
        let authorizer = sources.authorizer();
        let streams = sources.streams(streams);
        let sessions = previous.map_or_else(
            || Arc::new(Sessions::new(config.sessions.max)),
            |previous| Arc::clone(&previous.sessions),
        );
        let logins = carried(previous, |previous| &previous.logins);
        let revocations = carried(previous, |previous| &previous.revocations);
        let before = previous.and_then(|previous| previous.store.as_ref());
        let store = Store::of(config.redis.as_ref(), before, clock, metrics);
        let routes = config.reissue.routes();
        Ok(Self {
            tls,
            owned: OwnedPaths::new(&config.routes.token, &config.routes.refresh),
            verifier,
            proven,
            accounts: Arc::new(accounts),
            streams: Arc::new(streams),
            authorizer,
            limiter: Limiter::new(
                &config.rate_limit,
                clock.clone(),
                previous.map(|previous| &previous.limiter),
            ),
            store,
            login_seals: LoginSeals::new(&config.agora.app_certificate),
            database,
            sessions,
            logins,
            revocations,
            audit,
            project: Arc::new(project(&config, &signer)),
            reissue_metrics: routes.map(|route| metrics.reissue(route)).collect(),
            signer,
            backends: Backends::new(
                &config.upstream,
                previous.map(|previous| &previous.backends),
                metrics,
            ),
            config,
        })
    }

    /// The identity that the listener at this position in `server.listen` shows to clients; `None` where it isn't TLS.
    pub(crate) fn tls_for(&self, listener: usize) -> Option<&ServerIdentity> {
        let tls = self.tls.as_ref();
        tls.filter(|_| self.config.server.is_tls(listener))
    }

    /// When the first certificate of `[server.tls]` expires, in seconds since the Unix epoch.
    pub(crate) fn certificate_expires(&self) -> Option<u64> {
        self.tls.as_ref().map(ServerIdentity::expires)
    }

    /// Whether no token may be given because the other replicas' revocations have been unknown for too long
    /// (`[revocation]`). `now` is on the clock's monotonic scale.
    pub(crate) fn denies_for_stale_revocations(&self, now: Duration) -> bool {
        let RevocationConfig {
            max_stale,
            on_stale,
        } = &self.config.revocation;
        *on_stale == OnStale::Deny && self.revocations.age(now) > *max_stale
    }

    /// The rules a session must pass under this configuration.
    pub(crate) fn session_rules(&self) -> Rules {
        let policy = &self.config.policy;
        Rules {
            bind_uid: policy.bind_uid,
            max_streams_per_publisher: policy.max_streams_per_publisher,
            max_session: policy.max_session,
            claimed: false,
        }
    }
}

/// The certificate of `[server.tls]`. While it stays the same, clients may go on resuming their sessions.
fn tls(
    config: &Config,
    previous: Option<&Snapshot>,
) -> Result<Option<ServerIdentity>, IdentityError> {
    match (&config.server.tls, previous) {
        (tls, Some(previous)) if *tls == previous.config.server.tls => Ok(previous.tls.clone()),
        (tls, _) => tls.as_ref().map(ServerIdentity::new).transpose(),
    }
}

/// The keys of `[auth.jwt]`, with those that were replaced.
fn verifier(
    config: &Config,
    previous: Option<&Snapshot>,
    metrics: &Metrics,
    clock: &Clock,
    control: &Control,
) -> Verifier {
    let previous = previous.map(|previous| &previous.verifier);
    let key_set = KeySet::of(
        &config.jwt,
        previous.and_then(Verifier::key_set),
        &control.fetcher,
        metrics,
        clock,
    );
    Verifier::new(&config.jwt, previous, clock).with_key_set(
        key_set,
        previous,
        config.jwt.key_grace,
        clock,
    )
}

/// The project of `[agora]`, for tokens that the backend minted.
fn project(config: &Config, signer: &Arc<Signer>) -> Project {
    let agora = &config.agora;
    Project::new(
        Arc::clone(signer),
        &agora.app_certificate,
        agora.previous_certificate.as_ref(),
        agora.backend_certificate.as_ref(),
    )
}

/// A part of the previous snapshot, or an empty one.
fn carried<T: Default>(previous: Option<&Snapshot>, part: fn(&Snapshot) -> &Arc<T>) -> Arc<T> {
    previous.map_or_else(Arc::default, |previous| Arc::clone(part(previous)))
}

/// The control plane: where and with what sources are asked.
#[derive(Clone, Debug)]
pub struct Control {
    /// The control plane's runtime.
    pub runtime: Handle,
    /// Sends renewd's own requests.
    pub fetcher: Fetcher,
}

impl Control {
    /// Sources are asked on this runtime.
    pub fn on(runtime: Handle) -> Self {
        Self {
            fetcher: Fetcher::new(runtime.clone(), None),
            runtime,
        }
    }
}

/// The state that all workers share for the life of the process.
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
    /// Where sources are asked.
    pub control: Control,
    /// Whether this process should get traffic.
    pub readiness: Readiness,
    /// The sockets to the backend.
    pub sockets: Budgets,
    /// The logins of open sockets.
    pub(crate) socket_sessions: SocketSessions,
    /// Open client connections.
    pub connections: AtomicUsize,
    /// Set with the first warning about `X-Forwarded` headers of a private peer that isn't trusted.
    pub untrusted_proxy_seen: OnceLock<IpAddr>,
    /// Set with the first warning about a connection that `server.proxy_protocol` refused because of its address.
    pub proxy_refused: OnceLock<()>,
    /// Set with the first warning about a connection without a PROXY header from a trusted proxy.
    pub proxy_header_missed: OnceLock<()>,
}

impl Shared {
    /// The state that a process starts with. The sockets to the backend are limited to their part of `shares`.
    pub fn new(
        snapshot: Snapshot,
        clock: Clock,
        metrics: Arc<Metrics>,
        control: Control,
        shares: &Shares,
    ) -> Self {
        Self {
            current: ArcSwap::from_pointee(snapshot),
            clock,
            entropy: Entropy::System,
            metrics,
            control,
            readiness: Readiness::default(),
            sockets: Budgets::new(shares),
            socket_sessions: SocketSessions::default(),
            connections: AtomicUsize::new(0),
            untrusted_proxy_seen: OnceLock::new(),
            proxy_refused: OnceLock::new(),
            proxy_header_missed: OnceLock::new(),
        }
    }

    /// Puts a snapshot in force: the next request is decided by it.
    pub(crate) fn put_in_force(&self, snapshot: Snapshot) {
        snapshot.sessions.set_max(snapshot.config.sessions.max);
        self.current.store(Arc::new(snapshot));
    }
}
