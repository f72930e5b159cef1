//! The uses of file descriptors, as series.
//!
//! Must not know: how descriptors are shared out.

use metrics::{Counter, Gauge};

use super::registrar::Registrar;
use super::{families, number};
use crate::io::descriptors::{Budgets, Shares};

/// By the `share` label's value.
#[derive(Debug)]
pub(crate) struct DescriptorMetrics {
    clients: Gauge,
    requests: SocketMetrics,
    streams: SocketMetrics,
    reserve: Gauge,
}

/// One kind of sockets to the backend.
#[derive(Debug)]
struct SocketMetrics {
    share: Gauge,
    open: Gauge,
    refused: Counter,
}

impl SocketMetrics {
    fn new(registrar: &Registrar, share: &str) -> Self {
        let labels = [("share", share)];
        Self {
            share: registrar.gauge(&families::DESCRIPTORS, &labels),
            open: registrar.gauge(&families::UPSTREAM_SOCKETS, &labels),
            refused: registrar.counter(&families::UPSTREAM_SOCKETS_REFUSED, &labels),
        }
    }
}

impl DescriptorMetrics {
    /// All 0 until known.
    pub(crate) fn new(registrar: &Registrar) -> Self {
        let share = |share| registrar.gauge(&families::DESCRIPTORS, &[("share", share)]);
        Self {
            clients: share("clients"),
            requests: SocketMetrics::new(registrar, "requests"),
            streams: SocketMetrics::new(registrar, "streams"),
            reserve: share("reserve"),
        }
    }

    /// Sets the size of each share.
    pub(crate) fn shares(&self, shares: &Shares) {
        for (gauge, share) in [
            (&self.clients, shares.clients),
            (&self.requests.share, shares.requests),
            (&self.streams.share, shares.streams),
            (&self.reserve, shares.reserve),
        ] {
            gauge.set(number(share));
        }
    }

    /// How many sockets to the backend there are, and how many requests waited for one in vain.
    pub(crate) fn sockets(&self, sockets: &Budgets) {
        for (metrics, budget) in [
            (&self.requests, &sockets.requests),
            (&self.streams, &sockets.streams),
        ] {
            metrics.open.set(number(budget.used()));
            metrics.refused.absolute(budget.refused());
        }
    }
}
