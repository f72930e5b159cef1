//! Checks the backend's servers on the control plane: sends health checks where they are configured, and connects to
//! each server that refused a connection, so that its return is noticed.
//!
//! Keeps true: one check of a server runs at a time, however many workers there are; a server that doesn't answer is
//! checked less and less often while another one serves.
//! Must not know: which server a request goes to.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::doubled;
use crate::config::model::{HealthCheck, Upstream, UpstreamServer};
use crate::forward::servers::Backend;
use crate::io::connect::connect;
use crate::io::transport::Transport;
use crate::snapshot::{Shared, Snapshot};

/// How often the task looks for servers whose check is due.
const TURN: Duration = Duration::from_millis(100);

/// From a refused connection to the first try.
const FIRST: Duration = Duration::from_secs(1);

/// From one try to the next at most.
const LONGEST: Duration = Duration::from_secs(8);

/// The least time that a check gives a server to answer. A shorter interval only makes checks more frequent.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// Runs until the runtime ends.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watches: Vec<Watch> = Vec::new();
    loop {
        turns.tick().await;
        let snapshot = shared.current.load_full();
        let now = shared.clock.elapsed();
        watches.retain(|watch| watch.backend.strong_count() > 0);
        for backend in snapshot.backends.all() {
            let known = watches.iter_mut().find(|watch| watch.is_for(backend));
            let watch = match known {
                Some(watch) => watch,
                None => watches.push_mut(Watch::new(backend, now)),
            };
            watch.turn(backend, &snapshot, now);
        }
    }
}

/// One server's next check.
#[derive(Debug)]
struct Watch {
    /// Weak, so that a removed server and its series are dropped.
    backend: Weak<Backend>,
    /// On the clock's monotonic scale.
    due: Duration,
    /// Checks in a row that found no connection.
    failures: u32,
    running: Option<JoinHandle<()>>,
}

impl Watch {
    fn new(backend: &Arc<Backend>, now: Duration) -> Self {
        Self {
            backend: Arc::downgrade(backend),
            due: now,
            failures: 0,
            running: None,
        }
    }

    fn is_for(&self, backend: &Arc<Backend>) -> bool {
        std::ptr::eq(self.backend.as_ptr(), Arc::as_ptr(backend))
    }

    fn turn(&mut self, backend: &Arc<Backend>, snapshot: &Snapshot, now: Duration) {
        let upstream = &snapshot.config.upstream;
        if self
            .running
            .as_ref()
            .is_some_and(|running| !running.is_finished())
        {
            return;
        }
        if self.running.take().is_some() {
            self.due = now + self.pause(backend, snapshot);
        }
        if upstream.health.is_none() {
            // The server may have failed its last check before checks were switched off.
            backend.checked(Ok(()));
            if backend.reachable() {
                self.failures = 0;
                self.due = now + FIRST;
                return;
            }
        }
        if !backend.reachable() && self.failures == 0 {
            self.due = self.due.min(now + FIRST);
        }
        if now >= self.due {
            let check = check(backend, upstream);
            self.running = Some(tokio::spawn(check));
        }
    }

    fn pause(&mut self, backend: &Backend, snapshot: &Snapshot) -> Duration {
        let health = snapshot.config.upstream.health.as_ref();
        if backend.reachable() {
            self.failures = 0;
            return health.map_or(FIRST, |health| health.interval);
        }
        self.failures = self.failures.saturating_add(1);
        if snapshot.backends.reachable() {
            doubled(FIRST, self.failures - 1, LONGEST)
        } else {
            // No server is reachable, so the next try must come soon.
            FIRST
        }
    }
}

/// Connects to the server, and sends a health check where one is configured.
fn check(backend: &Arc<Backend>, upstream: &Upstream) -> impl Future<Output = ()> + Send + 'static {
    let (server, trust) = (backend.server.clone(), backend.trust.clone());
    let backend = Arc::downgrade(backend);
    let limit = upstream.connect_timeout;
    let health = upstream.health.clone();
    async move {
        let transport = match connect(&server, trust.as_ref(), limit).await {
            Ok(transport) => transport,
            Err(error) => {
                if let Some(backend) = backend.upgrade() {
                    backend.refused(&error);
                }
                return;
            }
        };
        if let Some(backend) = backend.upgrade() {
            backend.connected();
        }
        let Some(health) = health else { return };
        let patience = health.interval.max(LEAST_PATIENCE);
        let result = timeout(patience, ask(transport, &server, &health))
            .await
            .unwrap_or(Err(Unwell::Silent));
        if let Some(backend) = backend.upgrade() {
            match &result {
                Ok(()) => backend.checked(Ok(())),
                Err(unwell) => backend.checked(Err(unwell)),
            }
        }
    }
}

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
enum Unwell {
    #[error("no answer in time")]
    Silent,
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Connection(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
}

async fn ask(
    transport: Transport,
    server: &UpstreamServer,
    health: &HealthCheck,
) -> Result<(), Unwell> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(health.path.as_str())
        .header(HOST, server.authority())
        .header(USER_AGENT, "renewd")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await;
    // The body doesn't matter.
    driver.abort();
    let status = response?.status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Unwell::Status(status))
    }
}
