//! The heads of WebSocket frames (RFC 6455 §5.2).
//!
//! Keeps true: what an endpoint must refuse in a head is refused here; a length in more bytes than it needs is read all
//! the same, as most clients do.
//! Must not know: payloads, messages, who sent a frame.

use bytes::{BufMut, BytesMut};

/// The most bytes that a control frame carries (RFC 6455 §5.5).
const CONTROL_LIMIT: u64 = 125;

/// The longest head: two bytes, a length of eight, and a mask of four.
pub(crate) const LONGEST_HEAD: usize = 14;

/// `Close`, with the status 1002, protocol error (RFC 6455 §7.4.1), unmasked as a server sends it.
pub(crate) const CLOSE_PROTOCOL_ERROR: &[u8] = &[0x88, 2, 0x03, 0xea];

/// The same as a client sends it: masked, with zeros.
pub(crate) const MASKED_CLOSE_PROTOCOL_ERROR: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xea];

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    /// `Close`, `Ping` or `Pong`.
    Control,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Whether the frame is the last of its message.
    pub fin: bool,
    pub opcode: Opcode,
    pub mask: Option<[u8; 4]>,
    /// How many bytes the head takes.
    pub size: usize,
    /// How many bytes of payload follow.
    pub length: u64,
}

/// Why a head is no frame's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame(pub(crate) &'static str);

impl FrameHead {
    /// The head at the beginning of these bytes; `None` where it isn't complete.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let [first, second, ..] = *bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(BadFrame(
                "a reserved bit is set, and no extension was agreed on",
            ));
        }
        let fin = first & 0x80 != 0;
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8..=10 => Opcode::Control,
            _ => return Err(BadFrame("the opcode is reserved")),
        };
        let (length, size) = match second & 0x7f {
            126 => match bytes.get(2..4).and_then(|length| length.try_into().ok()) {
                Some(length) => (u16::from_be_bytes(length).into(), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
                Some(length) => (u64::from_be_bytes(length), 10),
                None => return Ok(None),
            },
            length => (length.into(), 2),
        };
        if length > i64::MAX as u64 {
            return Err(BadFrame("the length has its highest bit set"));
        }
        if opcode == Opcode::Control && !fin {
            return Err(BadFrame("a control frame is fragmented"));
        }
        if opcode == Opcode::Control && length > CONTROL_LIMIT {
            return Err(BadFrame("a control frame is longer than 125 bytes"));
        }
        let masked = second & 0x80 != 0;
        let mask = match bytes
            .get(size..size + 4)
            .and_then(|mask| mask.try_into().ok())
        {
            _ if !masked => None,
            Some(mask) => Some(mask),
            None => return Ok(None),
        };
        Ok(Some(Self {
            fin,
            opcode,
            mask,
            size: size + if masked { 4 } else { 0 },
            length,
        }))
    }

    /// How many bytes head and payload take together.
    pub(crate) fn total(&self) -> u64 {
        self.length.saturating_add(self.size as u64)
    }
}

/// Whether these bytes begin with a `Close` (RFC 6455 §5.5.1).
pub(crate) fn is_close(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first & 0x0f == 8)
}

/// Writes an unmasked data frame.
pub(crate) fn write(opcode: Opcode, fin: bool, payload: &[u8], out: &mut BytesMut) {
    out.reserve(payload.len() + LONGEST_HEAD);
    let opcode = match opcode {
        Opcode::Continuation | Opcode::Control => 0,
        Opcode::Text => 1,
        Opcode::Binary => 2,
    };
    out.put_u8(opcode | if fin { 0x80 } else { 0 });
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..126), _) => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload.len() as u64);
        }
    }
    out.put_slice(payload);
}

/// Takes the mask off bytes of a payload that begin at this place in it.
pub(crate) fn unmask(mask: [u8; 4], at: u64, bytes: &mut [u8]) {
    let key = mask.iter().cycle().skip((at % 4) as usize);
    for (byte, key) in bytes.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 6455 §5.7.
        for (bytes, fin, opcode, length) in [
            (&[0x81, 0x05][..], true, Opcode::Text, 5),
            (&[0x01, 0x03], false, Opcode::Text, 3),
            (&[0x80, 0x02], true, Opcode::Continuation, 2),
            (&[0x89, 0x05], true, Opcode::Control, 5),
            (&[0x82, 0x7e, 0x01, 0x00], true, Opcode::Binary, 256),
            (
                &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0],
                true,
                Opcode::Binary,
                65536,
            ),
        ] {
            let head = FrameHead::parse(bytes).unwrap().unwrap();
            assert_eq!(
                (head.fin, head.opcode, head.length, head.size, head.mask),
                (fin, opcode, length, bytes.len(), None)
            );
            assert_eq!(FrameHead::parse(&bytes[..bytes.len() - 1]), Ok(None));
        }
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let head = FrameHead::parse(&masked).unwrap().unwrap();
        let mut payload = masked[head.size..].to_vec();
        unmask(head.mask.unwrap(), 0, &mut payload);
        assert_eq!(payload, b"Hello");
        assert_eq!(head.total(), masked.len() as u64);
    }

    #[test]
    fn heads_that_an_endpoint_must_refuse_are_refused() {
        for bytes in [
            &[0xc1, 0][..],       // a reserved bit
            &[0x83, 0],           // a reserved opcode
            &[0x8b, 0],           // and one of a control frame
            &[0x09, 0],           // a fragmented ping
            &[0x89, 126, 0, 126], // a long ping
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(FrameHead::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_written_frame_is_read_again(length in prop_oneof![0..200_usize, 65_000..66_000_usize], fin: bool) {
            let payload = vec![b'x'; length];
            let mut written = BytesMut::new();
            write(Opcode::Text, fin, &payload, &mut written);
            let head = FrameHead::parse(&written).unwrap().unwrap();
            prop_assert_eq!(head.total(), written.len() as u64);
            prop_assert_eq!((head.fin, head.opcode, head.length), (fin, Opcode::Text, length as u64));
        }

        #[test]
        fn a_mask_is_taken_off_in_pieces_as_in_one(bytes: Vec<u8>, mask: [u8; 4], cut in 0..64_usize) {
            let mut whole = bytes.clone();
            unmask(mask, 0, &mut whole);
            let mut pieces = bytes;
            let cut = cut.min(pieces.len());
            let (first, second) = pieces.split_at_mut(cut);
            unmask(mask, 0, first);
            unmask(mask, cut as u64, second);
            prop_assert_eq!(pieces, whole);
        }
    }
}
