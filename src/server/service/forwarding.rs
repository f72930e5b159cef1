//! One request on its way to the backend, and what the client gets of the answer.
//!
//! Keeps true: a client that is answered gets the backend's answer or one that stands in for it, never both.
//! Must not know: which requests are forwarded, how a server is reached.

use std::future::pending;
use std::rc::Rc;

use http::{Method, Request, Response, StatusCode};

use super::refusals::failed;
use super::{RequestSetting, WorkerService, answer};
use crate::decision;
use crate::exchange::respond;
use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::forward;
use crate::http::hop::{self, RequestChanges};
use crate::reissue::{self, ReissuePlan};
use crate::snapshot::Snapshot;
use crate::telemetry::traffic_labels::UpstreamOutcome;
use crate::terms::proxy_error::ProxyErrorKind;

/// What the client gets of a forwarded request, and what the backend itself said.
pub(super) struct ForwardedReply {
    pub(super) response: Response<ResponseBody>,
    /// The status of the backend's answer; `None` where it gave none and the response stands in for it.
    pub(super) backend: Option<StatusCode>,
}

impl ForwardedReply {
    fn in_place(response: Response<ResponseBody>) -> Self {
        Self {
            response,
            backend: None,
        }
    }
}

impl WorkerService {
    pub(super) async fn forward(
        &self,
        asked: &RequestSetting<'_>,
        mut request: Box<Request<RequestBody>>,
        keeps_method: bool,
    ) -> ForwardedReply {
        if *request.method() == Method::OPTIONS && !hop::may_go_on(request.headers_mut()) {
            // Asked of whoever is this far away: of us.
            return ForwardedReply::in_place(self.own_response(asked, respond::no_content()));
        }
        let began = self.shared.clock.elapsed();
        let plan = self.plan(asked, &mut request);
        let Snapshot {
            config, backends, ..
        } = asked.snapshot;
        let host = asked.host.clone();
        let host = host.unwrap_or_else(|| config.upstream.host());
        let exchange = Rc::clone(request.body().exchange());
        let (method, headers) = (request.method(), request.headers());
        let changes = RequestChanges {
            host: &host,
            origin: asked.origin,
            request_id: asked.context.id.value(),
            upgrade: hop::is_websocket_upgrade(method, request.version(), headers),
            chunked: request.body().is_unannounced(headers),
            keeps_method,
        };
        let sending = self.forwarder.forward(
            &config.upstream,
            backends,
            request,
            &changes,
            asked.claimant,
        );
        let forward::ForwardOutcome { server, result } = sending.await;
        let backends = asked.snapshot.backends.all();
        if let Some(backend) = server.and_then(|server| backends.get(server)) {
            let outcome = match &result {
                Ok(response) => UpstreamOutcome::of(response.status()),
                Err(error) => UpstreamOutcome::from(error.kind),
            };
            let elapsed = self.shared.clock.elapsed().saturating_sub(began);
            backend.metrics.request(outcome, elapsed);
        }
        match result {
            Ok(mut response) => {
                let status = response.status();
                let switched = status == StatusCode::SWITCHING_PROTOCOLS;
                answer::finish(&mut response, &asked.context.id, switched);
                let backend = Some(status);
                let response = match plan {
                    Some(plan) => plan.response(answer::mapped(response)),
                    None => Ok(response),
                };
                match response {
                    Ok(response) => ForwardedReply { response, backend },
                    Err(error) => ForwardedReply {
                        response: self.own_response(asked, failed(asked.context, &error)),
                        backend,
                    },
                }
            }
            Err(error) if error.kind == ProxyErrorKind::ClientGone && exchange.client_closed() => {
                // As without us: whoever stops listening to clients that have stopped talking says nothing.
                exchange.mark_unanswered();
                pending().await
            }
            Err(error) => {
                ForwardedReply::in_place(self.own_response(asked, failed(asked.context, &error)))
            }
        }
    }

    /// What is done with the answer, where a rule means it.
    fn plan(
        &self,
        asked: &RequestSetting<'_>,
        request: &mut Request<RequestBody>,
    ) -> Option<Box<ReissuePlan>> {
        let enforced = |subject: Option<&str>| decision::is_enforced(asked.snapshot, subject);
        let RequestSetting {
            snapshot, context, ..
        } = asked;
        reissue::plan(&self.shared, snapshot, context, request, enforced)
    }
}
