//! The admin socket and its connections.
//!
//! Keeps true: connections, their time and their size are bounded, and a probe finds a place however many there are: one
//! without a request makes room, and other requests don't take all places. A failed accept never ends the loop; a unix
//! socket is never there with a wider mode than 0660, and a live daemon's is never taken away.

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

/// Connections that only a probe's request may be on, besides.
const PROBES: usize = 8;

/// For the header section. Who asks here is near.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// For a whole connection, which serves one request: above any reload, below what makes 64 of them a siege.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What hyper buffers of a request: its header section's limit.
const HEADER_BYTES: usize = 16 * 1024;

/// How long answers under way are waited for when stopping.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Out of descriptors: wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin socket, not yet serving.
#[derive(Debug)]
pub struct AdminListener(AdminSocket);

#[derive(Debug)]
enum AdminSocket {
    Tcp(TcpListener, SocketAddr),
    Unix {
        listener: UnixListener,
        /// Held for its drop.
        _file: SocketFile,
    },
}

/// Binds `admin.listen`. Must be called on a tokio runtime.
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

    /// Serves until `stop` is ready, then finishes the answers under way.
    pub async fn serve(self, daemon: Arc<dyn DaemonView>, stop: impl Future<Output = ()>) {
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        let mut connections = JoinSet::new();
        let mut guests = Guests::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            while connections.try_join_next().is_some() {}
            let next = async {
                while !guests.have_room() {
                    connections.join_next().await;
                }
                self.0.accept().await
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = next => accepted,
            };
            let place = AdminPlace {
                daemon: Arc::clone(&daemon),
                requests: Arc::clone(&requests),
                taken: Arc::default(),
            };
            let taken = Arc::clone(&place.taken);
            match accepted {
                Ok((transport, entrance)) => {
                    let task = connections.spawn(connection(transport, entrance, place));
                    guests.0.push(Guest { task, taken });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let finished = async { while connections.join_next().await.is_some() {} };
        // Whatever takes longer is cut: nobody waits for an admin client.
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
struct Guests(Vec<Guest>);

struct Guest {
    task: AbortHandle,
    taken: Arc<Taken>,
}

/// Set when a connection's request is there; what is inside is held for a request that isn't a probe's.
type Taken = OnceLock<Option<OwnedSemaphorePermit>>;

impl Guests {
    /// Whether one more may come; the oldest without a request is sent away for it.
    fn have_room(&mut self) -> bool {
        self.0.retain(|guest| !guest.task.is_finished());
        if self.0.len() < MAX_REQUESTS + PROBES {
            return true;
        }
        let silent = self.0.iter().position(|guest| guest.taken.get().is_none());
        let Some(silent) = silent else {
            return false;
        };
        self.0.remove(silent).task.abort();
        true
    }
}

/// What a connection is given.
struct AdminPlace {
    daemon: Arc<dyn DaemonView>,
    requests: Arc<Semaphore>,
    taken: Arc<Taken>,
}

impl AdminPlace {
    async fn answer(&self, entrance: Entrance, request: Request<Incoming>) -> AdminResponse {
        let permit = if routes::is_probe(request.uri().path()) {
            None
        } else {
            match Arc::clone(&self.requests).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return respond::overloaded(),
            }
        };
        // One request a connection: nothing was there.
        let _ = self.taken.set(permit);
        routes::handle(Arc::clone(&self.daemon), entrance, request).await
    }

    /// Ready when a connection has taken too long.
    async fn late(&self) {
        sleep(HEADER_TIMEOUT).await;
        if self.taken.get().is_some() {
            sleep(CONNECTION_TIMEOUT.saturating_sub(HEADER_TIMEOUT)).await;
        }
    }
}

async fn connection(transport: Transport, entrance: Entrance, place: AdminPlace) {
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(place.answer(entrance, request).await) });
    // One request a connection: its deadline is then the connection's, and idle ones don't exist.
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_header_size(HEADER_BYTES)
        .max_headers(64)
        .serve_connection(TokioIo::new(transport), service);
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "an admin connection broke");
        },
        () = place.late() => tracing::debug!("an admin connection took too long"),
    }
}

/// The socket's file, removed when dropped if it is still ours.
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
        // Under another name until its mode is right, then in one step in the place of whatever a crash left there.
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
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if ours {
            // Best effort: the next start replaces it anyway.
            let _ = fs::remove_file(&self.path);
        }
    }
}
