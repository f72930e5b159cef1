//! What the client sends over a WebSocket, read on its way for the logins in it.
//!
//! Keeps true: at most [`COPIED`] bytes of one message are copied, and of none that can't be a `CONNECT`; bytes that
//! break RFC 6455 end the reading, and are the backend's to refuse.
//! Must not know: who keeps a login.

use super::frame::{FrameHead, LONGEST_HEAD, Opcode, unmask};
use super::packet::may_connect;

/// The most bytes of a message that are read. A login is shorter.
const COPIED: usize = 16 * 1024;

/// How many bytes tell that a message is no `CONNECT`.
const OPENING: usize = 2;

/// The frames of one WebSocket, from the client to the backend.
#[derive(Debug)]
pub(crate) struct ClientFrames {
    /// Boxed, for between messages there is nothing to keep, and sockets are many and mostly idle.
    under_way: Option<Box<ClientMessage>>,
    /// Whether frames are read, and no longer once one broke the protocol.
    reads: bool,
}

/// What is kept of frames that haven't come whole, and of a message that is read.
#[derive(Debug, Default)]
struct ClientMessage {
    /// The beginning of a head that came in part.
    head: [u8; LONGEST_HEAD],
    head_length: usize,
    /// The frame under way, and how many bytes of its payload have come.
    frame: Option<(FrameHead, u64)>,
    /// The text of a message that may be a `CONNECT`.
    message: Vec<u8>,
    /// Whether the message under way is read.
    reads: bool,
    lost: bool,
}

impl ClientFrames {
    /// Nothing has been seen.
    pub(crate) fn new(reads: bool) -> Self {
        Self {
            under_way: None,
            reads,
        }
    }

    /// Reads on; `found` is called with each whole message that may be a `CONNECT`.
    pub(crate) fn read(&mut self, bytes: &[u8], found: impl FnMut(&[u8])) {
        if !self.reads {
            return;
        }
        if let Some(message) = &mut self.under_way {
            message.read(bytes, found);
            self.reads = !message.lost;
            if message.is_over() {
                self.under_way = None;
            }
            return;
        }
        let mut message = ClientMessage::default();
        message.read(bytes, found);
        self.reads = !message.lost;
        if !message.is_over() {
            self.under_way = Some(Box::new(message));
        }
    }
}

impl ClientMessage {
    /// Whether nothing is left to keep.
    fn is_over(&self) -> bool {
        self.lost || (self.head_length == 0 && self.frame.is_none() && !self.reads)
    }

    fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(&[u8])) {
        while !bytes.is_empty() && !self.lost {
            match self.frame {
                None => bytes = self.read_head(bytes),
                Some((head, at)) => bytes = self.read_payload(head, at, bytes),
            }
            if let Some((head, at)) = self.frame
                && at == head.length
            {
                self.frame = None;
                if head.fin && head.opcode != Opcode::Control && std::mem::take(&mut self.reads) {
                    found(&self.message);
                    self.message = Vec::new();
                }
            }
        }
    }

    fn read_head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let before = self.head_length;
        for (place, byte) in self.head.iter_mut().skip(before).zip(bytes) {
            *place = *byte;
            self.head_length += 1;
        }
        match FrameHead::parse(self.head.get(..self.head_length).unwrap_or_default()) {
            Ok(None) => &[],
            Ok(Some(head)) if head.mask.is_some() => {
                self.head_length = 0;
                self.begin(head);
                bytes
                    .get(head.size.saturating_sub(before)..)
                    .unwrap_or_default()
            }
            _ => {
                self.lost = true;
                &[]
            }
        }
    }

    fn begin(&mut self, head: FrameHead) {
        match head.opcode {
            Opcode::Control | Opcode::Continuation => {}
            Opcode::Text | Opcode::Binary => {
                self.message.clear();
                self.reads = head.opcode == Opcode::Text;
            }
        }
        self.frame = Some((head, 0));
    }

    fn read_payload<'b>(&mut self, head: FrameHead, at: u64, bytes: &'b [u8]) -> &'b [u8] {
        let left = head.length - at;
        let come = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (payload, rest) = bytes.split_at(come);
        self.frame = Some((head, at + come as u64));
        if head.opcode == Opcode::Control || !self.reads {
            return rest;
        }
        // Most messages end here, at the first bytes: unmasking all of them would cost more than passing them on.
        let first = OPENING.saturating_sub(self.message.len()).min(come);
        let (first, more) = payload.split_at(first);
        self.copy(head, at, first);
        if may_connect(&self.message) && self.message.len() + more.len() <= COPIED {
            self.copy(head, at + first.len() as u64, more);
        } else {
            self.give_up();
        }
        rest
    }

    /// Copies bytes of a payload that begin at this place in it.
    fn copy(&mut self, head: FrameHead, at: u64, bytes: &[u8]) {
        let begun = self.message.len();
        self.message.extend_from_slice(bytes);
        if let (Some(mask), Some(new)) = (head.mask, self.message.get_mut(begun..)) {
            unmask(mask, at, new);
        }
    }

    fn give_up(&mut self) {
        self.reads = false;
        self.message = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn frame(first: u8, text: &[u8]) -> Vec<u8> {
        let mut payload = text.to_vec();
        unmask(MASK, 0, &mut payload);
        let length = if text.len() < 126 {
            vec![0x80 | u8::try_from(text.len()).unwrap()]
        } else {
            let length = u16::try_from(text.len()).unwrap();
            [&[0xfe], &length.to_be_bytes()[..]].concat()
        };
        [&[first], &*length, &MASK, &payload].concat()
    }

    fn found(bytes: &[u8], chunk: usize) -> Vec<String> {
        let mut frames = ClientFrames::new(true);
        let mut found = Vec::new();
        for chunk in bytes.chunks(chunk) {
            frames.read(chunk, |message| {
                found.push(String::from_utf8_lossy(message).into_owned());
            });
        }
        found
    }

    #[test]
    fn connects_are_found_wherever_bytes_are_cut_and_whatever_stands_between() {
        let long = "x".repeat(300);
        let bytes = [
            frame(0x81, b"40{\"token\":\"a\"}"),
            frame(0x89, b"ping"),
            frame(0x81, b"42[\"x\"]"),
            frame(0x82, b"40binary"),
            frame(0x01, b"4"),
            frame(0x89, b""),
            frame(0x00, b"0/ns,"),
            frame(0x80, b"{}"),
            frame(0x81, format!("42{long}").as_bytes()),
            frame(0x81, format!("40{long}").as_bytes()),
            frame(0x81, b""),
            frame(0x81, b"40"),
        ]
        .concat();
        let expected = [
            "40{\"token\":\"a\"}".to_owned(),
            "40/ns,{}".to_owned(),
            format!("40{long}"),
            String::new(),
            "40".to_owned(),
        ];
        for chunk in [1, 2, 3, 7, 64, bytes.len()] {
            assert_eq!(found(&bytes, chunk), expected, "{chunk}");
        }
    }

    #[test]
    fn a_long_message_is_not_kept_and_bytes_that_are_no_frames_end_the_reading() {
        let mut frames = ClientFrames::new(true);
        let long = [b"40".to_vec(), vec![b'x'; COPIED]].concat();
        frames.read(&frame(0x81, &long), |_| panic!("it is too long"));
        assert!(frames.under_way.is_none());
        let mut seen = 0;
        frames.read(&frame(0x81, b"40"), |_| seen += 1);
        // A client's frame without a mask.
        frames.read(b"\x81\x0240", |_| panic!("the reading has ended"));
        frames.read(&frame(0x81, b"40"), |_| panic!("the reading has ended"));
        assert_eq!(seen, 1);
    }
}
