//! A new connection to one server: the backend's, for requests and health checks, or a source's.
//!
//! Keeps true: connecting takes no longer than its limit, name resolution, all addresses and a TLS handshake included.
//! Must not know: HTTP, pools, what is known of the server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::tls::Trust;
use super::transport::Transport;
use crate::config::model::{UpstreamScheme, UpstreamServer};
use crate::terms::clock::timer_now;

/// Connects within `limit`. `trust` verifies https:// servers.
pub(crate) async fn connect(
    server: &UpstreamServer,
    trust: Option<&Trust>,
    limit: Duration,
) -> io::Result<Transport> {
    let connected = timeout(limit, async {
        match &server.scheme {
            UpstreamScheme::Unix(path) => UnixStream::connect(path).await.map(Transport::Unix),
            UpstreamScheme::Http => tcp(server, limit).await.map(Transport::Tcp),
            UpstreamScheme::Https => {
                let trust = trust.ok_or(io::ErrorKind::Unsupported)?;
                let stream = tcp(server, limit).await?;
                trust.connect(&server.host, Transport::Tcp(stream)).await
            }
        }
    });
    match connected.await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Tries every address. Each gets an equal share of the time that is left, so that a silent first address leaves some.
async fn tcp(server: &UpstreamServer, limit: Duration) -> io::Result<TcpStream> {
    let due = timer_now() + limit;
    let addresses: Vec<SocketAddr> = match server.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, server.port)],
        Err(_) => tokio::net::lookup_host((server.host.as_str(), server.port))
            .await?
            .collect(),
    };
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in addresses.iter().enumerate() {
        let left = due.saturating_duration_since(timer_now());
        let share = u32::try_from(addresses.len() - tried).map_or(left, |count| left / count);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Failing to set it costs latency, not correctness.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(refused)) => error = refused,
            Err(_) => error = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(error)
}
