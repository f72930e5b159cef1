//! One request on the public port: context → sanity → route → answer or forward → counted exactly once.
//!
//! Keeps true: everything that routes and answers a request reads one snapshot, loaded when the request began
//! (deadlines and sizes are the connection's, which reads them by itself); an owned path is never forwarded while
//! enforcing, whatever its spelling; every request is counted once, when its response has ended, however it ended.
//! Must not know: how connections are kept, how a token is decided.

mod answer;
mod date;
mod forwarding;
mod ownership;
mod refusals;
mod tally;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use http::header::DATE;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use rustls::ServerConfig;

use crate::config::model::{BelowOwned, DecisionMode, ServerLimits, Timeouts};
use crate::decision;
use crate::exchange::request_body::{fields_into_map, fields_of};
use crate::exchange::respond;
use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::exchange::{Connection, ProxyProtocol, PublicService, Unanswered};
use crate::forward::Forwarder;
use crate::http::forwarded::{self, ForwardingClaims, Origin, Peer};
use crate::http::hop::X_REQUEST_ID;
use crate::http::readings::Readings;
use crate::http::target::{Match, OwnedRoute};
use crate::http::{cors, sanity};
use crate::io::descriptors::Claimant;
use crate::snapshot::{Shared, Snapshot};
use crate::telemetry::labels::{Endpoint, Handler};
use crate::telemetry::metrics::ListenerMetrics;
use crate::telemetry::traffic_labels::ParseErrorKind;
use crate::terms::context::{RequestContext, RequestId, hexadecimal};
use date::DateField;
use refusals::{closing, not_found, parse_error_kind, refused};
use tally::RequestTally;

/// Serves the requests of one worker.
pub(crate) struct WorkerService {
    shared: Arc<Shared>,
    forwarder: Forwarder,
    listeners: Vec<Arc<ListenerMetrics>>,
    /// Request ids are the digits of this random number of the worker and a count, so that they are unique without a
    /// system call each.
    id_prefix: [u8; 16],
    id_count: Cell<u64>,
    date: DateField,
}

impl WorkerService {
    /// `listeners` are in the order of `server.listen`; `seed` is random, and differs between workers.
    pub(crate) fn new(
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
            id_prefix: hexadecimal(id_prefix),
            id_count: Cell::new(id_count),
            date: DateField::default(),
        }
    }
}

impl PublicService for WorkerService {
    fn timeouts(&self) -> Timeouts {
        self.shared.current.load().config.server.timeouts.clone()
    }

    fn limits(&self) -> ServerLimits {
        self.shared.current.load().config.server.limits.clone()
    }

    fn tls(&self, listener: usize) -> Option<Arc<ServerConfig>> {
        let snapshot = self.shared.current.load();
        let identity = snapshot.tls_for(listener)?;
        Some(Arc::clone(identity.config()))
    }

    fn h2c(&self) -> bool {
        self.shared.current.load().config.server.h2c
    }

    fn proxy_protocol(&self, peer: Option<IpAddr>) -> ProxyProtocol {
        let snapshot = self.shared.current.load();
        let server = &snapshot.config.server;
        if !server.proxy_protocol {
            return ProxyProtocol::Off;
        }
        let peer = Peer {
            address: peer,
            nameless: false,
            tls: false,
        };
        if peer.is_trusted(&server.trusted_proxies) {
            ProxyProtocol::Expected
        } else {
            ProxyProtocol::Untrusted
        }
    }

    fn proxy_header_refused(&self, peer: Option<IpAddr>, asked: ProxyProtocol) {
        // Each line is logged once: any client can cause the first one, and a health check the other again and again.
        let peer = peer.map_or("a unix socket".to_owned(), |peer| {
            peer.to_canonical().to_string()
        });
        if asked == ProxyProtocol::Untrusted {
            if self.shared.proxy_refused.set(()).is_ok() {
                tracing::warn!(
                    "a connection from {peer} was refused, as are all from addresses that server.trusted_proxies \
                     lacks while server.proxy_protocol is on. If it is your load balancer, add it there"
                );
            }
        } else if self.shared.proxy_header_missed.set(()).is_ok() {
            tracing::warn!(
                "a connection from {peer} was refused, since it doesn't begin with a PROXY header. Have the load \
                 balancer send one (send-proxy-v2 in haproxy, proxy_protocol on in nginx's stream module), for its \
                 health checks too, or set server.proxy_protocol = false"
            );
        }
    }

    fn refuse(&self, status: StatusCode) -> Response<ResponseBody> {
        let id = self.next_id();
        tracing::debug!(request_id = id.as_str(), %status, "a client sent bytes that are no request");
        self.with_id_and_date(&id, refusals::unparsed(status))
    }

    async fn answer(
        self: Rc<Self>,
        connection: Connection,
        request: Box<Request<RequestBody>>,
    ) -> Result<Box<Response<ResponseBody>>, Unanswered> {
        let snapshot = self.shared.current.load_full();
        let fields = fields_of(&request);
        let host = sanity::effective_host(request.uri(), fields);
        let peer = Peer {
            address: connection.peer.map(|peer| peer.ip()),
            nameless: connection.nameless,
            tls: connection.tls,
        };
        let trusted = &snapshot.config.server.trusted_proxies;
        let origin = forwarded::resolve(peer, trusted, fields, host.as_ref());
        if origin.claims == (ForwardingClaims::Dropped { private_peer: true }) {
            self.claims_dropped(connection);
        }
        let context = RequestContext {
            id: self.request_id(peer.is_trusted(trusted), &request),
            started: self.shared.clock.elapsed_for_turn(),
            peer: peer.address,
            client_ip: origin.client_ip,
        };
        let tally = RequestTally::new(&self.shared, &snapshot.config.log, &context, &request);
        let asked = RequestSetting {
            snapshot: &snapshot,
            context: &context,
            origin: &origin,
            claimant: Claimant {
                address: origin.telling_address(trusted),
                connection: connection.number,
            },
            host: host.as_ref(),
            browser_origin: snapshot
                .config
                .cors
                .as_ref()
                .and_then(|_| cors::origin(fields)),
        };
        let (handler, response) = self.route(&asked, request).await?;
        Ok(tally.attach(handler, response))
    }
}

/// The facts that routing and answering one request depend on, read once.
struct RequestSetting<'a> {
    snapshot: &'a Snapshot,
    context: &'a RequestContext,
    origin: &'a Origin<'a>,
    /// The party that takes turns with others where sockets to the backend are short.
    claimant: Claimant,
    host: Option<&'a HeaderValue>,
    /// The `Origin` header; read only where `[cors]` asks for it.
    browser_origin: Option<HeaderValue>,
}

// === impl Service ===

impl WorkerService {
    async fn route(
        &self,
        asked: &RequestSetting<'_>,
        mut request: Box<Request<RequestBody>>,
    ) -> Result<(Handler, Box<Response<ResponseBody>>), Unanswered> {
        if let Some(response) = self.refuse_malformed(asked, &request) {
            return Ok((Handler::Reject, self.own_response(asked, response)));
        }
        let config = &asked.snapshot.config;
        let target = request.uri();
        if config.server.health_path.as_deref() == Some(target.path())
            && (target.authority().is_none() || request.version() == Version::HTTP_2)
        {
            let response = self.health(asked.snapshot);
            let response = self.with_id_and_date(&asked.context.id, response);
            return Ok((Handler::Health, Box::new(response)));
        }
        let readings = Readings::of(target.path());
        let client = asked.context.client_ip;
        let routes = &config.routes;
        let overridden = || routes.method_override.applies(target, fields_of(&request));
        let mut rules = routes.block.iter();
        if rules.any(|rule| rule.refuses(request.method(), &readings, client, overridden)) {
            return Ok((Handler::Reject, self.own_response(asked, not_found())));
        }
        let enforcing = config.decision.is_enforcing();
        let (found, noted) = ownership::of(asked.snapshot, &request, &readings);
        drop(readings); // a hostile target's readings are large, and what follows may wait for long
        if let Some(noted) = noted {
            request.extensions_mut().insert(noted);
        }
        let kept = enforcing && found.is_kept(routes.below == BelowOwned::Refuse);
        // A preflight that is forwarded all the same must not become a POST at the backend.
        let refused = kept
            && !routes
                .method_override
                .leaves_preflight(request.method(), request.uri());
        let answer = match found {
            Match::Served(route)
                if *request.method() == Method::POST
                    && (config.decision.mode != DecisionMode::Off
                        || decision::may_drain(asked.snapshot)) =>
            {
                let endpoint = match route {
                    OwnedRoute::Token => Endpoint::Token,
                    OwnedRoute::Refresh => Endpoint::Refresh,
                };
                // Boxed, since the future is large and most requests are forwarded.
                Box::pin(self.serve_token(asked, endpoint, *request)).await?
            }
            Match::Served(_) if refused => {
                let response = respond::method_not_allowed("POST, OPTIONS");
                (Handler::Live, self.own_response(asked, response))
            }
            Match::Guarded if kept => (Handler::Live, self.own_response(asked, not_found())),
            Match::Below { .. } if refused => {
                (Handler::Live, self.own_response(asked, not_found()))
            }
            _ => {
                let forwarded = self.forward(asked, request, kept).await?;
                (Handler::Forward, forwarded.response)
            }
        };
        Ok(answer)
    }

    async fn serve_token(
        &self,
        asked: &RequestSetting<'_>,
        endpoint: Endpoint,
        mut request: Request<RequestBody>,
    ) -> Result<(Handler, Box<Response<ResponseBody>>), Unanswered> {
        fields_into_map(&mut request);
        let reply = decision::answer(
            &self.shared,
            asked.snapshot,
            asked.context,
            endpoint,
            request,
        );
        let answer = match reply.await {
            decision::TokenReply::Ours(response) => {
                (Handler::Live, self.own_response(asked, response))
            }
            decision::TokenReply::Forward { request, outcome } => {
                let forwarded = self.forward(asked, Box::new(request), false).await?;
                if let Some(outcome) = outcome {
                    let metrics = &self.shared.metrics;
                    metrics.shadow_decision(outcome, forwarded.backend);
                }
                (Handler::Forward, forwarded.response)
            }
            decision::TokenReply::ClientGone => {
                let response = respond::failure(
                    StatusCode::BAD_REQUEST,
                    "invalid_request",
                    "The body is incomplete",
                );
                (Handler::Live, self.own_response(asked, closing(response)))
            }
        };
        Ok(answer)
    }

    fn refuse_malformed(
        &self,
        asked: &RequestSetting<'_>,
        request: &Request<RequestBody>,
    ) -> Option<Response<ResponseBody>> {
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
            fields_of(request),
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

    /// A response in the backend's place, with the headers that browsers need for another site's page.
    fn own_response(
        &self,
        asked: &RequestSetting<'_>,
        response: Response<ResponseBody>,
    ) -> Box<Response<ResponseBody>> {
        let mut response = self.with_id_and_date(&asked.context.id, response);
        if let Some(policy) = &asked.snapshot.config.cors {
            policy.apply(asked.browser_origin.as_ref(), response.headers_mut());
        }
        Box::new(response)
    }

    /// A response that the backend didn't send carries the request's id, so that a user's report leads to the log
    /// line, and the time, as an origin server's must (RFC 9110 §6.6.1).
    fn with_id_and_date(
        &self,
        id: &RequestId,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, id.header());
        headers.insert(DATE, self.date.now(&self.shared.clock));
        response
    }

    /// `server.health_path`: the bare readiness, for load balancers that reach only the public port.
    fn health(&self, snapshot: &Snapshot) -> Response<ResponseBody> {
        if self.shared.readiness.is_ready() && snapshot.backends.reachable() {
            respond::json(StatusCode::OK, r#"{"status":"ready"}"#)
        } else {
            respond::json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"not ready"}"#)
        }
    }

    fn request_id(&self, trusted: bool, request: &Request<RequestBody>) -> RequestId {
        let given = if trusted {
            fields_of(request).value(&X_REQUEST_ID)
        } else {
            None
        };
        given
            .and_then(|given| RequestId::from_peer(&given))
            .unwrap_or_else(|| self.next_id())
    }

    fn next_id(&self) -> RequestId {
        let count = self.id_count.get().wrapping_add(1);
        self.id_count.set(count);
        RequestId::counted(self.id_prefix, count)
    }

    /// Counts dropped `X-Forwarded-*` headers, and warns once. Called for private addresses alone: headers of a
    /// client on the internet say nothing about the configuration.
    fn claims_dropped(&self, connection: Connection) {
        if let Some(listener) = self.listeners.get(connection.listener) {
            listener.forwarded_headers_dropped();
        }
        // A unix socket's peer has no address that could be listed. Any entry in `trusted_proxies` makes it trusted.
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let peer = connection
            .peer
            .map_or(loopback, |peer| peer.ip().to_canonical());
        if self.shared.untrusted_proxy_seen.set(peer).is_ok() {
            tracing::warn!(
                %peer,
                "a private address sends X-Forwarded-* headers, which renewd drops. If it is your load balancer, add \
                 trusted_proxies = [\"{peer}\"] to [server]; otherwise all its users count as one address"
            );
        }
    }
}
