//! One packet of a socket: a text, bytes, or bytes in base64.
//!
//! Keeps true: bytes are searched where the rule says so, in base64 too, by the login of the namespace whose event they are
//! attached to; a packet in which nothing is replaced leaves byte for byte. One in base64 is held whole, at most
//! [`LONGEST`] bytes: a longer one leaves without its bytes, so that the client can count its attachments. Where bytes
//! aren't searched, that costs one comparison a packet.
//! Must not know: frames, payloads, how logins are kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::base64_packet::{self, Base64Reading};
use super::message::{MessageParts, MessageRewriter};
use super::packet::{self, MAIN};
use crate::logins::socket_logins::SocketLogins;
use crate::reissue::names::Before;
use crate::reissue::scan;

/// The longest packet in base64 that is searched.
const LONGEST: usize = 8 * 1024 * 1024;

/// The most bytes of a whole packet that are searched at once: what is found in them takes many times their memory.
const AT_ONCE: usize = 16 * 1024;

/// Rewrites the packets of one socket.
#[derive(Clone)]
pub(crate) struct SocketPackets {
    parts: MessageParts,
    /// The session, which knows whose the next attachment is; `None` where bytes aren't searched.
    session: Option<Arc<SocketLogins>>,
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketKind {
    Text,
    Bytes,
}

/// The rewriting of one packet.
pub(crate) enum PacketRewriter {
    Plain(MessageRewriter),
    Base64(Box<Base64Rewriter>),
}

/// The rewriting of bytes in base64.
pub(crate) struct Base64Rewriter {
    parts: MessageParts,
    /// Where the bytes belong.
    namespace: Box<str>,
    stage: Base64Stage,
}

enum Base64Stage {
    /// The packet isn't whole.
    Held(BytesMut),
    /// The packet is whole.
    Read {
        packet: Bytes,
        /// The ways to read it that may hold a token.
        readings: VecDeque<PacketReading>,
        /// The reading under way, and what has become of it so far.
        rewriting: Option<(PacketReading, MessageRewriter, WholeText)>,
    },
    /// The packet has been handed on, or is too long.
    Done(Option<Bytes>),
    /// The packet is a text of another kind.
    Text(MessageRewriter),
}

/// The text of a whole packet on its way through a rewriting.
#[derive(Default)]
pub(crate) struct WholeText {
    /// How many bytes have been given to it.
    given: usize,
    /// What it has made of them.
    pub new: BytesMut,
}

/// A way to read a packet that looks like base64.
enum PacketReading {
    Decoded(Base64Reading),
    /// As it is written: a plain text may begin with the same letter.
    Written(Bytes),
}

// === impl SocketPackets ===

impl SocketPackets {
    /// Packets with these parts; bytes are searched where the session is given.
    pub(crate) fn new(parts: MessageParts, session: Option<Arc<SocketLogins>>) -> Self {
        Self { parts, session }
    }

    /// The parts of what belongs to no packet.
    pub(crate) fn parts(&self) -> &MessageParts {
        &self.parts
    }

    /// Whether bytes are searched.
    pub(crate) fn searches_bytes(&self) -> bool {
        self.session.is_some()
    }

    /// Whether a packet that begins so has to be whole and decoded.
    pub(crate) fn is_base64(&self, kind: PacketKind, opening: &[u8]) -> bool {
        self.session.is_some() && kind == PacketKind::Text && base64_packet::is_base64(opening)
    }

    /// Whether a token may stand in a whole packet.
    pub(crate) fn may_hold_token(&self, kind: PacketKind, packet: &[u8]) -> bool {
        if kind == PacketKind::Bytes && self.session.is_none() {
            return false;
        }
        self.is_base64(kind, packet) || scan::may_hold_token(packet, false)
    }

    /// Begins the rewriting of a packet that begins so, and of which `before` was passed on; `None` where packets aren't
    /// searched any more.
    pub(crate) fn begin(
        &self,
        kind: PacketKind,
        opening: &[u8],
        before: &mut Before,
    ) -> Option<PacketRewriter> {
        if self.is_base64(kind, opening) {
            return Some(PacketRewriter::Base64(Box::new(Base64Rewriter {
                parts: self.parts.clone(),
                namespace: self.of_attachment(),
                stage: Base64Stage::Held(BytesMut::new()),
            })));
        }
        let message = match kind {
            PacketKind::Text => self.parts.begin(packet::namespace(opening), before),
            PacketKind::Bytes => self.parts.begin(&self.of_attachment(), before),
        };
        message.map(PacketRewriter::Plain)
    }

    /// The namespace of the next bytes.
    fn of_attachment(&self) -> Box<str> {
        let session = self.session.as_ref();
        let announced = session.and_then(|session| session.of_attachment());
        announced.unwrap_or_else(|| MAIN.into())
    }

    /// Notes that a packet has passed that began so.
    pub(crate) fn passed(&self, kind: PacketKind, opening: &[u8]) {
        let Some(session) = &self.session else {
            return;
        };
        if kind == PacketKind::Bytes || base64_packet::is_base64(opening) {
            session.attached();
        } else if opening.first() == Some(&b'4') {
            session.announce(packet::namespace(opening), packet::attachments(opening));
        }
    }
}

// === impl PacketRewriter ===

impl PacketRewriter {
    /// The next bytes from the backend.
    pub(crate) fn take(&mut self, data: Bytes) {
        match self {
            Self::Plain(message) => message.take(data),
            Self::Base64(packet) => packet.take(data),
        }
    }

    /// Notes that no more bytes will come.
    pub(crate) fn end(&mut self) {
        match self {
            Self::Plain(message) => message.end(),
            Self::Base64(packet) => packet.end(),
        }
    }

    /// The next bytes for the client; `None` asks for more, or after the end means that there are no more.
    pub(crate) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Self::Plain(message) => message.poll_data(context),
            Self::Base64(packet) => packet.poll_data(context),
        }
    }
}

// === impl WholeText ===

impl WholeText {
    /// The next bytes of the text to rewrite, and whether they are the last; `None` where all have been given.
    pub(crate) fn next(&mut self, text: &[u8]) -> Option<(Bytes, bool)> {
        let rest = text.get(self.given..).filter(|rest| !rest.is_empty())?;
        let part = rest.get(..AT_ONCE).unwrap_or(rest);
        self.given += part.len();
        Some((Bytes::copy_from_slice(part), self.given == text.len()))
    }
}

// === impl Base64Rewriter ===

impl Base64Rewriter {
    fn take(&mut self, data: Bytes) {
        match &mut self.stage {
            Base64Stage::Held(held) if held.len() + data.len() <= LONGEST => {
                held.extend_from_slice(&data);
            }
            Base64Stage::Held(held) => {
                let held = std::mem::take(held).freeze();
                self.stage = self.too_long(held, data);
            }
            Base64Stage::Text(message) => message.take(data),
            Base64Stage::Read { .. } | Base64Stage::Done(_) => {}
        }
    }

    /// The stage of a packet that can't be held: it passes where it is no base64, or nothing is replaced.
    fn too_long(&self, held: Bytes, data: Bytes) -> Base64Stage {
        let parts = self.parts.now(&self.namespace);
        let is_other = base64_packet::is_other_text(&held);
        if let Some(parts) = parts.as_ref().filter(|_| !is_other) {
            let why = "a packet in base64 is too long to be searched";
            parts.ledger.unreadable(why);
            if !parts.ledger.observing {
                let empty = Bytes::from_static(base64_packet::empty(&held).as_bytes());
                return Base64Stage::Done(Some(empty));
            }
        }
        let text = self.parts.begin(MAIN, &mut Before::default());
        let mut text = text.unwrap_or_else(|| MessageRewriter::Passes(VecDeque::new()));
        text.take(held);
        text.take(data);
        Base64Stage::Text(text)
    }

    fn end(&mut self) {
        match &mut self.stage {
            Base64Stage::Held(held) => {
                let packet = std::mem::take(held).freeze();
                let decoded = base64_packet::readings(&packet).into_iter();
                let decoded = decoded.map(PacketReading::Decoded);
                let readings = decoded.chain([PacketReading::Written(packet.clone())]);
                let may_hold =
                    |reading: &PacketReading| scan::may_hold_token(reading.text(), false);
                self.stage = Base64Stage::Read {
                    readings: readings.filter(may_hold).collect(),
                    packet,
                    rewriting: None,
                };
            }
            Base64Stage::Text(message) => message.end(),
            Base64Stage::Read { .. } | Base64Stage::Done(_) => {}
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let whole = match &mut self.stage {
            Base64Stage::Held(_) => return Poll::Ready(None),
            Base64Stage::Text(message) => return message.poll_data(context),
            Base64Stage::Done(packet) => packet.take(),
            Base64Stage::Read { .. } => {
                let rewritten = ready!(self.read(context));
                self.stage = Base64Stage::Done(None);
                rewritten
            }
        };
        Poll::Ready(whole.filter(|whole| !whole.is_empty()))
    }

    /// The packet, after the first of its readings in which something is replaced.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Base64Stage::Read {
            packet,
            readings,
            rewriting,
        } = &mut self.stage
        else {
            return Poll::Ready(None);
        };
        loop {
            if let Some((reading, message, text)) = rewriting {
                while let Some(data) = ready!(message.poll_data(context)) {
                    text.new.extend_from_slice(&data);
                }
                if let Some((part, is_last)) = text.next(reading.text()) {
                    message.take(part);
                    if is_last {
                        message.end();
                    }
                    continue;
                }
                if text.new != reading.text() {
                    return Poll::Ready(Some(reading.write(&text.new)));
                }
                *rewriting = None;
            }
            let Some(reading) = readings.pop_front() else {
                return Poll::Ready(Some(std::mem::take(packet)));
            };
            let namespace = match &reading {
                PacketReading::Decoded(_) => &*self.namespace,
                PacketReading::Written(_) => MAIN,
            };
            if let Some(message) = self.parts.begin(namespace, &mut Before::default()) {
                *rewriting = Some((reading, message, WholeText::default()));
            }
        }
    }
}

// === impl PacketReading ===

impl PacketReading {
    /// What a client sees that reads it so.
    fn text(&self) -> &[u8] {
        match self {
            Self::Decoded(reading) => &reading.bytes,
            Self::Written(packet) => packet,
        }
    }

    /// The packet that a client reads so as these bytes.
    fn write(&self, bytes: &[u8]) -> Bytes {
        match self {
            Self::Decoded(reading) => reading.write(bytes).into(),
            Self::Written(_) => Bytes::copy_from_slice(bytes),
        }
    }
}
