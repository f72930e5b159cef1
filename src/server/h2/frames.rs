//! The frames that an HTTP/2 client sends (RFC 9113 §4.1), followed closely enough to tell a header section that has
//! begun from silence, and useful frames from those that only make work.
//!
//! Two mistakes are found here, since h2 0.4.20 lets them pass: a connection that doesn't begin with SETTINGS
//! (`ReadPreface` in `server.rs` reads the text alone), and trailers with pseudo-header fields (`recv_trailers` in
//! `proto/streams/recv.rs` drops them without a word).
//!
//! Keeps true: nine bytes of each frame are read, and nothing but trailers is copied.
//! Must not know: header compression, time.

use super::trailers::Trailers;

const PREFACE: usize = 24;
const HEAD: usize = 9;
/// The place of the flags in a frame's head.
const FLAGS: usize = 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Follows one direction of a connection, from its preface on.
#[derive(Debug, Default)]
pub(crate) struct FrameFollower {
    preface_read: usize,
    head: [u8; HEAD],
    head_read: usize,
    payload_left: usize,
    kind: u8,
    in_header_section: bool,
    complete: bool,
    chores: u32,
    broken: bool,
    trailers: Trailers,
    /// The place of the last section's flags in the bytes that were read last.
    flags_at: Option<usize>,
}

impl FrameFollower {
    /// Follows the bytes that were read. A trailer section that makes its request malformed loses its `END_STREAM`, so
    /// that h2 0.4.20 refuses it as a second section of its stream (`recv_headers` in `proto/streams/streams.rs`).
    pub(crate) fn push(&mut self, bytes: &mut [u8]) {
        self.flags_at = None;
        let mut at = (PREFACE - self.preface_read).min(bytes.len());
        self.preface_read += at;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.payload_left > 0 {
                let length = self.payload_left.min(rest.len());
                if self.in_section() {
                    self.trailers.push(rest.get(..length).unwrap_or_default());
                }
                self.payload_left -= length;
                at += length;
            } else {
                for (place, byte) in self.head.iter_mut().skip(self.head_read).zip(rest) {
                    *place = *byte;
                }
                let flags_at = FLAGS.checked_sub(self.head_read).map(|ahead| at + ahead);
                let length = (HEAD - self.head_read).min(rest.len());
                self.head_read += length;
                at += length;
                if self.head_read < HEAD {
                    return;
                }
                self.head_read = 0;
                self.begin(flags_at);
            }
            if self.payload_left == 0 {
                self.end(bytes);
            }
        }
    }

    fn begin(&mut self, flags_at: Option<usize>) {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        self.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.kind = kind;
        self.broken |= !self.complete && (kind != SETTINGS || flags & ACK != 0);
        let stream = u32::from_be_bytes(stream) & !(1 << 31);
        let ends = flags & END_STREAM != 0;
        match kind {
            HEADERS => {
                let (padded, priority) = (flags & PADDED != 0, flags & PRIORITY != 0);
                self.trailers.section(stream, ends, padded, priority);
                self.flags_at = flags_at;
            }
            DATA if ends => self.trailers.over(stream),
            RST_STREAM => self.trailers.over(stream),
            _ => {}
        }
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_header_section = flags & END_HEADERS == 0;
        }
        let works = match kind {
            DATA => self.payload_left > 0 || ends,
            // Large downloads need many WINDOW_UPDATEs, and one costs no more than its bytes.
            HEADERS | WINDOW_UPDATE => true,
            _ => false,
        };
        if !works {
            self.chores = self.chores.saturating_add(1);
        }
    }

    fn end(&mut self, bytes: &mut [u8]) {
        self.complete = true;
        if !self.in_section() || !self.trailers.end_of_frame(!self.in_header_section) {
            return;
        }
        match self.flags_at.and_then(|at| bytes.get_mut(at)) {
            Some(flags) => *flags &= !END_STREAM,
            // The flags have been handed on already.
            None => self.broken = true,
        }
    }

    fn in_section(&self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }

    /// Whether the connection can't go on: it doesn't begin with SETTINGS (RFC 9113 §3.4), or has malformed trailers
    /// that can't be refused by themselves any more.
    pub(crate) fn broken(&self) -> bool {
        self.broken
    }

    /// Whether the client has begun something that only it can finish: its first frame, a header section, or any
    /// frame but DATA, whose request has its own deadline.
    pub(crate) fn begun(&self) -> bool {
        !self.complete
            || self.in_header_section
            || self.head_read > 0
            || self.payload_left > 0 && self.kind != DATA
    }

    /// Frames since the last [`Self::forget_chores`] that carry neither a request nor any of its body: SETTINGS,
    /// PING, `RST_STREAM`, PRIORITY, CONTINUATION, empty DATA, unknown ones.
    pub(crate) fn chores(&self) -> u32 {
        self.chores
    }

    /// Counts chores from zero again.
    pub(crate) fn forget_chores(&mut self) {
        self.chores = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&head[..], payload].concat()
    }

    fn begun_connection() -> FrameFollower {
        let mut frames = FrameFollower::default();
        assert!(frames.begun());
        frames.push(&mut [0; PREFACE]);
        assert!(frames.begun(), "the first SETTINGS are missing");
        frames.push(&mut frame(4, 0, &[0; 6]));
        assert!(!frames.begun());
        frames.forget_chores();
        frames
    }

    #[test]
    fn a_header_section_is_begun_until_its_last_continuation_however_it_is_cut() {
        let mut frames = begun_connection();
        let section = [
            frame(HEADERS, END_STREAM, b"abc"),
            frame(CONTINUATION, 0, b""),
            frame(CONTINUATION, END_HEADERS, b"d"),
        ]
        .concat();
        let (last, before) = section.split_last().unwrap();
        for byte in before {
            frames.push(&mut [*byte]);
            assert!(frames.begun());
        }
        frames.push(&mut [*last]);
        assert!(!frames.begun());
        assert_eq!(frames.chores(), 2);
    }

    #[test]
    fn a_body_begins_nothing_but_half_a_frame_head_does() {
        let mut frames = begun_connection();
        let mut data = frame(DATA, 0, &[0; 100]);
        frames.push(&mut data[..5]);
        assert!(frames.begun());
        frames.push(&mut data[5..50]);
        assert!(!frames.begun());
        frames.push(&mut data[50..]);
        assert!(!frames.begun());
        assert_eq!(frames.chores(), 0);
    }

    #[test]
    fn chores_are_what_brings_nothing() {
        let mut frames = begun_connection();
        let many = [
            frame(6, 0, &[0; 8]),
            frame(2, 0, &[0; 5]),
            frame(3, 0, &[0; 4]),
            frame(DATA, 0, b""),
            frame(77, 0, b"x"),
            frame(DATA, END_STREAM, b""),
            frame(WINDOW_UPDATE, 0, &[0; 4]),
        ];
        frames.push(&mut many.concat());
        assert_eq!(frames.chores(), 5);
        assert!(!frames.begun());
    }

    #[test]
    fn what_does_not_begin_with_settings_is_broken() {
        for (first, broken) in [
            (frame(SETTINGS, 0, b""), false),
            (frame(SETTINGS, ACK, b""), true),
            (frame(6, 0, &[0; 8]), true),
            (frame(HEADERS, END_HEADERS | END_STREAM, b"\x82"), true),
        ] {
            let mut frames = FrameFollower::default();
            frames.push(&mut [0; PREFACE]);
            let (head, rest) = first.split_at(5);
            frames.push(&mut head.to_vec());
            assert!(!frames.broken());
            frames.push(&mut rest.to_vec());
            assert_eq!(frames.broken(), broken, "{first:?}");
            frames.push(&mut frame(6, 0, &[0; 8]));
            assert_eq!(frames.broken(), broken);
        }
    }

    #[test]
    fn trailers_with_a_pseudo_header_do_not_end_their_stream() {
        let request = frame(HEADERS, END_HEADERS, b"\x82");
        let ends = END_STREAM | END_HEADERS;
        let good = frame(HEADERS, ends, b"\0\x01x\x01y");
        let bad = frame(HEADERS, ends, b"\0\x01x\x01y\x84");
        let after = |frames: &mut FrameFollower, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            frames.push(&mut bytes);
            bytes
        };
        let mut frames = begun_connection();
        let whole = [&request[..], &frame(DATA, 0, b"\x84"), &good].concat();
        assert_eq!(after(&mut frames, &whole), whole);
        let whole = [request.clone(), bad.clone()].concat();
        let changed = after(&mut frames, &whole);
        assert_eq!(changed[request.len() + FLAGS], END_HEADERS);
        let begun = frame(HEADERS, END_STREAM, b"\0\x01x");
        let rest = frame(CONTINUATION, END_HEADERS, b"\x01y\x84");
        let changed = after(&mut frames, &[&request[..], &begun, &rest].concat());
        assert_eq!(changed[request.len() + FLAGS], 0);
        assert!(!frames.broken());
        // A section that comes in two parts has passed its flags on by then, so that a change would come too late.
        for cut in 0..bad.len() {
            let mut frames = begun_connection();
            after(&mut frames, &request);
            let first = after(&mut frames, &bad[..cut]);
            let second = after(&mut frames, &bad[cut..]);
            assert_eq!(first, bad[..cut]);
            assert_eq!(frames.broken(), cut > FLAGS);
            assert_eq!(second == bad[cut..], cut > FLAGS, "{cut}");
        }
    }
}
