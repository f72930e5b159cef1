//! The JWS compact serialization (RFC 7515 §7.1), as leniently as Node's `jws` reads it.
//!
//! Keeps true: this module accepts the same texts as `jws` 4; `tests/logins/jwt_parity.rs` checks it.
//! Must not know: keys and claims.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::members::{self, members};
use crate::config::model::JwtAlgorithm;

/// Parts up to this many decoded bytes are decoded on the stack; those of the current app have about 150.
pub(super) const STACK: usize = 768;

/// Node's `Buffer.from(text, "base64")`: bits that fill no byte are dropped, whatever they are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// A token cut at its two dots; nothing of it is decoded or verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compact<'token> {
    /// Never empty.
    pub(super) header: &'token str,
    /// Never empty.
    pub(super) payload: &'token str,
    /// Header, dot, payload: what the signature covers.
    pub(super) signed: &'token str,
    /// Empty for an unsecured token.
    pub(super) signature: &'token str,
}

impl<'token> Compact<'token> {
    /// `None` unless there are exactly three parts of base64url characters, the first two not empty.
    pub(super) fn split(token: &'token str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let characters = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let well_formed = !header.is_empty()
            && !payload.is_empty()
            && characters(header)
            && characters(payload)
            && characters(signature);
        well_formed.then_some(Self {
            header,
            payload,
            signed,
            signature,
        })
    }
}

/// Decodes one part into `stack`, or into `heap` when it is longer. `None` for characters outside the alphabet.
pub(super) fn decode<'buffer>(
    part: &str,
    stack: &'buffer mut [u8; STACK],
    heap: &'buffer mut Vec<u8>,
) -> Option<&'buffer [u8]> {
    // A single last character carries 6 bits, which make no byte.
    let whole = part.len() - usize::from(part.len() % 4 == 1);
    let text = part.as_bytes().get(..whole)?;
    let length = whole / 4 * 3 + 3;
    let buffer = if length <= STACK {
        stack.as_mut_slice()
    } else {
        heap.resize(length, 0);
        heap.as_mut_slice()
    };
    let written = LENIENT.decode_slice(text, buffer).ok()?;
    buffer.get(..written)
}

/// The members of a header that are read. `jwk`, `jku`, `x5u`, `x5c` and `crit` are not read: a token never brings its
/// own key, and Node's `jsonwebtoken` 9.0.3 ignores `crit`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header<'text> {
    /// `alg`, where this program knows it; it only chooses among the allowed algorithms.
    pub(super) algorithm: Option<JwtAlgorithm>,
    /// `kid`, where it is a string.
    pub(super) key_id: Option<Cow<'text, str>>,
    /// `typ` is exactly `"JWT"`: the payload must then be JSON.
    pub(super) typed: bool,
}

impl<'text> Header<'text> {
    /// `None` unless the text is a JSON object.
    pub(super) fn parse(text: &'text str) -> Option<Self> {
        let [algorithm, key_id, typed] = members(text, ["alg", "kid", "typ"]).ok()??;
        let algorithm = algorithm
            .and_then(members::string)
            .and_then(|name| JwtAlgorithm::of_name(&name));
        Some(Self {
            algorithm,
            key_id: key_id.and_then(members::string),
            typed: typed.and_then(members::string).as_deref() == Some("JWT"),
        })
    }
}

/// A header's bytes as text: `jws` reads headers as Latin-1, each byte a character.
pub(super) fn header_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(part: &str) -> Option<Vec<u8>> {
        decode(part, &mut [0; STACK], &mut Vec::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_token_has_three_parts_of_which_only_the_last_may_be_empty() {
        let compact = Compact::split("YQ.Yg.Yw").unwrap();
        assert_eq!(compact.signed, "YQ.Yg");
        assert_eq!(compact.signature, "Yw");
        assert_eq!(Compact::split("YQ.Yg.").unwrap().signature, "");
        for token in [
            "",
            ".",
            "..",
            "YQ.Yg",
            ".Yg.Yw",
            "YQ..Yw",
            "YQ.Yg.Yw.",
            "YQ.Yg.Y w",
            "YQ=.Yg.Yw",
            "Y+.Yg.Yw",
            "YQ.Yg.Yé",
            "YQ.Yg.Yw\n",
        ] {
            assert_eq!(Compact::split(token), None, "{token:?}");
        }
    }

    #[test]
    fn bits_that_fill_no_byte_are_dropped() {
        assert_eq!(decoded("YQ").unwrap(), b"a");
        assert_eq!(decoded("YR").unwrap(), b"a");
        assert_eq!(decoded("YWJjZ").unwrap(), b"abc");
        assert_eq!(decoded("Y").unwrap(), b"");
        assert_eq!(decoded("YQ=="), None);
    }

    #[test]
    fn parts_of_every_length_around_the_stack_buffer_are_decoded() {
        for length in (STACK - 5)..(STACK + 5) {
            let bytes = vec![b'x'; length];
            let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
            assert_eq!(decoded(&part).unwrap(), bytes);
        }
    }

    #[test]
    fn headers_are_latin_1() {
        assert_eq!(header_text(b"{}"), "{}");
        assert_eq!(header_text(b"\xc3\xa9\xff"), "Ã©ÿ");
    }
}
