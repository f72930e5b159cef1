//! One request on its way to the backend, and the response that the client gets.
//!
//! Keeps true: a client gets the backend's response or one that stands in for it, never both.
//! Must not know: which requests are forwarded, how a server is reached.

use std::borrow::Cow;
use std::rc::Rc;

use http::{Method, Request, Response, StatusCode};

use super::refusals::failed;
use super::{RequestSetting, WorkerService, answer};
use crate::decision;
use crate::exchange::request_body::{fields_into_map, fields_of};
use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::exchange::{RequestSide, Unanswered, respond};
use crate::forward;
use crate::http::hop::{self, RequestChanges};
use crate::reissue::socket::polling::{self, PollingPlan, PollingSign};
use crate::reissue::socket::{self, SocketPlan};
use crate::reissue::{self, ReissuePlan};
use crate::snapshot::Snapshot;
use crate::telemetry::traffic_labels::UpstreamOutcome;
use crate::terms::proxy_error::{ProxyError, ProxyErrorKind};

/// The response to a forwarded request, and the backend's own status.
pub(super) struct ForwardedReply {
    pub(super) response: Box<Response<ResponseBody>>,
    /// The status of the backend's response; `None` where there was none and renewd's response stands in for it.
    pub(super) backend: Option<StatusCode>,
}

impl ForwardedReply {
    fn in_place(response: Box<Response<ResponseBody>>) -> Self {
        Self {
            response,
            backend: None,
        }
    }
}

fn is_upgrade(request: &Request<RequestBody>) -> bool {
    hop::is_websocket_upgrade(request.method(), request.version(), fields_of(request))
}

fn outcome(result: &Result<Box<Response<ResponseBody>>, ProxyError>) -> UpstreamOutcome {
    match result {
        Ok(response) => UpstreamOutcome::of(response.status()),
        Err(error) => UpstreamOutcome::from(error.kind),
    }
}

impl WorkerService {
    pub(super) async fn forward(
        &self,
        asked: &RequestSetting<'_>,
        mut request: Box<Request<RequestBody>>,
        keeps_method: bool,
    ) -> Result<ForwardedReply, Unanswered> {
        if *request.method() == Method::OPTIONS && !hop::may_go_on(fields_into_map(&mut request)) {
            // `Max-Forwards: 0` asks the server at this distance, which is renewd.
            let response = self.own_response(asked, respond::no_content());
            return Ok(ForwardedReply::in_place(response));
        }
        let began = self.shared.clock.elapsed_in_turn();
        let upgrade = is_upgrade(&request);
        let plan = self.plan(asked, &mut request, upgrade);
        let Snapshot {
            config, backends, ..
        } = asked.snapshot;
        let host = asked.host.map(Cow::Borrowed);
        let host = host.unwrap_or_else(|| Cow::Owned(config.upstream.host()));
        let exchange = Rc::clone(request.body().exchange());
        let changes = RequestChanges {
            host: &host,
            origin: asked.origin,
            request_id: asked.context.id.as_bytes(),
            upgrade,
            chunked: request.body().is_unannounced(fields_of(&request)),
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
        if let Some(backend) = server.and_then(|server| backends.all().get(server)) {
            let elapsed = self.shared.clock.elapsed_in_turn().saturating_sub(began);
            backend.metrics.request(outcome(&result), elapsed);
        }
        match result {
            Ok(mut response) => {
                let status = response.status();
                let switched = status == StatusCode::SWITCHING_PROTOCOLS;
                answer::finish(&mut response, &asked.context.id, switched);
                let backend = Some(status);
                let response = match plan {
                    Some(plan) => plan.response(answer::mapped(*response)).map(Box::new),
                    None => Ok(response),
                };
                let response = response.unwrap_or_else(|error| self.failure(asked, &error));
                Ok(ForwardedReply { response, backend })
            }
            Err(error)
                if error.kind == ProxyErrorKind::ClientGone
                    && exchange.request() == RequestSide::Closed =>
            {
                Err(Unanswered)
            }
            Err(error) => Ok(ForwardedReply::in_place(self.failure(asked, &error))),
        }
    }

    fn failure(
        &self,
        asked: &RequestSetting<'_>,
        error: &ProxyError,
    ) -> Box<Response<ResponseBody>> {
        self.own_response(asked, failed(asked.context, error))
    }

    /// How the response will be rewritten, if a reissue rule applies.
    fn plan(
        &self,
        asked: &RequestSetting<'_>,
        request: &mut Request<RequestBody>,
        upgrade: bool,
    ) -> Option<ResponsePlan> {
        let RequestSetting {
            snapshot, context, ..
        } = asked;
        let (shared, is_enforced) = (&self.shared, decision::is_enforced);
        let socket = if upgrade {
            socket::plan(shared, snapshot, context, request, is_enforced)
        } else {
            None
        };
        // A backend that opens no socket answers a handshake as it answers any other request.
        let polling = |request: &mut _, sign| {
            let plan = polling::plan(shared, snapshot, context, request, is_enforced, sign);
            plan.map(|plan| AnswerPlan::Polling(Box::new(plan)))
        };
        let answer = polling(request, PollingSign::Named).or_else(|| {
            let enforced = |subject: Option<&str>| decision::is_enforced(snapshot, subject);
            let body = reissue::plan(shared, snapshot, context, request, enforced);
            body.map(AnswerPlan::Body)
                .or_else(|| polling(request, PollingSign::Implied))
        });
        (socket.is_some() || answer.is_some()).then_some(ResponsePlan { socket, answer })
    }
}

/// What becomes of the backend's response.
struct ResponsePlan {
    /// Where it opens a socket.
    socket: Option<SocketPlan>,
    /// Where it is an answer.
    answer: Option<AnswerPlan>,
}

/// How an answer is rewritten.
enum AnswerPlan {
    Body(Box<ReissuePlan>),
    Polling(Box<PollingPlan>),
}

impl ResponsePlan {
    fn response(
        self,
        response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match (self.socket, self.answer) {
            (Some(plan), _) if switched => plan.response(response),
            (_, Some(AnswerPlan::Body(plan))) => plan.response(response),
            (_, Some(AnswerPlan::Polling(plan))) => plan.response(response),
            (_, None) => Ok(response),
        }
    }
}
