//! Trailer sections of HTTP/2 requests, searched for pseudo-header fields, which make a request malformed (RFC 9113
//! §8.1). h2 drops such fields without a word (0.4.20, `recv_trailers` in `proto/streams/recv.rs`).
//!
//! Keeps true: only trailers are copied, up to a limit. A name that an earlier section put into the dynamic table
//! isn't known here, and h2 drops such a field.
//! Must not know: what other sections say.

/// Uploads that are followed: more than a client may have.
const MOST_UPLOADS: usize = 256;

/// Bytes of one section that are kept: more than the limits on header sections allow.
const MOST_BYTES: usize = 64 * 1024;

/// The names of pseudo-header fields are the first in the static table (RFC 7541 appendix A).
const LAST_PSEUDO: usize = 14;

/// The seven bits of `:` in a Huffman-coded text (RFC 7541 appendix B).
const COLON: u8 = 0x5c;

/// Follows the streams of one connection, as far as trailers go.
#[derive(Debug, Default)]
pub(crate) struct Trailers {
    /// Streams whose request hasn't ended.
    uploads: Vec<u32>,
    section: Option<Section>,
}

/// A trailer section that is being received.
#[derive(Debug)]
struct Section {
    bytes: Vec<u8>,
    /// Whether the first frame is padded; `None` once padding and priority are taken off.
    padded: Option<bool>,
    prioritized: bool,
}

impl Trailers {
    /// Notes that a header section begins, and whether it ends its stream.
    pub(crate) fn section(&mut self, stream: u32, ends: bool, padded: bool, priority: bool) {
        let follows = self.uploads.contains(&stream);
        if ends {
            self.over(stream);
        } else if !follows {
            if self.uploads.len() == MOST_UPLOADS {
                self.uploads.remove(0);
            }
            self.uploads.push(stream);
        }
        // h2 0.4.20 itself refuses a second section that doesn't end the stream (`recv_headers` in
        // `proto/streams/streams.rs`).
        self.section = (follows && ends).then_some(Section {
            bytes: Vec::new(),
            padded: Some(padded),
            prioritized: priority,
        });
    }

    /// Notes that a stream's request has ended.
    pub(crate) fn over(&mut self, stream: u32) {
        self.uploads.retain(|upload| *upload != stream);
    }

    /// Takes more bytes of a HEADERS or CONTINUATION frame.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let Some(section) = &mut self.section {
            section.bytes.extend_from_slice(bytes);
            if section.bytes.len() > MOST_BYTES {
                self.section = None;
            }
        }
    }

    /// Notes that a HEADERS or CONTINUATION frame is complete; `last` says that it ends the section. Returns whether
    /// the section is one of trailers with a pseudo-header field.
    pub(crate) fn end_of_frame(&mut self, last: bool) -> bool {
        let Some(section) = &mut self.section else {
            return false;
        };
        if let Some(padded) = section.padded.take() {
            section.bytes = fragment(&section.bytes, padded, section.prioritized)
                .unwrap_or_default()
                .to_vec();
        }
        last && self
            .section
            .take()
            .is_some_and(|section| has_pseudo_header(&section.bytes).unwrap_or(false))
    }
}

/// A HEADERS frame's payload without padding and priority (RFC 9113 §6.2).
fn fragment(payload: &[u8], padded: bool, prioritized: bool) -> Option<&[u8]> {
    let (padding, rest) = if padded {
        let (padding, rest) = payload.split_first()?;
        (usize::from(*padding), rest)
    } else {
        (0, payload)
    };
    let rest = rest.get(if prioritized { 5 } else { 0 }..)?;
    rest.get(..rest.len().checked_sub(padding)?)
}

/// Whether a field's name begins with a colon. `None` where the section can't be read, which h2 will refuse.
fn has_pseudo_header(section: &[u8]) -> Option<bool> {
    let mut rest = section;
    while let Some(first) = rest.first() {
        // RFC 7541 §6.1, §6.2.1, §6.3, §6.2.2 and §6.2.3.
        let (bits, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let resizes = bits == 5;
        let index = take_integer(&mut rest, bits)?;
        if !resizes && (1..=LAST_PSEUDO).contains(&index) {
            return Some(true);
        }
        if has_value {
            if index == 0 && begins_with_colon(take_text(&mut rest)?) {
                return Some(true);
            }
            take_text(&mut rest)?;
        }
    }
    Some(false)
}

/// Takes an integer with this many bits in its first byte (RFC 7541 §5.1).
fn take_integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*rest.split_off_first()?) & mask;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *rest.split_off_first()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a text: whether it is Huffman-coded, and its bytes (RFC 7541 §5.2).
fn take_text<'section>(rest: &mut &'section [u8]) -> Option<(bool, &'section [u8])> {
    let coded = rest.first()? & 0x80 != 0;
    let length = take_integer(rest, 7)?;
    Some((coded, rest.split_off(..length)?))
}

fn begins_with_colon((coded, text): (bool, &[u8])) -> bool {
    text.first().is_some_and(|first| {
        if coded {
            first >> 1 == COLON
        } else {
            *first == b':'
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudo_headers_are_known_in_every_way_to_write_them() {
        for section in [
            // `:method: GET`, indexed.
            &b"\x82"[..],
            // `:status` from the static table: to be remembered, or not, or never.
            b"\x48\x03200",
            b"\x08\x03200",
            b"\x18\x03200",
            // `:path` and `:x` written out, with a field, a longer one and a change of the table's size before.
            b"\x00\x05:path\x01/",
            b"\x20\x00\x01x\x7f\x02aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x10\x02:x\x00",
            // `:path`, Huffman-coded.
            b"\x40\x84\xb9\x58\xd3\x3f\x01/",
        ] {
            assert_eq!(has_pseudo_header(section), Some(true), "{section:?}");
        }
    }

    #[test]
    fn other_fields_are_none() {
        for section in [
            &b""[..],
            b"\x00\x03x-a\x02:b",
            // `accept-encoding: gzip, deflate`, one from the dynamic table, and `age`.
            b"\x90\xbe\x55\x011",
            // `x`, Huffman-coded.
            b"\x40\x82\xf2\xb7\x01:",
            b"\x3f\xe1\x1f\x00\x01a\x00",
        ] {
            assert_eq!(has_pseudo_header(section), Some(false), "{section:?}");
        }
        for cut in [
            &b"\x00"[..],
            b"\x00\x03x",
            b"\xff\xff\xff\xff\xff\xff",
            b"\x7f",
        ] {
            assert_eq!(has_pseudo_header(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn only_the_last_section_of_an_upload_is_one_of_trailers() {
        let mut trailers = Trailers::default();
        let mut ends = |stream, ends| {
            trailers.section(stream, ends, false, false);
            trailers.push(b"\x84");
            trailers.end_of_frame(true)
        };
        assert!(!ends(1, true));
        assert!(!ends(3, false));
        assert!(!ends(3, false), "refused by itself");
        assert!(ends(3, true));
        assert!(!ends(3, true), "it is over");
        trailers.section(5, false, false, false);
        trailers.over(5);
        trailers.section(5, true, false, false);
        trailers.push(b"\x84");
        assert!(!trailers.end_of_frame(true));
    }

    #[test]
    fn padding_and_priority_are_no_fields_and_fields_may_be_cut_anywhere() {
        let mut trailers = Trailers::default();
        trailers.section(3, false, true, true);
        assert!(!trailers.end_of_frame(true));
        trailers.section(3, true, true, true);
        for part in [&b"\x02prior"[..], b"\x00\x02:", b"\x84\x84"] {
            trailers.push(part);
        }
        assert!(!trailers.end_of_frame(false));
        trailers.push(b"x\x01y");
        assert!(trailers.end_of_frame(true));
    }
}
