//! Tokens in the messages of sockets from the backend to the client.
//!
//! | file | what |
//! |---|---|
//! | `frame` | heads of `WebSocket` frames |
//! | `facts` | what a handshake said, packed |
//! | `relay` | the backend's frames: messages with tokens are written anew |
//! | `client_frames` | the client's frames, read on their way |
//! | `message` | one message: judged once its login is known |
//! | `packet_rewriter` | one packet: a message, or bytes in one, or in base64 |
//! | `base64_packet` | packets of bytes in base64, as clients decode them |
//! | `login_sharing` | the logins of polling sessions, with other replicas |
//! | `packet` | packets of engine.io and socket.io: namespaces and logins |
//! | [`polling`] | requests that carry packets |
//! | `payload` | several packets in one body |
//! | `payload_rewrite` | such an answer: packets with tokens are written anew |
//! | [`explain`] | the verdict on one token, for an operator |
//!
//! Keeps true: every message is judged by the configuration, the login and the sources of its own time; the client's
//! bytes pass as they are; a socket without tokens costs a search of its messages and no copy.
//! Must not know: connections, servers.

mod base64_packet;
mod client_frames;
pub(crate) mod explain;
mod facts;
mod frame;
mod login_sharing;
mod message;
mod packet;
mod packet_rewriter;
mod payload;
mod payload_rewrite;
pub(crate) mod polling;
mod relay;

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, Request, Response, StatusCode, Uri};

use self::client_frames::ClientFrames;
use self::facts::HandshakeFacts;
use self::login_sharing::LoginSharing;
use self::message::{Learning, MessageParts, MessageSource};
use self::packet_rewriter::SocketPackets;
use self::polling::RequestLogins;
use self::relay::Relay;
use super::applying_rule::ReissueTerms;
use super::{PartsSetting, caller, credentials, is_on, parts};
use crate::config::model::{
    Config, DecisionMode, ReissueMode, SocketLoginPlace, SocketRule, Withheld,
};
use crate::exchange::request_body::fields_into_map;
use crate::exchange::response_body::{RequestBody, ResponseBody};
use crate::exchange::tunnel::Inspection;
use crate::http::readings::Readings;
use crate::logins::socket_logins::SocketLogins;
use crate::snapshot::{Shared, Snapshot};
use crate::terms::context::RequestContext;
use crate::terms::proxy_error::{AnotherAttempt, ProxyError, ProxyErrorKind};

/// Whether renewd answers token requests of this subject under this configuration.
pub(crate) type IsEnforced = fn(&Snapshot, Option<&str>) -> bool;

/// The treatment of the tunnel that a handshake asks for.
pub(crate) struct SocketPlan {
    socket: Rc<Socket>,
    claimed: Option<Box<str>>,
    reads_connects: bool,
}

/// The facts about one socket that all of its messages are judged with. There may be very many sockets, most of them
/// idle: what isn't needed before a message comes is made then.
struct Socket {
    shared: Arc<Shared>,
    is_enforced: IsEnforced,
    /// Empty until there is a login to keep, or a session whose logins others know.
    logins: OnceCell<Arc<SocketLogins>>,
    facts: HandshakeFacts,
    /// Whether bytes are searched.
    binary: bool,
    /// Whether the session may have begun at another replica.
    is_shared: bool,
}

/// The rules of `[[reissue.socket]]` for one path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SocketTerms<'c> {
    terms: ReissueTerms,
    login: &'c [SocketLoginPlace],
    binary: bool,
}

impl<'c> SocketTerms<'c> {
    /// For each reading the first rule that means it, and the strictest terms of these.
    fn of(config: &'c Config, path: &str) -> Option<Self> {
        let sockets = &config.reissue.sockets;
        if sockets.is_empty() {
            return None;
        }
        let mut strictest: Option<Self> = None;
        for reading in Readings::of(path).iter() {
            let means = |rule: &SocketRule| rule.target.path().matches(reading);
            let Some(position) = sockets.iter().position(means) else {
                continue;
            };
            let Some(rule) = sockets.get(position) else {
                continue;
            };
            let these = Self::of_rule(config, rule, position);
            strictest = Some(match strictest {
                None => these,
                Some(before) => Self {
                    terms: before.terms.and(these.terms),
                    binary: before.binary || these.binary,
                    ..before
                },
            });
        }
        strictest
    }

    /// The terms of the rule at this position in the file.
    fn of_rule(config: &Config, rule: &'c SocketRule, position: usize) -> Self {
        Self {
            terms: ReissueTerms {
                position: config.reissue.rules.len() + position,
                require_auth: rule.require_auth,
                lifetime: config.token.lifetime,
                trust_publisher: false,
                publisher_for_others: rule.publisher_for_others,
                withheld: Withheld::Null,
                unknown_channel: Some(rule.unknown_channel),
            },
            login: &rule.login,
            binary: rule.binary,
        }
    }
}

/// The plan for a WebSocket handshake to which a rule applies. The request loses its extensions: nothing can be found
/// in compressed messages.
pub(crate) fn plan(
    shared: &Arc<Shared>,
    snapshot: &Snapshot,
    context: &RequestContext,
    request: &mut Request<RequestBody>,
    is_enforced: IsEnforced,
) -> Option<SocketPlan> {
    if !is_on(snapshot) {
        return None;
    }
    let terms = SocketTerms::of(&snapshot.config, request.uri().path())?;
    fields_into_map(request);
    let RequestLogins { logins, claimed } =
        RequestLogins::of(shared, snapshot, terms.login, request);
    let facts = HandshakeFacts::of(context, request.uri());
    let socket = Socket::new(shared, is_enforced, facts, logins, terms.binary);
    if request.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        *request.headers_mut() = without_extensions(request.headers());
    }
    Some(SocketPlan {
        socket: Rc::new(socket),
        claimed,
        reads_connects: terms.login.contains(&SocketLoginPlace::SocketIo),
    })
}

/// The same fields in the same order, but for the extensions.
fn without_extensions(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if *name != SEC_WEBSOCKET_EXTENSIONS {
            kept.append(name, value.clone());
        }
    }
    kept
}

/// The login in a handshake.
fn handshake(
    snapshot: &Snapshot,
    places: &[SocketLoginPlace],
    headers: &HeaderMap,
    uri: &Uri,
) -> Option<Box<str>> {
    places.iter().find_map(|place| match place {
        SocketLoginPlace::Handshake => credentials(snapshot, headers).map(Into::into),
        SocketLoginPlace::Query(name) => {
            let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
            let mut values = pairs.filter(|(key, _)| key == name);
            values
                .next()
                .map(|(_, login)| login.into_owned().into_boxed_str())
        }
        SocketLoginPlace::SocketIo => None,
    })
}

// === impl SocketPlan ===

impl SocketPlan {
    /// The answer to hand on: a tunnel is inspected.
    pub(crate) fn response(
        self,
        mut response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, ProxyError> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        if response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            // A client fails such a connection (RFC 6455 §4.1), and messages could not be read.
            return Err(ProxyError {
                kind: ProxyErrorKind::BadResponse,
                retry: AnotherAttempt::Never,
                source: Some(
                    "the backend agreed to a WebSocket extension that nobody offered".into(),
                ),
            });
        }
        let Self {
            socket,
            claimed,
            reads_connects,
        } = self;
        RequestLogins::bear_out(claimed, &socket);
        if socket.is_shared
            && let Some(sharing) = socket.sharing()
        {
            // Other replicas may have heard the logins until now. The store won't have them for as long as a tunnel lives.
            sharing.attend(socket.logins());
        }
        response.body_mut().on_tunnel(Box::new(SocketInspection {
            relay: Relay::default(),
            client: ClientFrames::new(reads_connects),
            socket,
        }));
        Ok(response)
    }
}

// === impl Socket ===

impl Socket {
    fn new(
        shared: &Arc<Shared>,
        is_enforced: IsEnforced,
        facts: HandshakeFacts,
        logins: Option<Arc<SocketLogins>>,
        binary: bool,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            is_enforced,
            is_shared: logins.as_ref().is_some_and(|logins| logins.is_shared()),
            logins: logins.map_or_else(OnceCell::new, OnceCell::from),
            facts,
            binary,
        }
    }

    /// The logins, which are kept from now on.
    fn logins(&self) -> &Arc<SocketLogins> {
        let sessions = &self.shared.socket_sessions;
        self.logins.get_or_init(|| sessions.begin(None))
    }

    /// What all packets are rewritten with.
    fn packets(socket: &Rc<Self>) -> SocketPackets {
        let parts = MessageParts::of(Rc::clone(socket) as Rc<dyn MessageSource>);
        let session = socket.binary.then(|| Arc::clone(socket.logins()));
        SocketPackets::new(parts, session)
    }

    /// The replicas' sharing of logins, as it is configured by now.
    fn sharing(&self) -> Option<LoginSharing> {
        LoginSharing::of(&self.shared, &self.shared.current.load())
    }
}

impl MessageSource for Socket {
    /// While all is observed no message waits: the answer counts for later ones.
    fn learning(&self, namespace: &str) -> Option<Learning> {
        let logins = self.logins.get().filter(|logins| logins.is_shared())?;
        let snapshot = self.shared.current.load();
        if !is_on(&snapshot) {
            return None;
        }
        let sharing = LoginSharing::of(&self.shared, &snapshot)?;
        let Config {
            reissue, decision, ..
        } = &snapshot.config;
        let observing = reissue.mode == ReissueMode::Observe
            || decision.mode == DecisionMode::Observe
            || decision.enforce_percent == 0;
        if observing {
            sharing.attend(logins);
            return None;
        }
        let logins = Arc::clone(logins);
        Some(Box::pin(sharing.learn(logins, namespace.into())))
    }

    /// On the terms that the configuration has by now.
    fn parts(&self, namespace: &str) -> Option<super::Parts> {
        let shared = &self.shared;
        let snapshot = shared.current.load_full();
        if !is_on(&snapshot) {
            return None;
        }
        let target = self.facts.target();
        let path = target.split('?').next()?;
        let SocketTerms { terms, .. } = SocketTerms::of(&snapshot.config, path)?;
        let route = snapshot.reissue_metrics.get(terms.position)?;
        let logins = self.logins.get();
        let login = logins.and_then(|logins| logins.of(namespace));
        let caller = login.and_then(|login| caller(shared, &snapshot, &login));
        Some(parts(PartsSetting {
            shared,
            snapshot: &snapshot,
            request_id: self.facts.id(),
            client: self.facts.client(),
            since: shared.clock.elapsed(),
            terms,
            route,
            caller,
            is_enforced: &|subject| (self.is_enforced)(&snapshot, subject),
            target,
        }))
    }
}

/// The inspection of one tunnel.
struct SocketInspection {
    relay: Relay,
    client: ClientFrames,
    socket: Rc<Socket>,
}

impl Inspection for SocketInspection {
    fn sent(&mut self, bytes: &[u8]) {
        let socket = &self.socket;
        if socket.is_shared
            && socket.logins().is_due(socket.shared.clock.elapsed())
            && let Some(sharing) = socket.sharing()
        {
            sharing.attend(socket.logins());
        }
        self.client.read(bytes, |message| {
            let Some(packet) = packet::connect(message) else {
                return;
            };
            if packet.token.is_some() || socket.logins.get().is_some() {
                let logins = socket.logins();
                logins.connect(&packet.namespace, packet.token.as_deref());
            }
        });
    }

    fn put_back(&mut self, room: &mut [u8]) -> usize {
        self.relay.put_back(room)
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        self.relay.take(&Socket::packets(&self.socket), bytes)
    }

    fn end(&mut self) {
        self.relay.end();
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.relay.is_idle() {
            return Poll::Ready(None);
        }
        let packets = Socket::packets(&self.socket);
        self.relay.poll_data(&packets, context)
    }

    fn farewell(&self) -> Option<&'static [u8]> {
        let broken = self.relay.is_broken();
        broken.then_some(frame::MASKED_CLOSE_PROTOCOL_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_idle_socket_keeps_stays_small() {
        // There is one of each for every open socket. Both just fit into what the allocator gives out.
        assert!(size_of::<SocketInspection>() <= 32);
        assert!(size_of::<Socket>() + 2 * size_of::<usize>() <= 64);
    }
}
