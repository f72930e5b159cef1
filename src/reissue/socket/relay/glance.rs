//! Frames in which no token can be: they leave as they came, many at once.
//!
//! Keeps true: what may hold a token, or may begin one or base64, stops the look; however many frames there are, their
//! bytes are searched once, and once more behind each that looked like a token and was none.
//! Must not know: what becomes of the frame at which it stops.

use super::super::frame::{FrameHead, Opcode};
use super::super::packet::opening;
use super::super::packet_rewriter::{PacketKind, SocketPackets};
use super::FramesUnderWay;
use super::message::MessageSoFar;
use crate::reissue::scan;

impl FramesUnderWay {
    /// How many of these bytes are frames, or parts of frames, in which no token can be.
    pub(super) fn glance(&mut self, packets: &SocketPackets, bytes: &[u8]) -> usize {
        let mut at = 0;
        // All frames are searched at once: there may be very many, of a few bytes each.
        let mut opening = None;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.passing > 0 {
                let passes =
                    usize::try_from(self.passing).map_or(rest.len(), |left| left.min(rest.len()));
                self.passing -= passes as u64;
                at += passes;
                continue;
            }
            let Ok(Some(head)) = self.head(rest) else {
                break;
            };
            if self.is_searched(packets, head) {
                let whole = usize::try_from(head.total()).ok();
                let Some(payload) = whole.and_then(|whole| rest.get(head.size..whole)) else {
                    break;
                };
                if self.begins_base64(packets, head, payload) {
                    // There may be very many of these too.
                    break;
                }
                let first = match opening.filter(|first| *first >= at) {
                    Some(first) => first,
                    None => at + scan::first_opening(rest),
                };
                opening = Some(first);
                let end = at + head.size + payload.len();
                if self.may_hold_token(packets, head, payload, first < end) {
                    break;
                }
                self.note(packets, head, payload);
                at = end;
                if self.message.is_none() {
                    let before_first = bytes.get(at..first).unwrap_or_default();
                    at += plain_messages(packets, before_first);
                }
            } else {
                self.note(packets, head, &[]);
                self.passing = head.length;
                at += head.size;
            }
        }
        at
    }

    /// Hands on the held frames in which no token can be; false where the first isn't one of them, or isn't whole.
    pub(super) fn let_pass_at_once(&mut self, packets: &SocketPackets) -> bool {
        let mut held = std::mem::take(&mut self.held);
        let passes = self.glance(packets, &held);
        if passes > 0 {
            self.output.push_back(held.split_to(passes).freeze());
        }
        self.held = held;
        passes > 0
    }

    /// Whether the message under way has a backslash before its next text: a `"` after one begins no string.
    pub(super) fn is_after_backslash(&self) -> bool {
        self.message
            .as_ref()
            .is_some_and(MessageSoFar::ends_in_backslash)
    }

    fn is_searched(&self, packets: &SocketPackets, head: FrameHead) -> bool {
        let opcode = match (head.opcode, &self.message) {
            (Opcode::Continuation, Some(message)) => message.opcode,
            (opcode, _) => opcode,
        };
        opcode == Opcode::Text || (opcode == Opcode::Binary && packets.searches_bytes())
    }

    /// Whether a token may stand in a frame's payload, or begin at its end, or be written in base64. Where no token
    /// `may_be_whole`, only the end is looked at, and a message's end begins none.
    pub(super) fn may_hold_token(
        &self,
        packets: &SocketPackets,
        head: FrameHead,
        payload: &[u8],
        may_be_whole: bool,
    ) -> bool {
        let after_backslash = self.is_after_backslash();
        self.begins_base64(packets, head, payload)
            || if may_be_whole {
                scan::may_hold_token(payload, after_backslash)
            } else {
                !head.fin && scan::may_end_in_token(payload, after_backslash)
            }
    }

    /// Whether a frame with this payload begins a message of bytes in base64.
    pub(super) fn begins_base64(
        &self,
        packets: &SocketPackets,
        head: FrameHead,
        payload: &[u8],
    ) -> bool {
        let opcode = match &self.message {
            None => head.opcode,
            // Empty frames may come first.
            Some(message) if message.opening.is_empty() => message.opcode,
            Some(_) => return false,
        };
        packets.is_base64(kind(opcode), payload)
    }

    /// Notes a frame that leaves as it came.
    pub(super) fn note(&mut self, packets: &SocketPackets, head: FrameHead, payload: &[u8]) {
        if head.opcode == Opcode::Control {
            return;
        }
        if head.fin {
            match self.message.take() {
                None => packets.passed(kind(head.opcode), opening(payload)),
                Some(mut message) => {
                    message.see(payload);
                    packets.passed(kind(message.opcode), &message.opening);
                }
            }
            return;
        }
        let message = self
            .message
            .get_or_insert_with(|| MessageSoFar::new(head.opcode));
        message.begun = true;
        message.see(payload);
        message.before.push(payload);
    }
}

/// How many of these bytes, in which no token is whole, are texts of one frame each, of which nothing needs to be noted. Most
/// are, and there may be very many: each costs little more than its head.
fn plain_messages(packets: &SocketPackets, bytes: &[u8]) -> usize {
    let mut at = 0;
    if packets.searches_bytes() {
        // Whose the next attachment is, is noted.
        return at;
    }
    while let Some(rest) = bytes.get(at..)
        && let Ok(Some(FrameHead {
            fin: true,
            opcode: Opcode::Text,
            mask: None,
            size,
            length,
        })) = FrameHead::parse(rest)
        && length <= (rest.len() - size) as u64
    {
        at += size + usize::try_from(length).unwrap_or_default();
    }
    at
}

/// How a message with this opcode came.
pub(super) fn kind(opcode: Opcode) -> PacketKind {
    match opcode {
        Opcode::Binary => PacketKind::Bytes,
        Opcode::Text | Opcode::Continuation | Opcode::Control => PacketKind::Text,
    }
}
