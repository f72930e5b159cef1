//! The admin socket and its connections.
//!
//! Keeps true: the number, time and size of connections are bounded, and a probe always gets a connection: the oldest
//! connection without a request is closed for it, and other requests can't use up all connections. A failed accept
//! never ends the loop. A unix socket never has a wider mode than 0660, and the socket of a running daemon is never
//! replaced.
//! Must not know: what is answered.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fs, os};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::guard::Entrance;
use super::respond::{self, AdminResponse};
use super::{DaemonView, routes};
use crate::config::model::Listen;
use crate::io::transport::Transport;

/// Requests at once. A scraper and an operator use a handful.
const MAX_REQUESTS: usize = 64;

/// Connections in addition to [`MAX_REQUESTS`], for the requests of probes.
const PROBES: usize = 8;

/// How long a header section may take. Clients are near.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection, which serves one request, may take: longer than any reload.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest header section.
const HEADER_BYTES: usize = 16 * 1024;

/// How long stopping waits for unfinished answers.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a failed accept: out of descriptors, some have to be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin socket that doesn't serve yet.
#[derive(Debug)]
pub struct AdminListener(AdminSocket);

#[derive(Debug)]
enum AdminSocket {
    Tcp(TcpListener, SocketAddr),
    Unix {
        listener: UnixListener,
        /// Removes the file when it is dropped.
        _file: SocketFile,
    },
}

/// Binds `admin.listen`; fails with the system's error. Must be called on a tokio runtime.
pub fn bind(listen: &Listen) -> io::Result<AdminListener> {
    match listen {
        Listen::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let address = listener.local_addr()?;
            Ok(AdminListener(AdminSocket::Tcp(listener, address)))
        }
        Listen::Unix(path) => {
            let (listener, file) = SocketFile::bind(path)?;
            let listener = UnixListener::from_std(listener)?;
            Ok(AdminListener(AdminSocket::Unix {
                listener,
                _file: file,
            }))
        }
        Listen::Systemd(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the admin listener is an address or a unix socket",
        )),
    }
}

impl AdminListener {
    /// Where it listens, with the port that port 0 became; `None` for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            AdminSocket::Tcp(_, address) => Some(*address),
            AdminSocket::Unix { .. } => None,
        }
    }

    /// Serves until `stop` is ready, then finishes the answers that have begun.
    pub async fn serve(self, daemon: Arc<dyn DaemonView>, stop: impl Future<Output = ()>) {
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        let mut connections = JoinSet::new();
        let mut open = AdminConnections::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            while connections.try_join_next().is_some() {}
            let next = async {
                while !open.have_room() {
                    connections.join_next().await;
                }
                self.0.accept().await
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = next => accepted,
            };
            let context = AdminContext {
                daemon: Arc::clone(&daemon),
                requests: Arc::clone(&requests),
                taken: Arc::default(),
            };
            let taken = Arc::clone(&context.taken);
            match accepted {
                Ok((transport, entrance)) => {
                    let task = connections.spawn(connection(transport, entrance, context));
                    open.0.push(AdminConnection { task, taken });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection on the admin listener");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let finished = async { while connections.join_next().await.is_some() {} };
        // Connections that take longer are closed: stopping must not wait for a client of the admin listener.
        let _ = timeout(STOP_TIMEOUT, finished).await;
    }
}

impl AdminSocket {
    async fn accept(&self) -> io::Result<(Transport, Entrance)> {
        match self {
            Self::Tcp(listener, address) => {
                let (stream, _) = listener.accept().await?;
                Ok((Transport::Tcp(stream), Entrance::Tcp(address.ip())))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Transport::Unix(stream), Entrance::Unix))
            }
        }
    }
}

/// The open connections, the oldest first.
#[derive(Default)]
struct AdminConnections(Vec<AdminConnection>);

struct AdminConnection {
    task: AbortHandle,
    taken: Arc<Taken>,
}

/// Set when a connection's request has arrived; holds the permit of a request that isn't a probe's.
type Taken = OnceLock<Option<OwnedSemaphorePermit>>;

impl AdminConnections {
    /// Whether one more connection fits. The oldest connection without a request is closed for it.
    fn have_room(&mut self) -> bool {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() < MAX_REQUESTS + PROBES {
            return true;
        }
        let silent = self
            .0
            .iter()
            .position(|connection| connection.taken.get().is_none());
        let Some(silent) = silent else {
            return false;
        };
        self.0.remove(silent).task.abort();
        true
    }
}

/// The parts of the listener that a connection needs to answer its request.
struct AdminContext {
    daemon: Arc<dyn DaemonView>,
    requests: Arc<Semaphore>,
    taken: Arc<Taken>,
}

impl AdminContext {
    async fn answer(&self, entrance: Entrance, request: Request<Incoming>) -> AdminResponse {
        let permit = if routes::is_probe(request.uri().path()) {
            None
        } else {
            match Arc::clone(&self.requests).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return respond::overloaded(),
            }
        };
        // A connection has one request, so this was not set before.
        let _ = self.taken.set(permit);
        routes::handle(Arc::clone(&self.daemon), entrance, request).await
    }

    /// Completes when the connection has taken too long.
    async fn late(&self) {
        sleep(HEADER_TIMEOUT).await;
        if self.taken.get().is_some() {
            sleep(CONNECTION_TIMEOUT.saturating_sub(HEADER_TIMEOUT)).await;
        }
    }
}

async fn connection(transport: Transport, entrance: Entrance, context: AdminContext) {
    let service = service_fn(|request| async {
        Ok::<_, Infallible>(context.answer(entrance, request).await)
    });
    // With one request a connection the deadlines hold for the connection, and no connection is idle.
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_header_size(HEADER_BYTES)
        .max_headers(64)
        .serve_connection(TokioIo::new(transport), service);
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "an admin connection failed");
        },
        () = context.late() => tracing::debug!("an admin connection took too long"),
    }
}

/// The socket's file. Dropping this removes the file, unless another socket has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn bind(path: &Path) -> io::Result<(os::unix::net::UnixListener, Self)> {
        if os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        // The socket has another name until its mode is set, and then replaces what a crash may have left in one
        // step.
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push("~");
        let unfinished = PathBuf::from(unfinished);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = os::unix::net::UnixListener::bind(&unfinished)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o660))?;
        let inode = fs::symlink_metadata(&unfinished)?.ino();
        fs::rename(&unfinished, path)?;
        let path = path.to_owned();
        Ok((listener, Self { path, inode }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let unchanged = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if unchanged {
            // A file that stays does no harm: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
