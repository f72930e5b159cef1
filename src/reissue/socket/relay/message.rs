//! A message that is searched: its frames are kept or given up while its text is rewritten.
//!
//! Keeps true: a message leaves whole in the frames that it came in, or its new text does.
//! Must not know: how frames are read, control frames.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::super::frame::{self, FrameHead, Opcode};
use super::super::packet::{self, OPENING};
use super::super::packet_rewriter::{PacketRewriter, SocketPackets};
use super::glance::kind;
use super::{FramesUnderWay, KEPT};
use crate::reissue::names::Before;
use crate::reissue::scan::{ScannedPiece, Scanner};

/// A message of which fragments have been seen.
pub(super) struct MessageSoFar {
    pub(super) opcode: Opcode,
    /// The message's first bytes.
    pub(super) opening: Vec<u8>,
    /// The message's last bytes that have left: names of a token's channel may stand there.
    pub(super) before: Before,
    /// Whether the next frame to the client is not the first of the message.
    pub(super) begun: bool,
}

/// A message whose text is rewritten.
pub(super) struct Rewriting {
    pub(super) rewriter: PacketRewriter,
    /// The frames that came, until they are given up.
    kept: BytesMut,
    /// What was rewritten and hasn't left.
    pub(super) text: BytesMut,
    /// Whether the frames that came are given up.
    pub(super) streaming: bool,
    /// How many bytes of the frame under way are still to come, and whether it is the message's last.
    pub(super) frame: Option<(u64, bool)>,
    /// Whether the rewriter has been told of the end.
    pub(super) over: bool,
}

impl FramesUnderWay {
    /// How many bytes of frames are kept.
    pub(super) fn kept(&self) -> usize {
        self.rewriting
            .as_ref()
            .map_or(0, |rewriting| rewriting.kept.len())
    }

    /// Whether a message is rewritten whose frames are given up.
    pub(super) fn is_streaming(&self) -> bool {
        self.rewriting
            .as_ref()
            .is_some_and(|rewriting| rewriting.streaming)
    }

    /// A whole frame of a message that is searched.
    pub(super) fn take_frame(&mut self, packets: &SocketPackets, head: FrameHead, whole: usize) {
        let text = self.held.get(head.size..whole).unwrap_or_default();
        if self.rewriting.is_none() && !self.may_hold_token(packets, head, text, true) {
            self.let_pass(packets, head, whole);
            return;
        }
        let text = Bytes::copy_from_slice(text);
        if self.rewriting.is_none() {
            if self.begins_base64(packets, head, &text) || self.is_suspect(&text, head.fin) {
                self.rewriting = self.begin(packets, head.opcode, &text, false);
            }
            if self.rewriting.is_none() {
                self.let_pass(packets, head, whole);
                return;
            }
        } else if let Some(message) = &mut self.message {
            message.see(&text);
        }
        let Some(rewriting) = &mut self.rewriting else {
            return;
        };
        if !text.is_empty() {
            rewriting.rewriter.take(text);
        }
        if !rewriting.streaming {
            let frame = self.held.get(..whole).unwrap_or_default();
            rewriting.kept.extend_from_slice(frame);
        }
        self.held.advance(whole);
        if head.fin {
            rewriting.finish();
        } else if rewriting.kept.len() > KEPT {
            self.give_up_frames();
        }
    }

    /// Whether a frame's text holds what looks like a token, or ends in what may become one.
    fn is_suspect(&self, payload: &Bytes, fin: bool) -> bool {
        let mut scanner = Scanner::after(self.is_after_backslash());
        let mut pieces = VecDeque::new();
        scanner.feed(payload, &mut pieces);
        if fin {
            scanner.finish(&mut pieces);
        }
        let is_suspect = |piece: &ScannedPiece| matches!(piece, ScannedPiece::Suspect(_));
        scanner.has_begun() || pieces.iter().any(is_suspect)
    }

    /// Lets a whole frame leave as it came, which nothing is kept before.
    fn let_pass(&mut self, packets: &SocketPackets, head: FrameHead, whole: usize) {
        let frame = self.held.split_to(whole).freeze();
        self.note(packets, head, frame.get(head.size..).unwrap_or_default());
        self.output.push_back(frame);
    }

    /// Begins the rewriting of the message under way, at a frame with this text.
    pub(super) fn begin(
        &mut self,
        packets: &SocketPackets,
        opcode: Opcode,
        text: &[u8],
        streaming: bool,
    ) -> Option<Box<Rewriting>> {
        let message = self
            .message
            .get_or_insert_with(|| MessageSoFar::new(opcode));
        let seen = message.opening.len();
        message.see(text);
        let MessageSoFar {
            opening, before, ..
        } = message;
        let rewriter = packets.begin(kind(message.opcode), opening, before);
        if rewriter.is_none() {
            // The frame is noted as it leaves.
            opening.truncate(seen);
        }
        Some(Box::new(Rewriting {
            rewriter: rewriter?,
            kept: BytesMut::new(),
            text: BytesMut::new(),
            streaming,
            frame: None,
            over: false,
        }))
    }

    /// Begins to rewrite a frame that is too long to be kept, or goes on to it.
    pub(super) fn stream(&mut self, packets: &SocketPackets, head: FrameHead) {
        if self.rewriting.is_none() {
            let unread = self.held.get(head.size..).unwrap_or_default();
            let seen = Bytes::copy_from_slice(packet::opening(unread));
            self.rewriting = self.begin(packets, head.opcode, &seen, true);
        }
        if self.rewriting.is_none() {
            self.note(packets, head, &[]);
            self.passing = head.length;
            self.output
                .push_back(self.held.split_to(head.size).freeze());
            return;
        }
        self.give_up_frames();
        self.held.advance(head.size);
        if let Some(rewriting) = &mut self.rewriting {
            rewriting.frame = Some((head.length, head.fin));
        }
    }

    /// Forgets the kept frames, whose text has gone to the rewriter.
    pub(super) fn give_up_frames(&mut self) {
        let Some(rewriting) = &mut self.rewriting else {
            return;
        };
        rewriting.streaming = true;
        if !std::mem::take(&mut rewriting.kept).is_empty() {
            self.fragment(false);
        }
    }

    /// Sends what has been rewritten as a fragment. An empty one is sent only as the last.
    pub(super) fn fragment(&mut self, fin: bool) {
        let (Some(rewriting), Some(message)) = (&mut self.rewriting, &mut self.message) else {
            return;
        };
        if rewriting.text.is_empty() && !fin {
            return;
        }
        let opcode = if message.begun {
            Opcode::Continuation
        } else {
            message.opcode
        };
        message.begun = true;
        let mut out = BytesMut::new();
        frame::write(opcode, fin, &rewriting.text, &mut out);
        rewriting.text.clear();
        self.output.push_back(out.freeze());
    }

    /// The message has ended and been rewritten: its frames leave as they came, or its new text does.
    pub(super) fn finish_message(&mut self, packets: &SocketPackets) {
        let Some(rewriting) = &mut self.rewriting else {
            return;
        };
        let kept = std::mem::take(&mut rewriting.kept).freeze();
        if !rewriting.streaming && is_text_of(&kept, &rewriting.text) {
            self.output.push_back(kept);
        } else {
            self.fragment(true);
        }
        self.rewriting = None;
        if let Some(message) = self.message.take() {
            let kind = kind(message.opcode);
            packets.passed(kind, &message.opening);
        }
    }
}

// === impl Rewriting ===

impl Rewriting {
    pub(super) fn finish(&mut self) {
        self.rewriter.end();
        self.over = true;
    }
}

// === impl MessageSoFar ===

impl MessageSoFar {
    pub(super) fn new(opcode: Opcode) -> Self {
        Self {
            opcode,
            opening: Vec::new(),
            before: Before::default(),
            begun: false,
        }
    }

    pub(super) fn see(&mut self, text: &[u8]) {
        let room = OPENING.saturating_sub(self.opening.len());
        self.opening
            .extend_from_slice(text.get(..room).unwrap_or(text));
    }

    pub(super) fn ends_in_backslash(&self) -> bool {
        self.before.last() == Some(b'\\')
    }
}

/// Whether these data frames together carry this text.
fn is_text_of(kept: &[u8], text: &[u8]) -> bool {
    let (mut kept, mut rest) = (kept, text);
    while let Ok(Some(head)) = FrameHead::parse(kept) {
        let split = usize::try_from(head.total())
            .ok()
            .and_then(|whole| kept.split_at_checked(whole));
        let Some((frame, behind)) = split else {
            return false;
        };
        kept = behind;
        let payload = frame.get(head.size..).unwrap_or_default();
        match rest.strip_prefix(payload) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}
