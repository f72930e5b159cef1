//! Binding the public listeners, and accepting connections until a stop.
//!
//! Keeps true: an accept loop ends at a stop and at nothing else; connections that wait in the queue of a listener are
//! accepted before it is closed.
//! Must not know: workers, HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use super::permits::{Permit, Permits};
use super::stop::Stage;
use crate::config::model::Listen;
use crate::io::transport::Transport;

/// How many connections the kernel completes before renewd accepts them; capped at `net.core.somaxconn` (4096 since
/// Linux 5.4).
const BACKLOG: i32 = 4096;

/// A dead client of a silent stream or tunnel is found after this and four probes: about four minutes in all.
const KEEP_ALIVE: Duration = Duration::from_mins(2);
const KEEP_ALIVE_PROBE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_PROBES: u32 = 4;

/// The pause after `accept` failed: without descriptors or memory it fails again until other connections end.
const PAUSE: Duration = Duration::from_millis(100);

/// Every user of the machine may connect, as to a TCP port. The directory's mode can forbid that.
const SOCKET_MODE: u32 = 0o666;

/// Where a listener can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// With the port that the kernel chose where the configuration says 0.
    Tcp(SocketAddr),
    /// The socket's path; empty for an inherited socket without a name.
    Unix(PathBuf),
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {listen}: {source}{}", bind_remedy(source))]
pub struct BindError {
    /// The listener, as configured.
    pub listen: Listen,
    /// The system's error.
    pub source: io::Error,
}

/// How an operator finds out who has the port: often the backend, which hasn't moved yet.
pub(crate) fn bind_remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; another process has it: `ss -lntxp`, as root, says which"
    } else {
        ""
    }
}

/// The bound listeners, ready to be handed to workers.
#[derive(Debug)]
pub struct BoundListeners {
    /// For each worker, its own socket of each TCP listener, with the listener's position in `server.listen`.
    pub(super) own: Vec<Vec<(usize, Acceptor)>>,
    /// Sockets that exist once, with the listener's position in `server.listen`.
    pub(super) shared: Vec<(usize, Acceptor)>,
    addresses: Vec<ListenAddress>,
}

impl BoundListeners {
    /// Binds every listener, or none. Inherited sockets are taken by name; several may have the same name.
    pub fn bind(
        listen: &[Listen],
        workers: usize,
        inherited: Vec<(String, Socket)>,
    ) -> Result<Self, BindError> {
        let mut listeners = Self {
            own: (0..workers).map(|_| Vec::new()).collect(),
            shared: Vec::new(),
            addresses: Vec::new(),
        };
        let mut inherited = inherited;
        for (position, listen) in listen.iter().enumerate() {
            let bound = match listen {
                Listen::Tcp(address) => listeners.bind_tcp(position, *address),
                Listen::Unix(path) => listeners.bind_unix(position, path),
                Listen::Systemd(name) => {
                    let (matching, others): (Vec<_>, Vec<_>) =
                        inherited.into_iter().partition(|(given, _)| given == name);
                    inherited = others;
                    if matching.is_empty() {
                        Err(missing(&inherited))
                    } else {
                        listeners.inherit(position, matching)
                    }
                }
            };
            bound.map_err(|source| BindError {
                listen: listen.clone(),
                source,
            })?;
        }
        Ok(listeners)
    }

    /// Where the listeners can be reached, in the order of `server.listen`.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    fn bind_tcp(&mut self, position: usize, address: SocketAddr) -> io::Result<()> {
        let mut address = address;
        for own in &mut self.own {
            let listener: std::net::TcpListener = open_tcp(address)?.into();
            // Port 0: the other workers take the port that the first one got.
            address = listener.local_addr()?;
            own.push((position, Acceptor::new(listener, true, None)));
        }
        self.addresses.push(ListenAddress::Tcp(address));
        Ok(())
    }

    fn bind_unix(&mut self, position: usize, path: &Path) -> io::Result<()> {
        remove_stale(path)?;
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        let inode = std::fs::metadata(path)?.ino();
        let own = Some((path.to_owned(), inode));
        self.shared
            .push((position, Acceptor::new(listener, true, own)));
        self.addresses.push(ListenAddress::Unix(path.to_owned()));
        Ok(())
    }

    fn inherit(&mut self, position: usize, sockets: Vec<(String, Socket)>) -> io::Result<()> {
        for (_, socket) in sockets {
            let address = socket.local_addr()?;
            self.addresses
                .push(if let Some(address) = address.as_socket() {
                    tune(&socket)?;
                    ListenAddress::Tcp(address)
                } else {
                    ListenAddress::Unix(address.as_pathname().unwrap_or(Path::new("")).to_owned())
                });
            self.shared
                .push((position, Acceptor::new(socket, false, None)));
        }
        Ok(())
    }
}

/// The error for a socket that the configuration names and systemd didn't pass, with what to do. A socket unit that
/// failed stays failed until it is started again, and a service that runs already gets no socket.
fn missing(others: &[(String, Socket)]) -> io::Error {
    let passed: Vec<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
    let message = if passed.is_empty() {
        "systemd passed no socket. If you use renewd.socket, run `systemctl enable renewd.socket`, then \
         `systemctl restart renewd`, which starts the socket too. Otherwise put an address into server.listen"
            .to_owned()
    } else {
        format!(
            "systemd passed no socket of that name, only `{}`. Make FileDescriptorName= of the socket unit and the \
             name in server.listen the same, then run `systemctl daemon-reload` and `systemctl restart renewd`",
            passed.join("`, `")
        )
    };
    io::Error::new(io::ErrorKind::NotFound, message)
}

fn open_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of the previous daemon may still be closing.
    socket.set_reuse_address(true)?;
    // Each worker has a queue of its own, and the kernel spreads connections over the queues.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    tune(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Sets options of a listener that its connections inherit on Linux, which saves system calls for each connection.
fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE_PROBE)
            .with_retries(KEEP_ALIVE_PROBES),
    )
}

/// Removes a socket that a daemon left behind. A socket on which a process listens stays, and binding fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // The path is free, or binding will say what is wrong with it.
        _ => Ok(()),
    }
}

/// A listening socket that no runtime knows yet.
#[derive(Debug)]
pub(super) struct Acceptor {
    socket: Socket,
    /// The socket is closed at a stop, so that its queue has to be emptied first. An inherited socket lives on in the
    /// service manager.
    closes: bool,
    /// The path to remove at a stop, if it still has this inode.
    path: Option<(PathBuf, u64)>,
}

/// A connection that was accepted, with the client's address; `None` on a unix socket.
#[derive(Debug)]
pub(super) enum AcceptedClient {
    /// The runtime that accepted the connection serves it.
    Bound(Transport, Option<SocketAddr>),
    /// Any runtime may serve the connection. The socket is nonblocking.
    Unbound(OwnedFd, Option<SocketAddr>),
}

impl AcceptedClient {
    /// Takes a connection out of the queue of a nonblocking listener.
    fn accept_now(listener: impl AsFd) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = acceptfrom_with(listener, flags)?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Ok(Self::Unbound(socket, peer))
    }

    fn address(&self) -> Option<IpAddr> {
        let (Self::Bound(_, peer) | Self::Unbound(_, peer)) = self;
        peer.map(|peer| peer.ip())
    }

    /// Takes the connection off the runtime that accepted it.
    pub(super) fn unbound(self) -> io::Result<Self> {
        Ok(match self {
            Self::Bound(Transport::Tcp(stream), peer) => {
                Self::Unbound(stream.into_std()?.into(), peer)
            }
            Self::Bound(Transport::Unix(stream), peer) => {
                Self::Unbound(stream.into_std()?.into(), peer)
            }
            accepted => accepted,
        })
    }

    /// Binds the connection to the calling runtime.
    pub(super) fn into_transport(self) -> io::Result<(Transport, Option<SocketAddr>)> {
        Ok(match self {
            Self::Bound(transport, peer) => (transport, peer),
            Self::Unbound(socket, None) => {
                let stream = UnixStream::from_std(socket.into())?;
                (Transport::Unix(stream), None)
            }
            Self::Unbound(socket, peer) => {
                let stream = TcpStream::from_std(socket.into())?;
                (Transport::Tcp(stream), peer)
            }
        })
    }
}

/// A listening socket on a runtime.
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    fn new(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if socket.local_addr()?.is_unix() {
            UnixListener::from_std(socket.into()).map(Self::Unix)
        } else {
            TcpListener::from_std(socket.into()).map(Self::Tcp)
        }
    }

    async fn accept(&self) -> io::Result<AcceptedClient> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                AcceptedClient::Bound(Transport::Tcp(stream), Some(peer))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                AcceptedClient::Bound(Transport::Unix(stream), None)
            }
        })
    }

    /// Takes a connection that waits already; an error where none does.
    fn accept_now(&self) -> io::Result<AcceptedClient> {
        match self {
            Self::Tcp(listener) => AcceptedClient::accept_now(listener),
            Self::Unix(listener) => AcceptedClient::accept_now(listener),
        }
    }
}

impl Acceptor {
    fn new(socket: impl Into<Socket>, closes: bool, path: Option<(PathBuf, u64)>) -> Self {
        Self {
            socket: socket.into(),
            closes,
            path,
        }
    }

    /// Accepts until `stage` says stop. `deliver` gets each connection with its permit; `failed` is called for each
    /// failure, and `closing` before the socket closes.
    pub(super) async fn run(
        self,
        permits: &Arc<Permits>,
        mut stage: watch::Receiver<Stage>,
        mut deliver: impl FnMut(AcceptedClient, Permit),
        failed: impl Fn(),
        closing: impl FnOnce(),
    ) -> io::Result<()> {
        let listening = Listening::new(self.socket)?;
        // One wait for all connections, so that none has to register its own. An error means that the sender of the
        // stages is gone.
        let mut stopped = pin!(stage.wait_for(|stage| *stage != Stage::Serving));
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stopped => break,
                accepted = listening.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    let address = accepted.address();
                    if let Some(permit) = permits.try_acquire(address) {
                        deliver(accepted, permit);
                        continue;
                    }
                    tokio::select! {
                        biased;
                        permit = permits.acquire(address) => deliver(accepted, permit),
                        _ = &mut stopped => {
                            deliver(accepted, permits.exceed(address));
                            break;
                        }
                    }
                }
                Err(error) => {
                    failed();
                    if !concerns_one_connection(&error) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        closing();
        if self.closes {
            while let Ok(accepted) = listening.accept_now() {
                let permit = permits.exceed(accepted.address());
                deliver(accepted, permit);
            }
        }
        if let Some((path, inode)) = self.path
            && std::fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == inode)
        {
            std::fs::remove_file(&path)?;
        }
        Ok(())
    }
}

/// Whether the client left between its handshake and `accept(2)`. The next connection is fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
