//! What happens on sockets, as metrics: the one place where the data plane's events get their names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::model::UpstreamServer;
use crate::server::stall::Cause;
use crate::server::{Event, HttpParseError};
use crate::snapshot::Shared;
use crate::telemetry::metrics::ListenerMetrics;
use crate::telemetry::traffic_labels::ParseErrorKind;
use crate::{forward, server};

/// The public listeners'.
#[derive(Debug)]
pub(crate) struct PublicObserver {
    listeners: Vec<Arc<ListenerMetrics>>,
    shared: Arc<Shared>,
}

impl PublicObserver {
    /// `listeners` in the order of `server.listen`.
    pub(crate) fn new(listeners: Vec<Arc<ListenerMetrics>>, shared: Arc<Shared>) -> Self {
        Self { listeners, shared }
    }

    fn refused(&self, kind: ParseErrorKind) {
        self.shared.metrics.parse_error(kind);
    }
}

impl server::ServerObserver for PublicObserver {
    fn observe(&self, listener: usize, event: Event) {
        let Some(listener) = self.listeners.get(listener) else {
            return;
        };
        match event {
            Event::Opened => {
                self.shared.connections.fetch_add(1, Ordering::Relaxed);
                listener.connection_opened();
            }
            Event::Closed => {
                self.shared.connections.fetch_sub(1, Ordering::Relaxed);
                listener.connection_closed();
            }
            Event::AcceptFailed => listener.accept_error(),
            Event::TunnelOpened => listener.tunnel_opened(),
            Event::TunnelClosed => listener.tunnel_closed(),
            Event::ParseFailed(HttpParseError::TooLarge) => {
                self.refused(ParseErrorKind::HeadersTooLarge);
            }
            Event::ParseFailed(HttpParseError::Http2) => self.refused(ParseErrorKind::Version),
            Event::ParseFailed(HttpParseError::Abuse) => self.refused(ParseErrorKind::Http2Abuse),
            Event::HandshakeFailed => self.refused(ParseErrorKind::TlsHandshake),
            Event::HandshakeTimedOut => self.refused(ParseErrorKind::TlsHandshakeTimeout),
            Event::ParseFailed(HttpParseError::Malformed) => {
                self.refused(ParseErrorKind::Malformed);
            }
            Event::TimedOut(Cause::Header) => self.refused(ParseErrorKind::HeaderTimeout),
            // An idle connection's end is no event for anybody; a stalled body or reader ends a request, which is counted.
            Event::TimedOut(_) | Event::Slept => {}
        }
    }
}

/// The backend's.
#[derive(Debug)]
pub(crate) struct Upstreams {
    shared: Arc<Shared>,
}

impl Upstreams {
    /// For one worker.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl forward::ForwardObserver for Upstreams {
    fn retried(&self, server: &UpstreamServer) {
        self.shared.metrics.upstream(&server.name).retry();
    }
}
