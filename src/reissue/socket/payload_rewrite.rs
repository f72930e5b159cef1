//! Answers of the polling transport on their way: each packet is judged by the login of its own namespace.
//!
//! Keeps true: what is held back is one packet of at most [`HELD`] bytes where packets are separated, and the whole
//! payload where lengths stand in it; a payload that is longer than [`LONGEST`] or isn't one at all never leaves as it
//! came; a session's id is told as soon as the backend has told it.
//! Must not know: HTTP but for trailers, who keeps sessions.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use serde::Deserialize;

use super::message::{MessageParts, MessageRewriter};
use super::payload::{Payload, PayloadPacket, PollingFormat, SEPARATOR};
use crate::exchange::rewrite::Rewrite;
use crate::reissue::body_fields;
use crate::reissue::names::Before;
use crate::reissue::scan;

/// The most bytes of one packet that are held until it is known to hold no token.
const HELD: usize = 64 * 1024;

/// The longest payload with lengths in it. engine.io takes a hundredth of that from a client, and servers rarely send
/// more.
const LONGEST: usize = 8 * 1024 * 1024;

/// How much of a packet's beginning tells its namespace.
const OPENING: usize = 256;

/// Told of the id in the packet that opens a session.
pub(crate) type OnOpen = Box<dyn Fn(&str)>;

/// The packet that opens a session.
#[derive(Deserialize)]
struct OpenPacket<'p> {
    sid: &'p str,
}

/// Tells the session's id, if the packet opens one.
fn tell_id(packet: &[u8], on_open: &OnOpen) {
    let open = packet.strip_prefix(b"0");
    let open: Option<OpenPacket<'_>> = open.and_then(|open| serde_json::from_slice(open).ok());
    if let Some(open) = open {
        on_open(open.sid);
    }
}

/// An answer whose packets are separated (engine.io's protocol 4).
pub(crate) struct SeparatedRewrite {
    parts: MessageParts,
    on_open: OnOpen,
    held: BytesMut,
    /// How many held bytes are known to hold no separator.
    searched: usize,
    packet: Option<PacketRewriting>,
    output: VecDeque<Bytes>,
    ended: bool,
}

struct PacketRewriting {
    rewriter: MessageRewriter,
    /// The packet has ended; whether a separator follows.
    over: Option<bool>,
}

impl SeparatedRewrite {
    /// A rewriting that has seen nothing.
    pub(crate) fn new(parts: MessageParts, on_open: OnOpen) -> Self {
        Self {
            parts,
            on_open,
            held: BytesMut::new(),
            searched: 0,
            packet: None,
            output: VecDeque::new(),
            ended: false,
        }
    }

    /// Takes the next part of a packet out of what is held; false where more bytes are needed.
    fn next_part(&mut self) -> bool {
        let fresh = self.held.get(self.searched..).unwrap_or_default();
        let end = memchr::memchr(SEPARATOR, fresh).map(|at| self.searched + at);
        let over = match end {
            Some(_) => Some(true),
            None if self.ended => Some(false),
            None if self.packet.is_some() || self.held.len() > HELD => None,
            None => {
                self.searched = self.held.len();
                return false;
            }
        };
        let part = self.held.split_to(end.unwrap_or(self.held.len())).freeze();
        if end.is_some() {
            self.held.advance(1);
        }
        self.searched = 0;
        if part.is_empty() && over.is_none() {
            return false;
        }
        self.go_on(part, over);
        true
    }

    fn go_on(&mut self, part: Bytes, over: Option<bool>) {
        if self.packet.is_none() {
            tell_id(&part, &self.on_open);
            let plain = over.is_some() && !scan::may_hold_token(&part, false);
            let opening = part.get(..OPENING).unwrap_or(&part);
            let rewriter = if plain {
                None
            } else {
                self.parts.begin(opening, &mut Before::default())
            };
            let Some(rewriter) = rewriter else {
                self.output.push_back(part);
                if over == Some(true) {
                    self.output.push_back(Bytes::from_static(&[SEPARATOR]));
                }
                return;
            };
            self.packet = Some(PacketRewriting {
                rewriter,
                over: None,
            });
        }
        if let Some(packet) = &mut self.packet {
            if !part.is_empty() {
                packet.rewriter.take(part);
            }
            if over.is_some() {
                packet.rewriter.end();
            }
            packet.over = over;
        }
    }
}

impl Rewrite for SeparatedRewrite {
    fn take(&mut self, data: Bytes) {
        self.held.extend_from_slice(&data);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(data) = self.output.pop_front() {
                if !data.is_empty() {
                    return Poll::Ready(Some(data));
                }
                continue;
            }
            if let Some(packet) = &mut self.packet {
                if let Some(data) = ready!(packet.rewriter.poll_data(context)) {
                    return Poll::Ready(Some(data));
                }
                if let Some(separated) = packet.over {
                    self.packet = None;
                    if separated {
                        self.output.push_back(Bytes::from_static(&[SEPARATOR]));
                    }
                    continue;
                }
            }
            let ends_packet = self.ended && self.packet.is_some();
            if (self.held.is_empty() && !ends_packet) || !self.next_part() {
                return Poll::Ready(None);
            }
        }
    }

    fn trailers(&mut self, trailers: HeaderMap) -> HeaderMap {
        body_fields::trailers(trailers)
    }

    fn keeps_length(&self) -> bool {
        false
    }
}

/// An answer with lengths in it, or within JSONP: it is taken apart once it is whole.
pub(crate) struct WholeRewrite {
    parts: MessageParts,
    on_open: OnOpen,
    format: PollingFormat,
    held: BytesMut,
    payload: Option<Payload>,
    /// The packet under way, and its text so far.
    packet: Option<(usize, MessageRewriter, BytesMut)>,
    /// The number of the next packet.
    next: usize,
    stage: WholeStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WholeStage {
    /// The payload isn't whole.
    Reading,
    /// The payload is longer than it may be.
    TooLong,
    /// The payload is whole.
    Read,
    /// The payload has been handed on.
    Done,
}

impl WholeRewrite {
    /// A rewriting that has seen nothing.
    pub(crate) fn new(parts: MessageParts, on_open: OnOpen, format: PollingFormat) -> Self {
        Self {
            parts,
            on_open,
            format,
            held: BytesMut::new(),
            payload: None,
            packet: None,
            next: 0,
            stage: WholeStage::Reading,
        }
    }

    /// Works off the packets, one after the other.
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(payload) = &mut self.payload else {
            return Poll::Ready(());
        };
        loop {
            if let Some((number, rewriter, text)) = &mut self.packet {
                while let Some(data) = ready!(rewriter.poll_data(context)) {
                    text.extend_from_slice(&data);
                }
                let text = String::from_utf8_lossy(text).into_owned();
                if let Some(packet) = payload.packets.get_mut(*number) {
                    *packet = PayloadPacket::Text(text);
                }
                self.packet = None;
            }
            let number = self.next;
            let Some(packet) = payload.packets.get(number) else {
                return Poll::Ready(());
            };
            self.next += 1;
            let PayloadPacket::Text(text) = packet else {
                continue;
            };
            tell_id(text.as_bytes(), &self.on_open);
            if !scan::may_hold_token(text.as_bytes(), false) {
                continue;
            }
            let text = text.as_bytes();
            let opening = text.get(..OPENING).unwrap_or(text);
            if let Some(mut rewriter) = self.parts.begin(opening, &mut Before::default()) {
                rewriter.take(Bytes::copy_from_slice(text));
                rewriter.end();
                self.packet = Some((number, rewriter, BytesMut::new()));
            }
        }
    }

    /// The answer in place of one that can't be searched: nothing that may hold a token leaves.
    fn unreadable(&self) -> Bytes {
        if let Some(parts) = self.parts.now(b"") {
            parts
                .ledger
                .unreadable("an answer of engine.io's polling transport is too long, or isn't one");
        }
        Bytes::from_static(match self.format {
            PollingFormat::Jsonp { counted: true } => b"___eio[0](\"1:6\");",
            PollingFormat::Jsonp { counted: false } => b"___eio[0](\"6\");",
            // A packet that does nothing.
            PollingFormat::Counted => b"1:6",
            PollingFormat::Separated => b"6",
        })
    }
}

impl Rewrite for WholeRewrite {
    fn take(&mut self, data: Bytes) {
        if self.held.len() + data.len() > LONGEST {
            self.stage = WholeStage::TooLong;
            self.held = BytesMut::new();
        }
        if self.stage == WholeStage::Reading {
            self.held.extend_from_slice(&data);
        }
    }

    fn end(&mut self) {
        if self.stage == WholeStage::Reading {
            self.stage = WholeStage::Read;
            self.payload = Payload::parse(&self.held, self.format);
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.stage != WholeStage::Read {
            let too_long = self.stage == WholeStage::TooLong && self.next == 0;
            self.next += usize::from(too_long);
            return Poll::Ready(too_long.then(|| self.unreadable()));
        }
        ready!(self.go_on(context));
        self.stage = WholeStage::Done;
        let held = std::mem::take(&mut self.held).freeze();
        Poll::Ready(match &self.payload {
            Some(payload) => Some(payload.write().into()),
            // A message of the server for a person, such as an error.
            None if !scan::may_hold_token(&held, true) => {
                Some(held).filter(|held| !held.is_empty())
            }
            None => Some(self.unreadable()),
        })
    }

    fn trailers(&mut self, trailers: HeaderMap) -> HeaderMap {
        body_fields::trailers(trailers)
    }

    fn keeps_length(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::Waker;

    use super::super::message::PartsOf;
    use super::*;
    use crate::agora::TokenFormat;
    use crate::reissue::rewriter::tests::{DAY, OURS, anew, parts_for_ann, token};

    /// What comes out, the ids that were told, and the beginnings of the packets that were searched.
    fn rewritten(format: PollingFormat, body: &[u8], chunk: usize) -> (String, Vec<String>) {
        let parts: PartsOf = Box::new(|_: &[u8]| {
            let (mut parts, _) = parts_for_ann(false, 0);
            parts.nulls = true;
            Some(parts)
        });
        let parts = MessageParts::from(parts);
        let ids: Rc<RefCell<Vec<String>>> = Rc::default();
        let told = Rc::clone(&ids);
        let on_open: OnOpen = Box::new(move |id| told.borrow_mut().push(id.to_owned()));
        let mut rewrite: Box<dyn Rewrite> = match format {
            PollingFormat::Separated => Box::new(SeparatedRewrite::new(parts, on_open)),
            format => Box::new(WholeRewrite::new(parts, on_open, format)),
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut out = Vec::new();
        let chunks = body.chunks(chunk).map(Some).chain([None]);
        for chunk in chunks {
            match chunk {
                Some(chunk) => rewrite.take(Bytes::copy_from_slice(chunk)),
                None => rewrite.end(),
            }
            loop {
                match rewrite.poll_data(&mut context) {
                    Poll::Ready(Some(data)) => out.extend_from_slice(&data),
                    Poll::Ready(None) => break,
                    Poll::Pending => {}
                }
            }
        }
        let ids = ids.borrow().clone();
        (String::from_utf8(out).unwrap(), ids)
    }

    /// A payload of four packets, two of which hold a token: for a channel that the caller may have, and for one that
    /// they may not.
    fn packets(given: &str, withheld: &str) -> [String; 4] {
        [
            "0{\"sid\":\"abc\",\"upgrades\":[\"websocket\"]}".to_owned(),
            format!("42[\"call:token\",{{\"name\":\"grüße 😀\",\"token\":{given}}}]"),
            "2".to_owned(),
            format!("42/ns,[\"call:token\",{{\"token\":{withheld}}}]"),
        ]
    }

    fn before_and_after() -> ([String; 4], [String; 4]) {
        let old = |channel| format!("\"{}\"", token(TokenFormat::V007, OURS, channel, DAY));
        let before = packets(&old("show"), &old("banned"));
        let after = packets(&anew(TokenFormat::V007, "show"), "null");
        (before, after)
    }

    fn counted(packets: &[String]) -> String {
        let counted = packets.iter().map(|packet| {
            let units = packet.encode_utf16().count();
            format!("{units}:{packet}")
        });
        counted.collect()
    }

    fn jsonp(payload: &str) -> String {
        format!("___eio[3]({});", serde_json::to_string(payload).unwrap())
    }

    #[test]
    fn tokens_are_replaced_in_payloads_of_every_protocol_however_they_are_cut() {
        let (before, after) = before_and_after();
        let separated = |packets: &[String]| packets.join("\u{1e}");
        for (format, body, expected) in [
            (
                PollingFormat::Separated,
                separated(&before),
                separated(&after),
            ),
            (PollingFormat::Counted, counted(&before), counted(&after)),
            (
                PollingFormat::Jsonp { counted: true },
                jsonp(&counted(&before)),
                jsonp(&counted(&after)),
            ),
            (
                PollingFormat::Jsonp { counted: false },
                jsonp(&separated(&before)),
                jsonp(&separated(&after)),
            ),
        ] {
            for chunk in [1, 7, 100, body.len()] {
                let (out, ids) = rewritten(format, body.as_bytes(), chunk);
                assert_eq!(out, expected, "{format:?} by {chunk}");
                assert_eq!(ids, ["abc"]);
            }
        }
    }

    #[test]
    fn a_long_packet_passes_without_being_held_whole() {
        let (before, after) = before_and_after();
        let filler = "x ".repeat(2 * HELD);
        let body = |packets: &[String]| format!("4{filler}{}\u{1e}{}", packets[1], packets[3]);
        let (out, _) = rewritten(PollingFormat::Separated, body(&before).as_bytes(), 8192);
        assert!(out == body(&after));
    }

    #[test]
    fn what_is_no_payload_passes_without_a_token_and_is_replaced_with_one() {
        let error = "{\"code\":1,\"message\":\"Session ID unknown\"}";
        let token = token(TokenFormat::V007, OURS, "show", DAY);
        for (format, noop) in [
            (PollingFormat::Counted, "1:6"),
            (
                PollingFormat::Jsonp { counted: true },
                "___eio[0](\"1:6\");",
            ),
            (PollingFormat::Jsonp { counted: false }, "___eio[0](\"6\");"),
        ] {
            assert_eq!(rewritten(format, error.as_bytes(), 10).0, error);
            let hidden = format!("999999:42[\"{token}\"]");
            assert_eq!(rewritten(format, hidden.as_bytes(), 10).0, noop);
            let long = "x".repeat(LONGEST + 1);
            assert_eq!(rewritten(format, long.as_bytes(), 64 * 1024).0, noop);
            assert_eq!(rewritten(format, b"", 1).0, "");
        }
        assert_eq!(
            rewritten(PollingFormat::Separated, error.as_bytes(), 10).0,
            error
        );
    }
}
