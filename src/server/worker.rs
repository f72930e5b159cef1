//! One thread per core, each with its own runtime, listeners and connections.
//!
//! Keeps true: a connection stays on the worker that got it; this module shares nothing between workers but the
//! permits, the count of connections, the observer and the stage of a stop. What services share is the caller's
//! choice (`snapshot::Shared`).
//! Must not know: what a request means, when a stop's stages come.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use super::h1::connection::serve;
use super::listen::{AcceptedClient, Acceptor, BoundListeners};
use super::permits::{Permit, Permits, Running};
use super::stop::{Stage, Stop};
use super::{Event, ServerObserver};
use crate::exchange::{Connection, PublicService};

/// The running workers. Dropping them cuts every connection.
#[derive(Debug)]
pub struct Workers {
    stage: watch::Sender<Stage>,
    permits: Arc<Permits>,
    threads: Vec<JoinHandle<()>>,
}

/// A connection on its way from a shared listener to a worker.
struct Handoff {
    accepted: AcceptedClient,
    listener: usize,
    permit: Permit,
}

/// A worker, as the accept loops of shared listeners see it.
#[derive(Clone)]
struct Destination {
    handoffs: mpsc::UnboundedSender<Handoff>,
    load: Arc<AtomicUsize>,
}

/// The state that all workers share.
#[derive(Clone)]
struct Common {
    stage: watch::Receiver<Stage>,
    permits: Arc<Permits>,
    observer: Arc<dyn ServerObserver>,
    /// The number of the next connection.
    numbers: Arc<AtomicU64>,
}

impl Workers {
    /// Starts as many workers as `listeners` were bound for. `make_service` is called on each worker's thread with the
    /// worker's number. The accept loops of listeners that exist once run on `control`.
    pub fn start<S: PublicService>(
        listeners: BoundListeners,
        max_connections: usize,
        control: &Handle,
        observer: Arc<dyn ServerObserver>,
        make_service: impl Fn(usize) -> Rc<S> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (stage, receiver) = watch::channel(Stage::Serving);
        let permits = Permits::new(max_connections);
        let common = Common {
            stage: receiver,
            permits: permits.clone(),
            observer,
            numbers: Arc::default(),
        };
        let make_service = Arc::new(make_service);
        let mut threads = Vec::new();
        let mut destinations = Vec::new();
        for (index, own) in listeners.own.into_iter().enumerate() {
            let (handoffs, receiver) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            destinations.push(Destination {
                handoffs,
                load: load.clone(),
            });
            // The accept loops count from here, so that a stop which comes before the threads have started waits for
            // them.
            let own = own
                .into_iter()
                .map(|(listener, acceptor)| (listener, acceptor, permits.acceptor()))
                .collect();
            let common = common.clone();
            let make_service = make_service.clone();
            let (built, building) = sync_channel(1);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || match runtime() {
                    Ok(runtime) => {
                        // `start` waits for this message.
                        let _ = built.send(Ok(()));
                        run(&runtime, own, receiver, load, common, || {
                            make_service(index)
                        });
                    }
                    Err(error) => {
                        let _ = built.send(Err(error));
                    }
                })?;
            threads.push(thread);
            building.recv().map_err(io::Error::other)??;
        }
        for (listener, acceptor) in listeners.shared {
            let (acceptor, destinations) = ((acceptor, permits.acceptor()), destinations.clone());
            let deliver = move |handoff| deliver_to_idlest(&destinations, handoff);
            control.spawn(accept(listener, acceptor, common.clone(), deliver, || {}));
        }
        Ok(Self {
            stage,
            permits,
            threads,
        })
    }

    /// Open client connections, sleeping ones and tunnels included.
    pub fn connections(&self) -> usize {
        self.permits.used()
    }

    /// Changes `server.max_connections` for connections to come.
    pub fn set_max_connections(&self, limit: usize) {
        self.permits.set_limit(limit);
    }

    /// Stops accepting, closes idle connections, lets requests finish.
    pub fn begin_drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Ends tunnels and event streams, which may last for days.
    pub fn end_tunnels(&self) {
        self.advance(Stage::EndingTunnels);
    }

    /// Ready when every connection has ended after [`Workers::begin_drain`].
    pub async fn drained(&self) {
        self.permits.empty().await;
    }

    /// Cuts the connections that are left, and waits for the threads to end.
    pub fn stop(mut self) {
        self.advance(Stage::Aborting);
        for thread in self.threads.drain(..) {
            // A worker that panicked has nothing left to cut.
            let _ = thread.join();
        }
    }

    fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|current| {
            let forward = stage > *current;
            if forward {
                *current = stage;
            }
            forward
        });
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.advance(Stage::Aborting);
    }
}

/// A worker's runtime, to be built on the worker's thread. A `LocalSet` within another runtime would queue each task
/// twice, which costs a tenth of a forwarded request (<https://github.com/tokio-rs/tokio/issues/6739>).
fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// A worker's thread.
fn run<S: PublicService>(
    runtime: &LocalRuntime,
    own: Vec<(usize, Acceptor, Running)>,
    mut handoffs: mpsc::UnboundedReceiver<Handoff>,
    load: Arc<AtomicUsize>,
    common: Common,
    make_service: impl FnOnce() -> Rc<S>,
) {
    runtime.block_on(async move {
        let worker = Rc::new(Worker {
            service: make_service(),
            stop: Rc::default(),
            load,
            common,
        });
        for (listener, acceptor, running) in own {
            let (accepting, common) = (worker.clone(), worker.common.clone());
            let stopping = worker.clone();
            let deliver = move |handoff| {
                accepting.open(handoff);
                Ok(())
            };
            // A client that finds the port closed must find the stop announced in the next response, too.
            let closing = move || stopping.stop.advance(*stopping.common.stage.borrow());
            spawn_local(accept(
                listener,
                (acceptor, running),
                common,
                deliver,
                closing,
            ));
        }
        let receiving = worker.clone();
        spawn_local(async move {
            while let Some(handoff) = handoffs.recv().await {
                receiving.open(handoff);
            }
        });
        let mut stage = worker.common.stage.clone();
        loop {
            let current = *stage.borrow_and_update();
            worker.stop.advance(current);
            if current == Stage::Aborting || stage.changed().await.is_err() {
                return;
            }
        }
    });
    // Dropping the runtime drops every task that is left, and with the tasks their sockets.
}

struct Worker<S> {
    service: Rc<S>,
    stop: Rc<Stop>,
    load: Arc<AtomicUsize>,
    common: Common,
}

impl<S: PublicService> Worker<S> {
    fn open(&self, handoff: Handoff) {
        let Handoff {
            accepted,
            listener,
            permit,
        } = handoff;
        let observer = &self.common.observer;
        let Ok((transport, peer)) = accepted.into_transport() else {
            // The runtime couldn't take the socket; it is closed.
            observer.observe(listener, Event::AcceptFailed);
            return;
        };
        let connection = Connection {
            number: self.common.numbers.fetch_add(1, Ordering::Relaxed),
            peer,
            nameless: false,
            listener,
            tls: false,
        };
        self.load.fetch_add(1, Ordering::Relaxed);
        observer.observe(listener, Event::Opened);
        let open = OpenConnection {
            load: self.load.clone(),
            observer: observer.clone(),
            listener,
            permit,
        };
        let (service, stop) = (self.service.clone(), self.stop.clone());
        spawn_local(serve(
            transport,
            connection,
            service,
            stop,
            observer.clone(),
            open,
        ));
    }
}

/// Accepts from one listener until a stop. `deliver` gets each connection; `closing` is called before the listener
/// closes.
async fn accept(
    listener: usize,
    (acceptor, _running): (Acceptor, Running),
    common: Common,
    deliver: impl Fn(Handoff) -> io::Result<()>,
    closing: impl FnOnce(),
) {
    let failed = || common.observer.observe(listener, Event::AcceptFailed);
    let accepted = |accepted, permit| {
        let handoff = Handoff {
            accepted,
            listener,
            permit,
        };
        if deliver(handoff).is_err() {
            failed();
        }
    };
    let ended = acceptor.run(
        &common.permits,
        common.stage.clone(),
        accepted,
        failed,
        closing,
    );
    if ended.await.is_err() {
        failed();
    }
}

/// Gives a connection to the worker with the fewest.
fn deliver_to_idlest(destinations: &[Destination], mut handoff: Handoff) -> io::Result<()> {
    handoff.accepted = handoff.accepted.unbound()?;
    let load = |destination: &&Destination| destination.load.load(Ordering::Relaxed);
    if let Some(idlest) = destinations.iter().min_by_key(load) {
        // Sending fails only when that worker is gone, and every other one with it.
        let _ = idlest.handoffs.send(handoff);
    }
    Ok(())
}

/// Counts a connection while it is open.
struct OpenConnection {
    load: Arc<AtomicUsize>,
    observer: Arc<dyn ServerObserver>,
    listener: usize,
    permit: Permit,
}

impl AsRef<Permit> for OpenConnection {
    fn as_ref(&self) -> &Permit {
        &self.permit
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.observer.observe(self.listener, Event::Closed);
    }
}
