//! engine.io's polling transport: requests that carry a socket's packets.
//!
//! Keeps true: a login that a client has sent is known before the backend can answer it; a session's logins are found
//! by its id, by every worker; the client's bytes pass as they are.
//! Must not know: connections, servers, how payloads are written.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, Uri};

use super::facts::HandshakeFacts;
use super::login_sharing::LoginSharing;
use super::payload;
use super::payload_rewrite::{OnOpen, PollingRewrite, PollingSetting};
use super::{IsEnforced, Socket, SocketTerms, handshake, packet};
use crate::config::model::SocketLoginPlace;
use crate::exchange::request_body::{BodyObserver, fields_into_map};
use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::logins::socket_logins::SocketLogins;
use crate::reissue::{body_fields, is_on};
use crate::snapshot::{Shared, Snapshot};
use crate::telemetry::traffic_labels::ReissueOutcome;
use crate::terms::context::RequestContext;
use crate::terms::proxy_error::{AnotherAttempt, ProxyError, ProxyErrorKind};

/// The types of answers that hold packets.
const PACKET_TYPES: [&str; 4] = [
    "text/plain",
    "application/octet-stream",
    "text/javascript",
    "application/javascript",
];

/// The most bytes of a request that are read for a login.
const COPIED: usize = 16 * 1024;

/// The treatment of a request of the polling transport, and of its answer.
pub(crate) struct PollingPlan {
    socket: Rc<Socket>,
    /// See [`RequestLogins`].
    claimed: Option<Box<str>>,
    sign: PollingSign,
    counted_by_url: bool,
}

/// How a request's URL says that its answer holds packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollingSign {
    /// The URL names the transport.
    Named,
    /// The URL has another parameter of engine.io. Python's server takes polling where no transport is named, and a rule of
    /// `[[reissue.rule]]` that fits comes first.
    Implied,
}

/// The parameters of a request that engine.io reads.
struct Parameters<'u> {
    sign: Option<PollingSign>,
    /// Whether protocol 3 is meant.
    counted: bool,
    session: Option<Cow<'u, str>>,
}

impl<'u> Parameters<'u> {
    fn of(uri: &'u Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(key, value)| (key == name).then_some(value))
        };
        let transports: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .filter_map(|(key, value)| (key == "transport").then_some(value))
            .collect();
        // Some servers take the first of several, and engine.io 6.6 the last.
        let sign = if transports.iter().any(|transport| transport == "polling") {
            Some(PollingSign::Named)
        } else {
            let implies = |name: &str| ["transport", "EIO", "sid"].contains(&name);
            let mut names = form_urlencoded::parse(query.as_bytes());
            names
                .any(|(name, _)| implies(&name))
                .then_some(PollingSign::Implied)
        };
        Self {
            sign,
            // engine.io's server tells the protocols apart so.
            counted: value("EIO").is_none_or(|protocol| protocol != "4"),
            // A parameter of that name may mean anything, and be shared by many, where the socket isn't engine.io's.
            session: value("sid").filter(|_| !transports.is_empty()),
        }
    }
}

/// The logins that count for a request.
pub(super) struct RequestLogins {
    /// `None` where there is none to keep yet.
    pub logins: Option<Arc<SocketLogins>>,
    /// The id of a session that the client names and nothing is known of.
    pub claimed: Option<Box<str>>,
}

impl RequestLogins {
    /// Those of the session that a request names; those of a new socket, with the request's own login, where it names
    /// none that is remembered.
    pub(super) fn of(
        shared: &Arc<Shared>,
        snapshot: &Snapshot,
        places: &[SocketLoginPlace],
        request: &Request<RequestBody>,
    ) -> Self {
        let sessions = &shared.socket_sessions;
        let login = || handshake(snapshot, places, request.headers(), request.uri());
        let Some(id) = Parameters::of(request.uri()).session else {
            return Self {
                logins: login().map(|login| sessions.begin(Some(&login))),
                claimed: None,
            };
        };
        let known = sessions.find(&id, shared.clock.elapsed());
        let claimed = known.is_none().then(|| id.as_ref().into());
        let begin = || sessions.begin(login().as_deref());
        let logins = known.unwrap_or_else(|| sessions.claim(&id, begin));
        if let Some(sharing) = LoginSharing::of(shared, snapshot) {
            sharing.meet(&id, &logins);
        }
        Self {
            logins: Some(logins),
            claimed,
        }
    }

    /// Remembers the session that the client claimed: the backend has let the request pass.
    pub(super) fn bear_out(claimed: Option<Box<str>>, socket: &Socket) {
        if let Some(id) = claimed {
            let shared = &socket.shared;
            let now = shared.clock.elapsed();
            shared.socket_sessions.remember(&id, socket.logins(), now);
        }
    }
}

/// The plan for a request of the polling transport to which a rule applies, if its URL has this sign.
pub(crate) fn plan(
    shared: &Arc<Shared>,
    snapshot: &Snapshot,
    context: &RequestContext,
    request: &mut Request<RequestBody>,
    is_enforced: IsEnforced,
    sign: PollingSign,
) -> Option<PollingPlan> {
    // Most requests end here, before anything is decoded.
    request.uri().query()?;
    if !is_on(snapshot) {
        return None;
    }
    let terms = SocketTerms::of(&snapshot.config, request.uri().path())?;
    let Parameters {
        sign: own,
        counted: counted_by_url,
        ..
    } = Parameters::of(request.uri());
    if own != Some(sign) {
        return None;
    }
    fields_into_map(request);
    let RequestLogins { logins, claimed } =
        RequestLogins::of(shared, snapshot, terms.login, request);
    let facts = HandshakeFacts::of(context, request.uri());
    let socket = Socket::new(shared, is_enforced, facts, logins, terms.binary);
    if *request.method() == Method::POST && terms.login.contains(&SocketLoginPlace::SocketIo) {
        request.body_mut().observe(Box::new(Posted {
            logins: Arc::clone(socket.logins()),
            sharing: LoginSharing::of(shared, snapshot),
            copied: Vec::new(),
            is_too_long: false,
        }));
    }
    let headers = std::mem::take(request.headers_mut());
    *request.headers_mut() = body_fields::request(headers);
    Some(PollingPlan {
        socket: Rc::new(socket),
        claimed,
        sign,
        counted_by_url,
    })
}

impl PollingPlan {
    /// The answer to hand on.
    pub(crate) fn response(
        self,
        response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        if self.sign == PollingSign::Implied && !may_be_packets(response.headers()) {
            return Ok(response);
        }
        let (mut head, body) = response.into_parts();
        if let Some(why) = body_fields::unreadable(head.status, &head.headers) {
            let packets = Socket::packets(&self.socket);
            let passes = packets.parts().now(packet::MAIN).is_none_or(|parts| {
                parts.ledger.route.token(ReissueOutcome::Error);
                parts.ledger.observing
            });
            if passes {
                return Ok(Response::from_parts(head, body));
            }
            return Err(ProxyError {
                kind: ProxyErrorKind::BadResponse,
                retry: AnotherAttempt::Never,
                source: Some(why.into()),
            });
        }
        head.headers = body_fields::response(head.headers);
        let Self {
            socket,
            claimed,
            counted_by_url,
            ..
        } = self;
        if head.status.is_success() {
            RequestLogins::bear_out(claimed, &socket);
        }
        let opened = Rc::clone(&socket);
        let on_open: OnOpen = Rc::new(move |id| {
            let shared = &opened.shared;
            let now = shared.clock.elapsed();
            shared.socket_sessions.remember(id, opened.logins(), now);
            if let Some(sharing) = opened.sharing() {
                sharing.open(id, opened.logins());
            }
        });
        let setting = PollingSetting {
            packets: Socket::packets(&socket),
            on_open,
            counted_by_url,
        };
        let body = body.rewritten(Box::new(PollingRewrite::new(setting)));
        Ok(Response::from_parts(head, body))
    }
}

/// Whether an answer has a type that servers of engine.io give to packets.
fn may_be_packets(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    types.all(|line| {
        let essence = line.as_bytes().split(|byte| *byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        PACKET_TYPES
            .iter()
            .any(|known| essence.eq_ignore_ascii_case(known.as_bytes()))
    })
}

/// A client's packets on their way.
struct Posted {
    logins: Arc<SocketLogins>,
    sharing: Option<LoginSharing>,
    copied: Vec<u8>,
    is_too_long: bool,
}

impl BodyObserver for Posted {
    fn see(&mut self, bytes: &[u8], ended: bool) {
        self.is_too_long |= self.copied.len() + bytes.len() > COPIED;
        if self.is_too_long {
            self.copied = Vec::new();
            return;
        }
        self.copied.extend_from_slice(bytes);
        if ended {
            for message in payload::client_packets(&self.copied) {
                if let Some(packet) = packet::connect(message.as_bytes()) {
                    let packet::ConnectPacket { namespace, token } = packet;
                    self.logins.connect(&namespace, token.as_deref());
                    if let Some(sharing) = &self.sharing {
                        sharing.attend(&self.logins);
                    }
                }
            }
        }
    }
}
