//! The access log: one line a request, while `log.access` is on.
//!
//! Keeps true: no query and no header is written (both carry credentials); the path is cut and escaped.
//! Must not know: how a request was answered.

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, StatusCode};

use super::escape::bounded;
use super::labels::Handler;
use super::log::ACCESS;
use crate::terms::context::RequestId;
use crate::terms::labels::labels;

/// Bytes kept of a path.
const PATH_LIMIT: usize = 1024;

labels! {
    /// How a request ended.
    pub enum Ended {
        /// The whole response was written.
        Complete => "complete",
        /// The client left before the response was complete.
        ClientGone => "client_gone",
        /// The backend broke off before the response was complete.
        UpstreamBroke => "upstream_broke",
        /// A tunnel was opened, and has closed.
        Tunnel => "tunnel",
    }
}

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct AccessLogEntry<'a> {
    /// The `x-request-id`.
    pub request_id: &'a RequestId,
    /// The client, where known.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: &'a Method,
    /// The target as sent; everything from `?` or `#` is left out.
    pub target: &'a str,
    /// The response's status, if one was begun.
    pub status: Option<StatusCode>,
    /// Bytes of response body handed to the connection.
    pub bytes: u64,
    /// From the header section to the end.
    pub duration: Duration,
    /// The part of renewd that answered.
    pub handler: Handler,
    /// How it ended.
    pub ended: Ended,
}

/// Writes the line.
pub fn record(entry: &AccessLogEntry<'_>) {
    tracing::info!(
        target: ACCESS,
        request_id = entry.request_id.as_str(),
        client = entry.client.map(tracing::field::display),
        method = bounded(entry.method.as_str(), 32).0,
        path = path(entry.target),
        status = entry.status.map(|status| status.as_u16()),
        bytes = entry.bytes,
        duration_us = u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX),
        handler = entry.handler.as_str(),
        ended = entry.ended.as_str(),
    );
}

fn path(target: &str) -> &str {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let (path, _) = bounded(target.get(..end).unwrap_or_default(), PATH_LIMIT);
    match path.split_once("://") {
        // An absolute-form target may carry a password in its authority; its path is all that matters here.
        Some((_, rest)) if !path.starts_with('/') => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_query_no_fragment_and_no_authority() {
        assert_eq!(path("/a?token=007secret"), "/a");
        assert_eq!(path("/a#token"), "/a");
        assert_eq!(path("http://user:password@host/a?b"), "/a");
        assert_eq!(path("http://user:password@host"), "/");
        assert_eq!(path("/redirect/http://x/y"), "/redirect/http://x/y");
        assert_eq!(path(&"/".repeat(5000)).len(), PATH_LIMIT);
    }
}
