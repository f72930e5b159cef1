//! Packets of bytes that engine.io writes in base64, where a transport or a client takes text alone.
//!
//! | protocol | packet |
//! |---|---|
//! | 4 | `b` and the base64 |
//! | 3 | `b`, the type of the packet (`4`), and the base64 |
//!
//! Keeps true: whatever bytes a client decodes are among the readings: that of each protocol, for nothing but the length
//! tells them apart, and as leniently as Node's `Buffer.from(text, "base64")`, which takes both alphabets, skips what is in
//! neither, and ends at the first `=`.
//! Must not know: what the bytes say, payloads, frames.
//!
//! Sources: `encodeBase64Packet` of engine.io-parser 2.2, `encodePacket` of engine.io-parser 5.2.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Bits that fill no byte are dropped, whatever they are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What stands before the base64, by protocol.
const PROTOCOL_4: &str = "b";
const PROTOCOL_3: &str = "b4";

/// The bytes of a packet as one protocol reads them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Base64Reading {
    prefix: &'static str,
    pub bytes: Vec<u8>,
}

/// Whether a text packet that begins so is one of bytes.
pub(crate) fn is_base64(opening: &[u8]) -> bool {
    opening.first() == Some(&b'b')
}

/// Whether there is a character in this text that stands in no base64.
pub(crate) fn is_other_text(text: &[u8]) -> bool {
    text.iter()
        .any(|byte| letter(*byte).is_none() && *byte != b'=' && !byte.is_ascii_whitespace())
}

/// The bytes of a packet, the likelier reading first.
pub(crate) fn readings(packet: &[u8]) -> Vec<Base64Reading> {
    let read = |prefix: &'static str| {
        let text = packet.strip_prefix(prefix.as_bytes())?;
        let bytes = decoded(text)?;
        Some(Base64Reading { prefix, bytes })
    };
    let mut readings: Vec<_> = [PROTOCOL_4, PROTOCOL_3]
        .into_iter()
        .filter_map(read)
        .collect();
    if packet.len() % 4 == 2 {
        // Behind `b4` there are whole groups.
        readings.reverse();
    }
    readings
}

/// A packet of no bytes, in the protocol of one that begins so.
pub(crate) fn empty(packet: &[u8]) -> &'static str {
    if packet.starts_with(PROTOCOL_3.as_bytes()) {
        // Protocol 4 takes it for half a byte.
        PROTOCOL_3
    } else {
        PROTOCOL_4
    }
}

/// The character of the standard alphabet in place of this one, if it stands for bits.
fn letter(byte: u8) -> Option<u8> {
    match byte {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        b'+' | b'/' => Some(byte),
        _ => byte.is_ascii_alphanumeric().then_some(byte),
    }
}

fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let end = memchr::memchr(b'=', text).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or(text);
    let mut letters: Vec<u8> = text.iter().filter_map(|byte| letter(*byte)).collect();
    if letters.len() % 4 == 1 {
        // Six bits make no byte.
        letters.pop();
    }
    LENIENT.decode(letters).ok()
}

impl Base64Reading {
    /// The packet with other bytes.
    pub(crate) fn write(&self, bytes: &[u8]) -> Vec<u8> {
        let mut packet = self.prefix.to_owned();
        LENIENT.encode_string(bytes, &mut packet);
        packet.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(packet: &str) -> Vec<Vec<u8>> {
        let readings = readings(packet.as_bytes()).into_iter();
        readings.map(|reading| reading.bytes).collect()
    }

    #[test]
    fn packets_of_both_protocols_are_read_and_written() {
        // What `encodePacket` of engine.io-parser 5.2 and 2.2 write of the same four bytes.
        for packet in ["bAQIDBA==", "b4AQIDBA=="] {
            let readings = readings(packet.as_bytes());
            assert_eq!(readings[0].bytes, [1, 2, 3, 4], "{packet}");
            assert_eq!(readings[0].write(&[1, 2, 3, 4]), packet.as_bytes());
        }
        // In protocol 4 a `4` belongs to the bytes.
        assert_eq!(bytes_of("b4AQI")[0], [0xe0, 0x04, 0x08]);
        assert_eq!(bytes_of("b4AQI")[1], [1, 2]);
        assert_eq!(bytes_of("b"), [b""]);
        assert_eq!(bytes_of("4b"), [b""; 0]);
        assert_eq!(
            (empty(b"b4AA"), empty(b"bAAA"), empty(b"b")),
            ("b4", "b", "b")
        );
    }

    #[test]
    fn base64_is_read_as_leniently_as_node_reads_it() {
        // The results are Node's.
        for (text, expected) in [
            ("YQ==YQ==", &b"a"[..]),
            ("YW=Jj", b"a"),
            ("YWJjZ", b"abc"),
            ("YWJjZA", b"abcd"),
            ("Y W\nJj", b"abc"),
            ("YW!J\u{e9}j", b"abc"),
            ("YWJj\0YWJj", b"abcabc"),
            ("-_-_", &[0xfb, 0xff, 0xbf]),
            ("YR==", b"a"),
            ("=YWJj", b""),
            ("Y", b""),
            ("", b""),
        ] {
            assert_eq!(bytes_of(&format!("b{text}"))[0], expected, "{text:?}");
        }
        assert!(is_other_text(b"b YW!") && !is_other_text(b"bY-W_+/=\r\n 09"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_they_were_written(bytes: Vec<u8>) {
            for prefix in [PROTOCOL_4, PROTOCOL_3] {
                let reading = Base64Reading { prefix, bytes: bytes.clone() };
                let packet = reading.write(&bytes);
                prop_assert_eq!(&readings(&packet)[0], &reading);
            }
        }

        #[test]
        fn no_text_is_too_odd(packet: Vec<u8>) {
            let packet = [&b"b4"[..], &packet].concat();
            prop_assert_eq!(readings(&packet).len(), 2);
        }
    }
}
