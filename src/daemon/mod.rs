//! Composition root: build → bind → READY → wait → drain.
//!
//! Keeps true: start contacts nothing outside this machine; every port is bound before READY; a stop drains
//! connections before it closes them.
//! Must not know: what a request means.

mod build;
mod conditions;
mod drain;
mod ejecting;
mod files;
mod following;
mod observer;
mod reload;
mod revoking;
pub(crate) mod signals;
mod source_states;
mod start;
mod state;
mod status;
pub mod systemd;
pub mod tasks;
mod traffic;
pub mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use self::conditions::History;
use self::ejecting::Ejector;
use self::following::Following;
use self::reload::{ConfigStanding, Reloader};
use self::revoking::Revoker;
use self::signals::{Request, Signals};
use self::start::Start;
use self::state::DaemonState;
use self::status::AdminView;
use self::systemd::{Heartbeats, Notifier, PassedSockets};
use self::tasks::finishing::FinishingTask;
use self::tasks::revocation_journal;
use self::tasks::session_journal::SessionJournal;
use self::traffic::RecentTraffic;
use self::watch::{Timing, Watcher};
use crate::admin::AdminListener;
use crate::config::ConfigErrors;
use crate::config::model::{Config, Listen};
use crate::io::descriptors;
use crate::io::descriptors::Shares;
use crate::server::listen::{BindError, bind_remedy};
use crate::server::worker::Workers;
use crate::snapshot::Shared;
use crate::state::directory::{StateDirectory, StateError};
use crate::store;
use crate::telemetry::line_writer::DropCounter;
use crate::telemetry::log::{self, LogControl};
use crate::telemetry::metrics::Metrics;
use crate::terms::clock::Clock;
use crate::terms::readiness::Phase;

/// Workers beat at least this often, whatever `WatchdogSec=` would allow.
const LONGEST_BEAT: Duration = Duration::from_secs(5);

/// How long the last log and audit lines may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// How long the last sessions may take to be written down.
const LAST_BATCH: Duration = Duration::from_secs(5);

/// The options that the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Start from the last valid configuration when the file is invalid.
    pub fallback: bool,
    /// Where the last valid configuration was kept, as `--state-directory` or systemd says.
    pub state_directory: Option<PathBuf>,
    /// Sockets that the service manager passed.
    pub inherited: PassedSockets,
}

/// Where the daemon can be reached.
#[derive(Clone, Debug)]
pub(crate) struct BoundAddresses {
    /// Public TCP addresses, in the order of `server.listen`.
    pub public: Vec<SocketAddr>,
    /// The admin listener's address; `None` for a unix socket.
    pub admin: Option<SocketAddr>,
}

/// Why the daemon didn't start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The file is invalid, and there is nothing to fall back to.
    #[error("{0}")]
    Configuration(ConfigErrors),
    /// Another daemon runs on the same state.
    #[error("{0}")]
    State(#[from] StateError),
    /// A public listener can't be bound.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// The admin listener can't be bound.
    #[error(
        "can't listen on {listen} (admin.listen): {source}{}",
        bind_remedy(source)
    )]
    Admin {
        /// As configured.
        listen: Listen,
        /// Why.
        source: std::io::Error,
    },
    /// The system refused something else.
    #[error("can't start: {0}")]
    System(#[from] std::io::Error),
}

/// Serves until told to stop. `announce` is called once, when every listener is bound.
pub(crate) fn run(
    options: Options,
    announce: impl FnOnce(&BoundAddresses),
) -> Result<(), RunError> {
    let start = start::read(&options)?;
    let clock = Clock::system();
    let dropped = DropCounter::default();
    let (subscriber, log) =
        log::to_stderr(&start.loaded.config.log, clock.clone(), dropped.clone())?;
    tracing::subscriber::set_global_default(subscriber).map_err(std::io::Error::other)?;
    let state = start::open_state(&start.loaded.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let daemon = Daemon::build(options, start, &clock, dropped, log.clone(), state)?;
        announce(&daemon.bound);
        daemon.serve().await;
        Ok(())
    });
    // A task that is left must not keep the process alive.
    runtime.shutdown_background();
    log.flush(FLUSH);
    ended
}

/// The metrics, with what a start knows of the configuration.
fn metrics_of_start(
    clock: &Clock,
    dropped: &DropCounter,
    config: &Config,
    hash: u64,
    fallback: bool,
) -> Arc<Metrics> {
    let metrics = Metrics::new(clock, dropped.clone());
    metrics.config_hash(hash);
    metrics.decision(&config.decision);
    metrics.rate_limits(&config.rate_limit);
    metrics.config_fallback(fallback);
    metrics.config_reload(!fallback);
    metrics
}

/// Serves the admin listener until the sender is used or dropped.
fn spawn_admin(
    listener: AdminListener,
    revoker: Revoker,
    reloader: &Arc<Reloader>,
    history: &Arc<History>,
    traffic: &Arc<RecentTraffic>,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let view = AdminView {
        history: Arc::clone(history),
        traffic: Arc::clone(traffic),
        shared: Arc::clone(&revoker.shared),
        revoker,
        reloader: Arc::clone(reloader),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = listener.serve(Arc::new(view), async {
        // An error means that the sender is gone: then the listener stops too.
        let _ = stopped.await;
    });
    (stop, tokio::spawn(serving))
}

/// Raises the limit of descriptors and divides it; the limit and the shares.
fn share_descriptors(config: &Config, metrics: &Metrics) -> (u64, Shares) {
    let descriptors = descriptors::raise_limit();
    let shares = Shares::of(descriptors, config.server.max_connections);
    metrics.descriptor_shares(&shares);
    tracing::info!("{shares}");
    (descriptors, shares)
}

/// How often the workers and the watchdog beat.
fn beat(notifier: &Notifier) -> Duration {
    let interval = notifier.watchdog_interval();
    interval.unwrap_or(LONGEST_BEAT).min(LONGEST_BEAT)
}

/// Notifies the watchdog for as long as every worker beats.
fn spawn_watchdog(notifier: Notifier, heartbeats: Heartbeats, beat: Duration) {
    tokio::spawn(async move {
        notifier
            .feed_watchdog(|| heartbeats.all_within(beat * 3))
            .await;
    });
}

/// Starts the tasks that run until the process ends: conditions, upkeep, the shared store, the backend's health and its
/// exposure. Gives the one that shares sessions, which has something to do at the stop.
fn spawn_tasks(
    shared: &Arc<Shared>,
    bound: &BoundAddresses,
    reloader: &Reloader,
    history: &Arc<History>,
    traffic: &Arc<RecentTraffic>,
) -> Option<FinishingTask> {
    tokio::spawn(conditions::run(
        Arc::clone(shared),
        Arc::clone(history),
        Arc::clone(traffic),
    ));
    tokio::spawn(tasks::upkeep::run(Arc::clone(shared)));
    if let Some(store) = shared.current.load().store.clone() {
        tokio::spawn(store::supervise(store));
    }
    tokio::spawn(tasks::health::run(Arc::clone(shared)));
    tokio::spawn(tasks::exposure::run(
        Arc::clone(shared),
        bound.public.iter().copied().chain(bound.admin).collect(),
        reloader.watched.subscribe(),
    ));
    tasks::session_sharing::start(shared)
}

/// A daemon that serves.
struct Daemon {
    bound: BoundAddresses,
    workers: Workers,
    reloader: Arc<Reloader>,
    watched: tokio::sync::watch::Receiver<Vec<PathBuf>>,
    watcher: Watcher,
    signals: Signals,
    notifier: Notifier,
    descriptors: u64,
    /// `None` without a configured state directory.
    journal: Option<FinishingTask>,
    /// The tasks that give changes to the other replicas.
    sharing: Vec<FinishingTask>,
    stop_admin: oneshot::Sender<()>,
    admin: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// Builds and starts everything, and notifies the service manager.
    fn build(
        options: Options,
        start: Start,
        clock: &Clock,
        dropped: DropCounter,
        log: LogControl,
        state: Option<StateDirectory>,
    ) -> Result<Self, RunError> {
        // The handlers come first, so that no signal ends the process half-way.
        let signals = Signals::listen()?;
        let notifier = Notifier::from_environment();
        start::log_findings(&start.loaded.warnings, start.errors.as_ref());
        start::warn_of_fallback(&options, &start.loaded.config);
        // Watching starts before the files are used, so that no change is lost.
        let files = start.files(&options.config);
        let watcher = Watcher::start(files.clone(), Timing::default());

        let (config, hash) = (&start.loaded.config, start.loaded.hash);
        let fallback = start.errors.is_some();
        let metrics = metrics_of_start(clock, &dropped, config, hash, fallback);
        let state = DaemonState::new(config.state_directory.clone(), state, &metrics);
        start.keep(&options.config, &state);
        let state = Arc::new(state);
        let (descriptors, shares) = share_descriptors(config, &metrics);
        let shared = build::shared(config, &options.config, &metrics, clock, &dropped, &shares)?;
        metrics.certificate_expiry(shared.current.load().certificate_expires());
        let journal = SessionJournal::load(&state, &shared);
        let log_of_revocations = revocation_journal::start(&state, &shared);
        let ejector = Ejector::start(&state, &shared);
        let sockets = build::bind(config, options.inherited)?;
        let (public, most) = (sockets.public, shares.clients);
        let heartbeats = Heartbeats::new(config.server.workers, clock.clone());
        let beat = beat(&notifier);
        let workers = build::workers(config, public, &shared, &heartbeats, beat, most)?;

        let (watched_files, watched) = tokio::sync::watch::channel(files);
        let reloader = Arc::new(Reloader {
            path: options.config,
            shared: Arc::clone(&shared),
            state,
            notifier: notifier.clone(),
            log,
            dropped,
            watched: watched_files,
            standing: Mutex::new(ConfigStanding::of_start(
                &start.loaded,
                clock.unix_seconds(),
                start.errors,
            )),
        });
        let (history, traffic) = (Arc::default(), Arc::default());
        let (revoker, revocations) = Revoker::new(&shared, log_of_revocations, ejector);
        let (stop_admin, admin) =
            spawn_admin(sockets.admin, revoker, &reloader, &history, &traffic);
        spawn_watchdog(notifier.clone(), heartbeats, beat);
        let sessions = spawn_tasks(&shared, &sockets.bound, &reloader, &history, &traffic);

        shared.readiness.advance(Phase::Ready);
        start::announce_ready(&notifier, &config.decision, fallback);
        Ok(Self {
            bound: sockets.bound,
            workers,
            reloader,
            watched,
            watcher,
            signals,
            notifier,
            descriptors,
            journal: journal.map(SessionJournal::start),
            sharing: revocations.into_iter().chain(sessions).collect(),
            stop_admin,
            admin,
        })
    }

    /// Acts on signals and changed files until told to stop, then drains.
    async fn serve(mut self) {
        let shared = Arc::clone(&self.reloader.shared);
        let following = Following {
            reloader: &self.reloader,
            watched: self.watched,
            watcher: self.watcher,
            workers: &self.workers,
            descriptors: self.descriptors,
        };
        let asked = Notify::new();
        tokio::select! {
            () = until_told_to_stop(&mut self.signals, &asked, &shared) => {}
            () = following.run(&asked) => {}
        }
        drain::drain(&shared, &self.notifier, &self.workers, &mut self.signals).await;
        let workers = self.workers;
        // Joining threads blocks. The workers only drop their connections now.
        let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
        let _ = self.stop_admin.send(());
        let _ = timeout(Duration::from_secs(1), self.admin).await;
        // From here on no session and no revocation changes any more.
        tokio::join!(
            drain::write_last(self.journal),
            drain::share_last(self.sharing, &shared)
        );
        shared.current.load().audit.flush(FLUSH);
        tracing::info!("stopped");
    }
}

/// Acts on signals until one asks for a stop. A reload is only asked for: a file system that hangs must not hold up the
/// stop.
async fn until_told_to_stop(signals: &mut Signals, reload: &Notify, shared: &Shared) {
    loop {
        match signals.next().await {
            Request::Terminate | Request::TerminateNow => return,
            Request::Reload => reload.notify_one(),
            Request::Reopen => shared.current.load().audit.reopen(),
        }
    }
}
