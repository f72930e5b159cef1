//! What an HTTP/2 client sends, frame by frame (RFC 9113 §4.1): enough to tell a begun header section from silence, and
//! a client that works from one that only makes work.
//!
//! Keeps true: looks at nine bytes a frame and copies nothing else; never decides what a frame means.
//! Must not know: streams, header compression, time.

const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Follows one direction of a connection, from its preface on.
#[derive(Debug)]
pub(super) struct Frames {
    preface_left: usize,
    head: [u8; HEAD],
    head_read: usize,
    payload_left: usize,
    kind: u8,
    in_header_section: bool,
    complete: bool,
    chores: u32,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            preface_left: PREFACE,
            head: [0; HEAD],
            head_read: 0,
            payload_left: 0,
            kind: DATA,
            in_header_section: false,
            complete: false,
            chores: 0,
        }
    }

    /// Takes in what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let preface = self.preface_left.min(rest.len());
        self.preface_left -= preface;
        rest = rest.get(preface..).unwrap_or_default();
        while !rest.is_empty() {
            if self.payload_left > 0 {
                let length = self.payload_left.min(rest.len());
                self.payload_left -= length;
                rest = rest.get(length..).unwrap_or_default();
                self.complete |= self.payload_left == 0;
                continue;
            }
            for (place, byte) in self.head.iter_mut().skip(self.head_read).zip(rest) {
                *place = *byte;
            }
            let length = (HEAD - self.head_read).min(rest.len());
            self.head_read += length;
            rest = rest.get(length..).unwrap_or_default();
            if self.head_read == HEAD {
                self.head_read = 0;
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.kind = kind;
        self.complete |= self.payload_left == 0;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_header_section = flags & END_HEADERS == 0;
        }
        let works = match kind {
            DATA => self.payload_left > 0 || flags & END_STREAM != 0,
            // Large downloads need many; one costs no more than its bytes.
            HEADERS | WINDOW_UPDATE => true,
            _ => false,
        };
        if !works {
            self.chores = self.chores.saturating_add(1);
        }
    }

    /// Whether something was begun that only the client can finish: its first frame, a header section, or any frame but
    /// DATA, which belongs to a request that has its own deadline.
    pub(super) fn begun(&self) -> bool {
        !self.complete
            || self.in_header_section
            || self.head_read > 0
            || self.payload_left > 0 && self.kind != DATA
    }

    /// Frames that carry neither a request nor any of its body, since the last call: SETTINGS, PING, `RST_STREAM`,
    /// PRIORITY, CONTINUATION, empty DATA, unknown ones.
    pub(super) fn chores(&self) -> u32 {
        self.chores
    }

    /// Counts chores from zero again.
    pub(super) fn forget_chores(&mut self) {
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

    fn begun_connection() -> Frames {
        let mut frames = Frames::new();
        assert!(frames.begun());
        frames.push(&[0; PREFACE]);
        assert!(frames.begun(), "the first SETTINGS are missing");
        frames.push(&frame(4, 0, &[0; 6]));
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
            frames.push(&[*byte]);
            assert!(frames.begun());
        }
        frames.push(&[*last]);
        assert!(!frames.begun());
        assert_eq!(frames.chores(), 2);
    }

    #[test]
    fn a_body_begins_nothing_but_half_a_frame_head_does() {
        let mut frames = begun_connection();
        let data = frame(DATA, 0, &[0; 100]);
        frames.push(&data[..5]);
        assert!(frames.begun());
        frames.push(&data[5..50]);
        assert!(!frames.begun());
        frames.push(&data[50..]);
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
        frames.push(&many.concat());
        assert_eq!(frames.chores(), 5);
        assert!(!frames.begun());
    }
}
