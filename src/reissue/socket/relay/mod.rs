//! What the backend sends over a WebSocket, on its way to the client: messages that hold tokens are written anew, all
//! others pass as they came.
//!
//! ```text
//!   whole frames without a suspect ──────────────► pass, uncopied
//!   a suspect ──► Keeping: data frames are kept while the message is rewritten; they leave as they came if nothing changes
//!   more than KEPT ──► Streaming: what is rewritten leaves in fragments, whatever the frames were
//! ```
//!
//! Keeps true: messages leave in the order in which they came, and so do control frames among themselves; a control frame
//! never waits for a message to end: it leaves before the frames that are kept, between fragments or before the first
//! (RFC 6455 §5.4), and never before a message that had ended when it came; no part of a text leaves before all of it
//! that may be a token was seen; at most [`KEPT`] bytes of frames are kept, and what the rewriting holds; nothing leaves
//! after a frame that breaks RFC 6455, but for the `Close` that says so.
//! Must not know: sockets, logins, what a token says.

mod glance;
mod message;

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use self::message::{MessageSoFar, Rewriting};
use super::frame::{self, BadFrame, FrameHead, LONGEST_HEAD, Opcode};
use super::packet_rewriter::SocketPackets;
use crate::reissue::scan;

/// The most bytes of frames that are kept until their message is known to hold no token, or no further one.
pub(crate) const KEPT: usize = 64 * 1024;

/// The frames of one WebSocket, from the backend to the client. Whoever has it says with what its packets are rewritten.
#[derive(Default)]
pub(crate) struct Relay {
    /// Boxed, for between messages there is nothing to keep, and sockets are many and mostly idle.
    under_way: Option<Box<FramesUnderWay>>,
}

/// What is kept of frames that have begun and not left.
#[derive(Default)]
struct FramesUnderWay {
    /// The message that has begun and not ended.
    message: Option<MessageSoFar>,
    rewriting: Option<Box<Rewriting>>,
    /// How many bytes of the frame under way pass without a look.
    passing: u64,
    /// Read, and neither handed on nor taken to a message that is rewritten.
    held: BytesMut,
    output: VecDeque<Bytes>,
    broken: bool,
    ended: bool,
}

/// How far the held bytes were worked off.
enum RelayProgress {
    WantsMore,
    Waits,
}

// === impl Relay ===

impl Relay {
    /// Moves the beginning of a frame to the end of this room, if it fits there; returns how many bytes it has. They must
    /// come again.
    pub(crate) fn put_back(&mut self, room: &mut [u8]) -> usize {
        let under_way = self.under_way.as_mut();
        under_way.map_or(0, |under_way| under_way.put_back(room))
    }

    /// Takes bytes; returns how many of them, from the first, pass as they are.
    pub(crate) fn take(&mut self, packets: &SocketPackets, bytes: &[u8]) -> usize {
        if let Some(under_way) = &mut self.under_way {
            return under_way.take(packets, bytes);
        }
        let mut under_way = FramesUnderWay::default();
        let passes = under_way.take(packets, bytes);
        if !under_way.is_over() {
            self.under_way = Some(Box::new(under_way));
        }
        passes
    }

    /// Notes that no more bytes will come. A frame that isn't whole leaves only if no token can have begun in it.
    pub(crate) fn end(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            under_way.ended = true;
        }
    }

    /// The next bytes for the client; `None` asks for more.
    pub(crate) fn poll_data(
        &mut self,
        packets: &SocketPackets,
        context: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        let Some(under_way) = &mut self.under_way else {
            return Poll::Ready(None);
        };
        let data = under_way.poll_data(packets, context);
        if under_way.is_over() {
            self.under_way = None;
        }
        data
    }

    /// Whether nothing is kept.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// Whether the backend broke the protocol, and everything before has left.
    pub(crate) fn is_broken(&self) -> bool {
        self.under_way
            .as_ref()
            .is_some_and(|under_way| under_way.broken && under_way.output.is_empty())
    }
}

// === impl FramesUnderWay ===

impl FramesUnderWay {
    /// Whether nothing is left to keep.
    fn is_over(&self) -> bool {
        let passes = self.message.is_none() && self.rewriting.is_none() && self.passing == 0;
        passes && self.held.is_empty() && self.output.is_empty() && !self.broken
    }

    fn put_back(&mut self, room: &mut [u8]) -> usize {
        let begun = room.len().checked_sub(self.held.len());
        match begun.and_then(|at| room.get_mut(at..)) {
            Some(room) if self.rewriting.is_none() => {
                room.copy_from_slice(&self.held);
                self.held.clear();
                room.len()
            }
            _ => 0,
        }
    }

    fn take(&mut self, packets: &SocketPackets, bytes: &[u8]) -> usize {
        if self.broken {
            return 0;
        }
        let passes = if self.held.is_empty() && self.rewriting.is_none() {
            self.glance(packets, bytes)
        } else {
            0
        };
        self.held
            .extend_from_slice(bytes.get(passes..).unwrap_or_default());
        passes
    }

    /// The head of the next frame, checked against the message under way.
    fn head(&self, bytes: &[u8]) -> Result<Option<FrameHead>, BadFrame> {
        let Some(head) = FrameHead::parse(bytes)? else {
            return Ok(None);
        };
        if head.mask.is_some() {
            return Err(BadFrame("a server's frame is masked"));
        }
        match (head.opcode, &self.message) {
            (Opcode::Continuation, None) => Err(BadFrame("no message has begun that could go on")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                Err(BadFrame("a message begins before the last one has ended"))
            }
            _ => Ok(Some(head)),
        }
    }

    fn poll_data(
        &mut self,
        packets: &SocketPackets,
        context: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        loop {
            if let Some(data) = self.output.pop_front() {
                return Poll::Ready(Some(data));
            }
            if self.held.is_empty() && self.rewriting.is_none() {
                // An empty buffer would keep its memory.
                self.held = BytesMut::new();
                return Poll::Ready(None);
            }
            let progress = match self.go_on(packets, context) {
                Ok(progress) => progress,
                Err(BadFrame(why)) => {
                    tracing::debug!(why, "a backend broke the WebSocket protocol");
                    self.fail();
                    continue;
                }
            };
            if self.output.is_empty() {
                return match progress {
                    RelayProgress::WantsMore => Poll::Ready(None),
                    RelayProgress::Waits => Poll::Pending,
                };
            }
        }
    }

    fn fail(&mut self) {
        self.broken = true;
        self.rewriting = None;
        self.held = BytesMut::new();
        self.output
            .push_back(Bytes::from_static(frame::CLOSE_PROTOCOL_ERROR));
    }

    /// Works off held bytes, until some are ready for the client.
    fn go_on(
        &mut self,
        packets: &SocketPackets,
        context: &mut Context<'_>,
    ) -> Result<RelayProgress, BadFrame> {
        while self.output.is_empty() {
            if let RelayProgress::Waits = self.rewrite(context) {
                return Ok(RelayProgress::Waits);
            }
            if self
                .rewriting
                .as_ref()
                .is_some_and(|rewriting| rewriting.over)
            {
                self.finish_message(packets);
                continue;
            }
            if self.feed_frame() {
                continue;
            }
            if self.rewriting.is_none() && self.let_pass_at_once(packets) {
                continue;
            }
            let Some(head) = self.head(&self.held)? else {
                return Ok(self.starve(packets));
            };
            if head.opcode == Opcode::Control {
                if !self.step_over(head) {
                    return Ok(self.starve(packets));
                }
                continue;
            }
            let whole = usize::try_from(head.total()).ok();
            match whole.filter(|whole| *whole <= self.held.len()) {
                Some(whole) => self.take_frame(packets, head, whole),
                None if self.kept() + self.held.len() >= KEPT + LONGEST_HEAD => {
                    self.stream(packets, head);
                }
                None => return Ok(self.starve(packets)),
            }
        }
        Ok(RelayProgress::WantsMore)
    }

    /// Lets the rewriter work until it asks for more.
    fn rewrite(&mut self, context: &mut Context<'_>) -> RelayProgress {
        let Some(rewriting) = &mut self.rewriting else {
            return RelayProgress::WantsMore;
        };
        loop {
            match rewriting.rewriter.poll_data(context) {
                Poll::Ready(Some(data)) => rewriting.text.extend_from_slice(&data),
                Poll::Ready(None) => break,
                Poll::Pending => return RelayProgress::Waits,
            }
        }
        if rewriting.streaming && rewriting.text.len() >= KEPT {
            self.fragment(false);
        }
        RelayProgress::WantsMore
    }

    /// Gives the rewriter what has come of a streamed frame; false where no frame is under way, or nothing has come.
    fn feed_frame(&mut self) -> bool {
        let Some(rewriting) = &mut self.rewriting else {
            return false;
        };
        let Some((left, fin)) = rewriting.frame else {
            return false;
        };
        let has = usize::try_from(left).map_or(self.held.len(), |left| left.min(self.held.len()));
        if has == 0 && left > 0 {
            return false;
        }
        let data = self.held.split_to(has).freeze();
        if let Some(message) = &mut self.message {
            message.see(&data);
        }
        if !data.is_empty() {
            rewriting.rewriter.take(data);
        }
        let left = left - has as u64;
        rewriting.frame = (left > 0).then_some((left, fin));
        if left == 0 && fin {
            rewriting.finish();
        }
        true
    }

    /// A control frame leaves before the frames that are kept of a message: a client's patience for pings doesn't wait for
    /// the message's end. False where the frame isn't whole.
    fn step_over(&mut self, head: FrameHead) -> bool {
        let whole = head.size + usize::try_from(head.length).unwrap_or(usize::MAX);
        if self.held.len() < whole {
            return false;
        }
        if frame::is_close(&self.held) {
            // The message will never be whole: what has been rewritten of it leaves before.
            self.give_up_frames();
        }
        if self.is_streaming() {
            self.fragment(false);
        }
        self.output.push_back(self.held.split_to(whole).freeze());
        true
    }

    /// Nothing more can be done without further bytes. A streamed message doesn't wait for them.
    fn starve(&mut self, packets: &SocketPackets) -> RelayProgress {
        if self.is_streaming() {
            self.fragment(false);
        }
        if self.ended {
            self.drain(packets);
        }
        RelayProgress::WantsMore
    }

    /// Hands on the beginning of a frame that will never be whole, if no token can have begun in it.
    fn drain(&mut self, packets: &SocketPackets) {
        let rest = std::mem::take(&mut self.held).freeze();
        let is_base64 = self.head(&rest).is_ok_and(|head| {
            head.is_some_and(|head| {
                self.begins_base64(packets, head, rest.get(head.size..).unwrap_or_default())
            })
        });
        let passes = self.rewriting.take().is_none() && !is_base64;
        if passes && !scan::may_hold_token(&rest, true) && !rest.is_empty() {
            self.output.push_back(rest);
        }
    }
}

#[cfg(test)]
mod tests;
