//! Builds the running parts out of a configuration: what is shared, the sockets, the workers.
//!
//! Keeps true: every socket is bound before a worker starts; a worker is given everything that it needs at its start.
//! Must not know: what the parts do once they run.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::observer::PublicObserver as ListenerEvents;
use super::systemd::{Heartbeats, PassedSockets};
use super::{BoundAddresses, RunError, files, reload};
use crate::admin::{self, AdminListener};
use crate::config::ConfigErrors;
use crate::config::model::Config;
use crate::forward::Forwarder;
use crate::io::descriptors::Shares;
use crate::server::listen::{BoundListeners, ListenAddress};
use crate::server::service::WorkerService;
use crate::server::worker::Workers;
use crate::snapshot::{Control, Shared, Snapshot};
use crate::telemetry::audit::Audit;
use crate::telemetry::line_writer::DropCounter;
use crate::telemetry::metrics::Metrics;
use crate::terms::clock::{Clock, Entropy};

/// The first snapshot, and what outlives it.
pub(crate) fn shared(
    config: &Config,
    path: &Path,
    metrics: &Arc<Metrics>,
    clock: &Clock,
    dropped: &DropCounter,
    shares: &Shares,
) -> Result<Arc<Shared>, RunError> {
    let audit = Audit::open(&config.log.audit, clock.clone(), dropped.clone())
        .map_err(|error| RunError::Configuration(reload::audit_errors(path, &error)))?;
    let streams = files::streams(config);
    let control = Control::on(Handle::current());
    let snapshot = Snapshot::build(
        config.clone(),
        streams,
        Arc::new(audit),
        None,
        metrics,
        clock,
        &control,
    )
    .map_err(|error| {
        RunError::Configuration(ConfigErrors::of_file(
            path,
            error.to_string(),
            "see [agora] and [server.tls]",
        ))
    })?;
    if snapshot.store.is_some() {
        snapshot.revocations.expect_others();
    }
    let (clock, metrics) = (clock.clone(), Arc::clone(metrics));
    Ok(Arc::new(Shared::new(
        snapshot, clock, metrics, control, shares,
    )))
}

/// Bound sockets that no worker accepts from yet.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// `server.listen`.
    pub public: BoundListeners,
    /// `admin.listen`.
    pub admin: AdminListener,
    /// Where they can be reached.
    pub bound: BoundAddresses,
}

/// Binds `server.listen` and `admin.listen`, and logs where.
pub fn bind(config: &Config, inherited: PassedSockets) -> Result<Sockets, RunError> {
    let inherited = inherited.into_iter().flat_map(|(name, listeners)| {
        listeners
            .into_iter()
            .map(move |listener| (name.clone(), listener))
    });
    let public = BoundListeners::bind(
        &config.server.listen,
        config.server.workers,
        inherited.collect(),
    )?;
    let admin = admin::bind(&config.admin.listen).map_err(|source| RunError::Admin {
        listen: config.admin.listen.clone(),
        source,
    })?;
    let names = config.server.listener_names().enumerate();
    for ((position, listener), address) in names.zip(public.addresses()) {
        tracing::info!(
            listener,
            address = shown(address),
            tls = config.server.is_tls(position),
            "listening"
        );
    }
    if let Some(address) = admin.address() {
        tracing::info!(%address, "admin listening");
    } else {
        tracing::info!(listener = %config.admin.listen, "admin listening");
    }
    let bound = BoundAddresses {
        public: public.addresses().iter().filter_map(tcp).collect(),
        admin: admin.address(),
    };
    Ok(Sockets {
        public,
        admin,
        bound,
    })
}

/// Starts the workers on the bound sockets; each beats for the watchdog every `beat`.
pub(crate) fn workers(
    config: &Config,
    sockets: BoundListeners,
    shared: &Arc<Shared>,
    heartbeats: &Heartbeats,
    beat: Duration,
    most_connections: usize,
) -> Result<Workers, RunError> {
    let listeners: Vec<_> = config
        .server
        .listener_names()
        .map(|name| shared.metrics.listener(&name))
        .collect();
    let observer = Arc::new(ListenerEvents::new(listeners.clone(), Arc::clone(shared)));
    let seeds = seeds(config.server.workers)?;
    let (shared, heartbeats) = (Arc::clone(shared), heartbeats.clone());
    let make_service = move |index| {
        tokio::task::spawn_local(heartbeats.clone().keep(index, beat));
        let forwarder = Forwarder::new(shared.sockets.clone());
        let seed = seeds.get(index).copied().unwrap_or_default();
        Rc::new(WorkerService::new(
            Arc::clone(&shared),
            forwarder,
            listeners.clone(),
            seed,
        ))
    };
    Ok(Workers::start(
        sockets,
        most_connections,
        &Handle::current(),
        observer,
        make_service,
    )?)
}

/// Random seeds for the workers' request ids.
fn seeds(workers: usize) -> Result<Vec<[u64; 2]>, std::io::Error> {
    let number = || Entropy::System.u64().map_err(std::io::Error::other);
    (0..workers).map(|_| Ok([number()?, number()?])).collect()
}

fn tcp(address: &ListenAddress) -> Option<SocketAddr> {
    match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    }
}

fn shown(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
