//! Counts the data plane's events.
//!
//! Keeps true: the open connections are counted once for the process and once for their listener.
//! Must not know: how a connection is served.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::server::stall::Cause;
use crate::server::{self, Event};
use crate::snapshot::Shared;
use crate::telemetry::metrics::ListenerMetrics;
use crate::telemetry::traffic_labels::ParseErrorKind;

/// Counts the events of the public listeners.
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
            Event::ParseFailed(kind) => self.shared.metrics.parse_error(kind),
            Event::TimedOut(Cause::Header) => {
                self.shared
                    .metrics
                    .parse_error(ParseErrorKind::HeaderTimeout);
            }
            // The end of an idle connection is not counted. A stalled body or reader ends a request, which is counted.
            Event::TimedOut(_) | Event::Slept => {}
        }
    }
}
