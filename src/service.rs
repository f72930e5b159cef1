//! One request on the public port: context → sanity → route → answer or forward → finished exactly once.
//!
//! Keeps true: the snapshot is taken once a request; an owned path is never forwarded while enforcing, whatever its
//! spelling; every request is counted once, when its response is over, however it ended.
//! Must not know: how connections are kept, how a token is decided.

mod tally;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;

use self::tally::Tally;
use crate::config::model::{DecisionMode, Limits, Timeouts, UpstreamServer};
use crate::context::{RequestContext, RequestId};
use crate::error::{Kind, ProxyError};
use crate::forward::Forwarder;
use crate::http::body::{Body, RequestBody};
use crate::http::exchange::{Answer, Connection};
use crate::http::forwarded::{self, Claims, Origin, Peer};
use crate::http::hop::{self, RequestChanges, X_REQUEST_ID};
use crate::http::target::{self, Match, Route};
use crate::http::{respond, sanity};
use crate::live;
use crate::snapshot::{Shared, Snapshot};
use crate::telemetry::labels::{Endpoint, Handler};
use crate::telemetry::metrics::ListenerMetrics;
use crate::telemetry::traffic_labels::{ParseErrorKind, UpstreamOutcome};

/// Serves the requests of one worker.
pub struct Service {
    shared: Arc<Shared>,
    forwarder: Forwarder,
    listeners: Vec<Arc<ListenerMetrics>>,
    /// Request ids are this worker's random half and a count: unique without a system call a request.
    id_prefix: u64,
    id_count: Cell<u64>,
}

impl Service {
    /// `listeners` in the order of `server.listen`; `seed` is random, another for each worker.
    pub fn new(
        shared: Arc<Shared>,
        forwarder: Forwarder,
        listeners: Vec<Arc<ListenerMetrics>>,
        seed: [u64; 2],
    ) -> Self {
        let [id_prefix, id_count] = seed;
        Self {
            shared,
            forwarder,
            listeners,
            id_prefix,
            id_count: Cell::new(id_count),
        }
    }
}

impl Answer for Service {
    fn timeouts(&self) -> Timeouts {
        self.shared.current.load().config.server.timeouts.clone()
    }

    fn limits(&self) -> Limits {
        self.shared.current.load().config.server.limits.clone()
    }

    async fn answer(
        self: Rc<Self>,
        connection: Connection,
        request: Request<RequestBody>,
    ) -> Response<Body> {
        let snapshot = self.shared.current.load_full();
        let host = sanity::effective_host(request.uri(), request.headers());
        let peer = Peer {
            address: connection.peer.map(|peer| peer.ip()),
            tls: false,
        };
        let trusted = &snapshot.config.server.trusted_proxies;
        let origin = forwarded::resolve(peer, trusted, request.headers(), host.as_ref());
        if let Claims::Dropped { private_peer } = origin.claims {
            self.claims_dropped(connection, private_peer);
        }
        let context = RequestContext {
            id: self.request_id(&origin, &request),
            started: self.shared.clock.elapsed(),
            peer: peer.address,
            client_ip: origin.client_ip,
        };
        let tally = Tally::new(&self.shared, &snapshot.config.log, &context, &request);
        let asked = Asked {
            snapshot: &snapshot,
            context: &context,
            origin: &origin,
            host,
        };
        let (handler, response) = self.route(asked, request).await;
        tally.attach(handler, response)
    }
}

/// One request's surroundings, taken once.
struct Asked<'a> {
    snapshot: &'a Snapshot,
    context: &'a RequestContext,
    origin: &'a Origin,
    host: Option<HeaderValue>,
}

// === impl Service ===

impl Service {
    async fn route(
        &self,
        asked: Asked<'_>,
        request: Request<RequestBody>,
    ) -> (Handler, Response<Body>) {
        if let Some(response) = self.refuse_malformed(&asked, &request) {
            return (Handler::Reject, ours(asked.context, response));
        }
        let config = &asked.snapshot.config;
        let target = request.uri();
        if config.server.health_path.as_deref() == Some(target.path())
            && target.authority().is_none()
        {
            return (Handler::Health, ours(asked.context, self.health()));
        }
        let mode = config.decision.mode;
        let enforcing = mode == DecisionMode::Enforce && config.decision.enforce_percent > 0;
        match asked.snapshot.owned.classify(target) {
            Match::Served(route)
                if *request.method() == Method::POST && mode != DecisionMode::Off =>
            {
                let endpoint = match route {
                    Route::Token => Endpoint::Token,
                    Route::Refresh => Endpoint::Refresh,
                };
                self.serve_token(asked, endpoint, request).await
            }
            Match::Served(_) if enforcing && *request.method() != Method::OPTIONS => {
                let response = respond::method_not_allowed("POST, OPTIONS");
                (Handler::Live, ours(asked.context, response))
            }
            Match::Guarded if enforcing => {
                let response =
                    respond::failure(StatusCode::NOT_FOUND, "not_found", "Route not found");
                (Handler::Live, ours(asked.context, response))
            }
            // A preflight that gets this far must not become a POST behind us.
            Match::Served(_) => (
                Handler::Forward,
                self.forward(&asked, request, enforcing).await,
            ),
            Match::Guarded | Match::Foreign => {
                (Handler::Forward, self.forward(&asked, request, false).await)
            }
        }
    }

    async fn serve_token(
        &self,
        asked: Asked<'_>,
        endpoint: Endpoint,
        request: Request<RequestBody>,
    ) -> (Handler, Response<Body>) {
        match live::answer(
            &self.shared,
            asked.snapshot,
            asked.context,
            endpoint,
            request,
        )
        .await
        {
            live::Answer::Ours(response) => (Handler::Live, ours(asked.context, response)),
            live::Answer::Backends { request, outcome } => {
                let response = self.forward(&asked, request, false).await;
                self.shared
                    .metrics
                    .shadow_decision(outcome, Some(response.status()));
                (Handler::Forward, response)
            }
            live::Answer::ClientGone => {
                let response = respond::failure(
                    StatusCode::BAD_REQUEST,
                    "invalid_request",
                    "The body is incomplete",
                );
                (Handler::Live, ours(asked.context, closing(response)))
            }
        }
    }

    async fn forward(
        &self,
        asked: &Asked<'_>,
        request: Request<RequestBody>,
        keeps_method: bool,
    ) -> Response<Body> {
        let upstream = &asked.snapshot.config.upstream;
        let Some(server) = upstream.servers.first() else {
            return ours(asked.context, unreachable());
        };
        let (mut head, body) = request.into_parts();
        let upgrade = hop::is_websocket_upgrade(&head.method, head.version, &head.headers);
        let Some(path) = target::origin_form(&head.uri) else {
            return ours(asked.context, closing(refused(sanity::Refusal::Target)));
        };
        let changes = RequestChanges {
            host: asked.host.clone().unwrap_or_else(|| authority(server)),
            origin: asked.origin,
            request_id: asked.context.id.header(),
            upgrade,
            chunked: !body.is_end_stream() && body.size_hint().exact().is_none(),
            keeps_method,
        };
        head.headers = hop::request_headers(&head.headers, &changes);
        head.uri = path.into();
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let began = self.shared.clock.elapsed();
        let result = self.forwarder.forward(upstream, head, body, upgrade).await;
        if let Some(metrics) = asked.snapshot.upstreams.first() {
            let outcome = match &result {
                Ok(response) => UpstreamOutcome::of(response.status()),
                Err(error) => upstream_outcome(error.kind),
            };
            metrics.request(outcome, self.shared.clock.elapsed().saturating_sub(began));
        }
        match result {
            Ok(mut response) => {
                self.reachable(asked.snapshot, true);
                let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                *response.headers_mut() =
                    hop::response_headers(response.headers(), asked.context.id.header(), switched);
                response
            }
            Err(error) => {
                self.reachable(asked.snapshot, error.kind != Kind::ConnectFailed);
                failed(asked.context, &error)
            }
        }
    }

    fn refuse_malformed(
        &self,
        asked: &Asked<'_>,
        request: &Request<RequestBody>,
    ) -> Option<Response<Body>> {
        let target = request.uri();
        let length = target
            .path_and_query()
            .map_or(0, |path| path.as_str().len());
        if length > asked.snapshot.config.server.limits.target_bytes {
            self.shared
                .metrics
                .parse_error(ParseErrorKind::TargetTooLong);
            let message = "The request target is too long";
            return Some(respond::failure(
                StatusCode::URI_TOO_LONG,
                "invalid_request",
                message,
            ));
        }
        let refusal = sanity::check(
            request.method(),
            target,
            request.version(),
            request.headers(),
        )
        .err()?;
        self.shared.metrics.parse_error(parse_error_kind(refusal));
        let response = refused(refusal);
        Some(if refusal.closes() {
            closing(response)
        } else {
            response
        })
    }

    /// `server.health_path`: the bare readiness, for load balancers that reach only the public port.
    fn health(&self) -> Response<Body> {
        if self.shared.readiness.is_ready() {
            respond::json(StatusCode::OK, r#"{"status":"ready"}"#)
        } else {
            respond::json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"not ready"}"#)
        }
    }

    fn request_id(&self, origin: &Origin, request: &Request<RequestBody>) -> RequestId {
        let believed = match origin.claims {
            Claims::Believed => request
                .headers()
                .get(X_REQUEST_ID)
                .and_then(RequestId::from_peer),
            Claims::None | Claims::Dropped { .. } => None,
        };
        believed.unwrap_or_else(|| {
            let count = self.id_count.get().wrapping_add(1);
            self.id_count.set(count);
            RequestId::from_bits(self.id_prefix, count)
        })
    }

    fn claims_dropped(&self, connection: Connection, private_peer: bool) {
        if let Some(listener) = self.listeners.get(connection.listener) {
            listener.forwarded_headers_dropped();
        }
        if let (true, Some(peer)) = (private_peer, connection.peer)
            && self.shared.untrusted_proxy_seen.set(()).is_ok()
        {
            tracing::warn!(
                peer = %peer.ip(),
                "a private address sends X-Forwarded-* headers, which are dropped: if it is your load balancer, add \
                 trusted_proxies = [\"{}\"] to [server], or all its users count as one address",
                peer.ip()
            );
        }
    }

    fn reachable(&self, snapshot: &Snapshot, reachable: bool) {
        if self.shared.readiness.upstream(reachable) {
            snapshot.upstream_changed(reachable);
        }
    }
}

/// An answer that the backend didn't give carries the request's id, so that a report leads to the log line.
fn ours(context: &RequestContext, mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(X_REQUEST_ID, context.id.header());
    response
}

fn closing(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn refused(refusal: sanity::Refusal) -> Response<Body> {
    respond::failure(refusal.status(), "invalid_request", refusal.message())
}

fn unreachable() -> Response<Body> {
    respond::failure(
        StatusCode::BAD_GATEWAY,
        "upstream_unreachable",
        "The backend can't be reached",
    )
}

fn failed(context: &RequestContext, error: &ProxyError) -> Response<Body> {
    let id = context.id.as_str();
    let response = match error.kind {
        Kind::ConnectFailed | Kind::ConnectionLost | Kind::BadResponse => {
            tracing::warn!(request_id = id, %error, "502");
            unreachable()
        }
        Kind::ResponseTimeout => {
            tracing::warn!(request_id = id, %error, "504");
            let message = "The backend did not answer in time";
            respond::failure(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message)
        }
        Kind::BadRequest | Kind::ClientGone => {
            tracing::debug!(request_id = id, %error, "400");
            let message = "The request could not be passed on";
            closing(respond::failure(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                message,
            ))
        }
    };
    ours(context, response)
}

fn upstream_outcome(kind: Kind) -> UpstreamOutcome {
    match kind {
        Kind::ConnectFailed => UpstreamOutcome::ConnectFailed,
        Kind::ConnectionLost => UpstreamOutcome::ConnectionLost,
        Kind::BadResponse => UpstreamOutcome::BadResponse,
        Kind::ResponseTimeout => UpstreamOutcome::Timeout,
        Kind::BadRequest => UpstreamOutcome::BadRequest,
        Kind::ClientGone => UpstreamOutcome::ClientGone,
    }
}

fn parse_error_kind(refusal: sanity::Refusal) -> ParseErrorKind {
    match refusal {
        sanity::Refusal::Method => ParseErrorKind::Method,
        sanity::Refusal::Target => ParseErrorKind::Malformed,
        sanity::Refusal::HostMissing
        | sanity::Refusal::HostDuplicate
        | sanity::Refusal::HostInvalid => ParseErrorKind::Host,
        sanity::Refusal::TransferEncoding | sanity::Refusal::LengthAndEncoding => {
            ParseErrorKind::TransferEncoding
        }
    }
}

/// For HTTP/1.0 without `Host`: the backend's own.
fn authority(server: &UpstreamServer) -> HeaderValue {
    let host = if server.host.contains(':') {
        format!("[{}]:{}", server.host, server.port)
    } else {
        format!("{}:{}", server.host, server.port)
    };
    HeaderValue::try_from(host).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}
