//! The entry of one request in the metrics and the access log: written exactly once, when its response has ended or
//! it is dropped.
//!
//! Keeps true: a record holds metric handles and the clock, never the snapshot (requests of a thousand reloads would
//! keep a thousand snapshots alive).
//! Must not know: how a request is answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Uri};

use crate::config::model::Log;
use crate::exchange::response_body::{Ending, RequestBody, ResponseBody};
use crate::snapshot::Shared;
use crate::telemetry::access_log::{self, Ended};
use crate::telemetry::labels::Handler;
use crate::terms::context::{RequestContext, RequestId};

/// Counts on [`RequestTally::attach`]'s body, or on drop where there never was a response.
pub(crate) struct RequestTally(Option<RequestRecord>);

struct RequestRecord {
    shared: Arc<Shared>,
    started: Duration,
    method: Method,
    handler: Handler,
    status: Option<StatusCode>,
    /// Boxed, since the log is mostly off and a record is moved a few times.
    access: Option<Box<Access>>,
}

struct Access {
    id: RequestId,
    client: Option<IpAddr>,
    target: Uri,
}

impl RequestTally {
    /// Begins with the request.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        log: &Log,
        context: &RequestContext,
        request: &Request<RequestBody>,
    ) -> Self {
        Self(Some(RequestRecord {
            shared: Arc::clone(shared),
            started: context.started,
            method: request.method().clone(),
            handler: Handler::Forward,
            status: None,
            access: log.access.then(|| {
                Box::new(Access {
                    id: context.id.clone(),
                    client: context.client_ip,
                    target: request.uri().clone(),
                })
            }),
        }))
    }

    /// Gives the record to the response's body, which counts the request at its end.
    pub(crate) fn attach(
        mut self,
        handler: Handler,
        mut response: Box<Response<ResponseBody>>,
    ) -> Box<Response<ResponseBody>> {
        let Some(mut record) = self.0.take() else {
            return response;
        };
        record.handler = handler;
        record.status = Some(response.status());
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        response.body_mut().on_finish(Box::new(move |finished| {
            let ended = match finished.ending {
                Ending::Complete if switched => Ended::Tunnel,
                Ending::Complete => Ended::Complete,
                Ending::Abandoned => Ended::ClientGone,
                Ending::Broken => Ended::UpstreamBroke,
            };
            record.finish(finished.bytes, ended);
        }));
        response
    }
}

impl Drop for RequestTally {
    fn drop(&mut self) {
        if let Some(record) = self.0.take() {
            record.finish(0, Ended::ClientGone);
        }
    }
}

impl RequestRecord {
    fn finish(self, bytes: u64, ended: Ended) {
        let clock = &self.shared.clock;
        let mut now = clock.elapsed_in_turn();
        if now <= self.started {
            // The request was answered within the turn in which it began, whose time says nothing of it.
            now = clock.elapsed();
        }
        let elapsed = now.saturating_sub(self.started);
        self.shared
            .metrics
            .http_request(self.handler, &self.method, self.status, elapsed);
        if let Some(access) = &self.access {
            access_log::record(&access_log::AccessLogEntry {
                request_id: &access.id,
                client: access.client,
                method: &self.method,
                target: &access.target.to_string(),
                status: self.status,
                bytes,
                duration: elapsed,
                handler: self.handler,
                ended,
            });
        }
    }
}
