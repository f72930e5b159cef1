//! Answers with lengths in them, or within JSONP: they are taken apart once they are whole.
//!
//! Keeps true: at most [`LONGEST`] bytes are held; a payload that is longer, and one that can't be read and may hold a
//! token, never leaves unless all is only observed; one in which nothing is replaced leaves byte for byte.
//! Must not know: what packets say.
//!
//! Without `b64=1` engine.io's protocol 3 writes a payload with bytes in it into JSONP as `{"type":"Buffer","data":[…]}`, its
//! texts among them as numbers. Its own client can't read that, and always sends `b64=1` there: so it never leaves either.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::super::packet::{MAIN, opening};
use super::super::packet_rewriter::{PacketKind, PacketRewriter, WholeText};
use super::super::payload::{self, Payload, PollingFormat};
use super::PollingSetting;
use crate::exchange::rewrite::Rewrite;
use crate::reissue::body_fields;
use crate::reissue::names::Before;
use crate::reissue::scan;

/// The longest payload with lengths in it. engine.io takes a hundredth of that from a client, and servers rarely send
/// more.
pub(super) const LONGEST: usize = 8 * 1024 * 1024;

/// What text packets of bytes begin with, and may follow in a payload that can't be read: a length, the beginning of a
/// JSONP payload, or a separator in one.
const MAY_CARRY_BYTES: [&[u8]; 5] = [b":b", b"(\"b", b"('b", b"\\u001eb", b"\x1eb"];

/// An answer that is taken apart.
pub(super) struct WholeRewrite {
    setting: PollingSetting,
    held: BytesMut,
    payload: Option<Payload>,
    /// The packet under way, and its bytes so far.
    packet: Option<(usize, PacketRewriter, WholeText)>,
    /// The number of the next packet.
    next: usize,
    /// Whether something was replaced.
    changed: bool,
    stage: WholeStage,
}

enum WholeStage {
    /// The payload isn't whole.
    Reading,
    /// The payload is whole.
    Read,
    /// The payload has been handed on, or another in its place that is left to be.
    Done(Option<Bytes>),
    /// The payload is too long, and passes all the same.
    Passing(Option<Bytes>),
}

impl WholeRewrite {
    /// A rewriting that has seen nothing.
    pub(super) fn new(setting: PollingSetting) -> Self {
        Self {
            setting,
            held: BytesMut::new(),
            payload: None,
            packet: None,
            next: 0,
            changed: false,
            stage: WholeStage::Reading,
        }
    }

    /// Works off the packets, one after the other.
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let packets = &self.setting.packets;
        let Some(payload) = &mut self.payload else {
            return Poll::Ready(());
        };
        loop {
            if let Some((number, rewriter, text)) = &mut self.packet {
                while let Some(data) = ready!(rewriter.poll_data(context)) {
                    text.new.extend_from_slice(&data);
                }
                if let Some(packet) = payload.packets.get_mut(*number) {
                    let (kind, before) = packet.read();
                    if let Some((part, is_last)) = text.next(before) {
                        rewriter.take(part);
                        if is_last {
                            rewriter.end();
                        }
                        continue;
                    }
                    packets.passed(kind, opening(before));
                    if text.new != before {
                        self.changed = true;
                        packet.replace(&text.new);
                    }
                }
                self.packet = None;
            }
            let number = self.next;
            let Some(packet) = payload.packets.get(number) else {
                return Poll::Ready(());
            };
            self.next += 1;
            let (kind, bytes) = packet.read();
            if kind == PacketKind::Text {
                self.setting.tell_id(bytes);
            }
            let rewriter = if packets.may_hold_token(kind, bytes) {
                packets.begin(kind, opening(bytes), &mut Before::default())
            } else {
                None
            };
            let Some(rewriter) = rewriter else {
                packets.passed(kind, opening(bytes));
                continue;
            };
            self.packet = Some((number, rewriter, WholeText::default()));
        }
    }

    /// Whether a payload that can't be read may leave: a message of the server for a person, such as an error.
    fn may_pass(&self) -> bool {
        let held = &self.held[..];
        let is_bytes =
            payload::script(held).is_some_and(|(_, argument)| argument.starts_with(b"{"));
        let mut bytes = MAY_CARRY_BYTES.iter();
        let may_carry_bytes = self.setting.packets.searches_bytes()
            && bytes.any(|begin| memchr::memmem::find(held, begin).is_some());
        !is_bytes && !may_carry_bytes && !scan::may_hold_token(held, true)
    }

    /// The answer in place of one that can't be searched: nothing that may hold a token leaves. `None` where answers pass
    /// as they are.
    fn in_place(&self) -> Option<Bytes> {
        let parts = self.setting.packets.parts().now(MAIN)?;
        let why = "an answer of engine.io's polling transport is too long, or isn't one";
        parts.ledger.unreadable(why);
        (!parts.ledger.observing).then(|| self.nothing())
    }

    /// A payload of one packet that does nothing.
    fn nothing(&self) -> Bytes {
        let held = &self.held[..];
        match PollingFormat::of(held) {
            Some(PollingFormat::Jsonp) => {
                let (call, argument) = payload::script(held).unwrap_or((b"___eio[0](", b""));
                let inner = argument.strip_prefix(b"\"").unwrap_or_default();
                let separated = PollingFormat::of(inner) == Some(PollingFormat::Separated);
                let payload = if separated { "\"6\");" } else { "\"1:6\");" };
                [call, payload.as_bytes()].concat().into()
            }
            _ if self.setting.counted_by_url => Bytes::from_static(b"1:6"),
            Some(PollingFormat::Binary) => Bytes::from_static(b"1:6"),
            _ => Bytes::from_static(b"6"),
        }
    }

    /// The payload as it leaves.
    fn outcome(&mut self) -> Bytes {
        match &self.payload {
            Some(payload) if self.changed => return payload.write().into(),
            None if !self.may_pass() => {
                if let Some(instead) = self.in_place() {
                    return instead;
                }
            }
            _ => {}
        }
        std::mem::take(&mut self.held).freeze()
    }
}

impl Rewrite for WholeRewrite {
    fn take(&mut self, data: Bytes) {
        match &mut self.stage {
            WholeStage::Reading => {
                self.held.extend_from_slice(&data);
                if self.held.len() > LONGEST {
                    self.stage = match self.in_place() {
                        Some(instead) => WholeStage::Done(Some(instead)),
                        None => WholeStage::Passing(Some(self.held.split().freeze())),
                    };
                    self.held = BytesMut::new();
                }
            }
            WholeStage::Passing(next) => *next = Some(data),
            WholeStage::Read | WholeStage::Done(_) => {}
        }
    }

    fn end(&mut self) {
        if matches!(self.stage, WholeStage::Reading) {
            self.payload = Payload::parse(&self.held, self.setting.counted_by_url);
            self.stage = WholeStage::Read;
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let data = match &mut self.stage {
            WholeStage::Reading => None,
            WholeStage::Done(data) | WholeStage::Passing(data) => data.take(),
            WholeStage::Read => {
                ready!(self.go_on(context));
                self.stage = WholeStage::Done(None);
                Some(self.outcome())
            }
        };
        Poll::Ready(data.filter(|data| !data.is_empty()))
    }

    fn trailers(&mut self, trailers: HeaderMap) -> HeaderMap {
        body_fields::trailers(trailers)
    }

    fn keeps_length(&self) -> bool {
        false
    }
}
