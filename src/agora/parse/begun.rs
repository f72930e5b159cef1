//! A token at the beginning of a longer text: where it ends is found out from its own structure.
//!
//! A zlib stream ends where its checksum does, and the content of a 006 token where its lengths say. Base64 behind that
//! belongs to the text: `TOKEN/live_a`, `TOKEN7`.
//!
//! Keeps true: no more of the text is decoded than the token has, and of what isn't this project's no more than its
//! beginning.
//! Must not know: what stands behind a token.

use base64::Engine as _;

use super::{BASE64, Inflating, Parsed, Parsed006, Parsed007, TokenParseError, read_006, read_007};
use crate::agora::packing::SliceReader;
use crate::agora::{access_token, access_token2};

/// Characters of base64 decoded at once: an ordinary token's.
const CHUNK: usize = 512;

/// Bytes at the beginning of a 007 token's content: lengths, signature and App ID, and room for a longer one.
const BEGINNING: usize = 128;

/// Digits of an App ID.
const APP_ID: usize = 32;

/// Base64 of a 006 token without privileges, but for its signature: the least that is one.
const SHORTEST_006: usize = 64;

/// Bytes of a 006 token's content before its message: signature and checksums, with the lengths of signature and
/// message.
const HEAD_006: usize = 2 + SIGNATURE + 4 + 4 + 2;

/// An HMAC-SHA256, behind its length.
const SIGNATURE: usize = 32;

/// A token, and how many characters of the text are the token's.
pub(crate) type Begun = (Parsed, usize);

/// The token that a text begins with. `None` where none begins, so far as can be read, whose App ID is wanted.
pub(crate) fn parse_beginning(
    text: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<Result<Begun, TokenParseError>> {
    if let Some(encoded) = text.strip_prefix(access_token2::VERSION) {
        let version = access_token2::VERSION.len();
        let begun = begun_007(encoded.as_bytes(), is_wanted)?;
        return Some(begun.map(|(token, length)| (Parsed::V007(token), version + length)));
    }
    let rest = text.strip_prefix(access_token::VERSION)?;
    let (app_id, encoded) = rest.split_at_checked(APP_ID)?;
    if encoded.len() < SHORTEST_006 || !is_wanted(app_id) {
        return None;
    }
    let before = access_token::VERSION.len() + APP_ID;
    let begun = begun_006(app_id, encoded.as_bytes());
    Some(begun.map(|(token, length)| (Parsed::V006(token), before + length)))
}

fn begun_007(
    encoded: &[u8],
    is_wanted: impl Fn(&str) -> bool,
) -> Option<Result<(Parsed007, usize), TokenParseError>> {
    let mut inflating = Inflating::new();
    let mut knows = false;
    for chunk in encoded.chunks(CHUNK) {
        let data = chunk.split(|character| !is_data(*character)).next()?;
        // A single character at the end of the data is less than a byte.
        let whole = data.len() - usize::from(data.len() % 4 == 1);
        let mut bytes = [0; CHUNK / 4 * 3];
        let decoded = BASE64.decode_slice(data.get(..whole)?, &mut bytes);
        let fed = decoded
            .map_err(|_| TokenParseError::Base64)
            .and_then(|length| inflating.feed(bytes.get(..length).unwrap_or_default()));
        if !knows {
            // If the stream is damaged, the part before the damage has been inflated.
            let content = inflating.content.get(..BEGINNING);
            match app_id(content.unwrap_or(&inflating.content)) {
                Some(app_id) if is_wanted(&app_id) => knows = true,
                None if content.is_none() && fed == Ok(false) && data.len() == CHUNK => {}
                _ => return None,
            }
        }
        match fed {
            Ok(true) => {
                let characters = characters(inflating.used(), encoded);
                let token = read_007(&inflating.content, 0);
                return Some(token.map(|token| (token, characters)));
            }
            Ok(false) if data.len() == chunk.len() => {}
            Ok(false) => break,
            Err(error) => return Some(Err(error)),
        }
    }
    knows.then_some(Err(TokenParseError::Truncated))
}

/// Whether it is a character of base64 that stands for bits (RFC 4648 section 4).
pub(crate) fn is_data(character: u8) -> bool {
    character.is_ascii_alphanumeric() || b"+/".contains(&character)
}

/// The App ID in a 007 token's content.
fn app_id(content: &[u8]) -> Option<String> {
    let mut reader = SliceReader::new(content);
    let _signature = reader.bytes().ok()?;
    let app_id = reader.bytes().ok()?;
    Some(String::from_utf8_lossy(app_id).into_owned())
}

fn begun_006(app_id: &str, encoded: &[u8]) -> Result<(Parsed006, usize), TokenParseError> {
    let head = decode(encoded, HEAD_006)?;
    let mut reader = SliceReader::new(&head);
    if reader.bytes()?.len() != SIGNATURE {
        return Err(TokenParseError::Truncated);
    }
    let (_channel, _user, message) = (reader.u32()?, reader.u32()?, reader.u16()?);
    let length = HEAD_006 + usize::from(message);
    let token = read_006(app_id, &decode(encoded, length)?)?;
    Ok((token, characters(length, encoded)))
}

/// The first `bytes` bytes that the base64 encodes.
fn decode(encoded: &[u8], bytes: usize) -> Result<Vec<u8>, TokenParseError> {
    let data = encoded
        .get(..data(bytes))
        .ok_or(TokenParseError::Truncated)?;
    BASE64.decode(data).map_err(|_| TokenParseError::Base64)
}

/// Characters that so many bytes are encoded in, without those that fill the last group up.
fn data(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Characters that so many bytes are encoded in, with as many `=` as are there and fill the last group up.
fn characters(bytes: usize, encoded: &[u8]) -> usize {
    let data = data(bytes);
    let missing = data.next_multiple_of(4) - data;
    let behind = encoded.get(data..).unwrap_or_default().iter();
    let filling = behind
        .take(missing)
        .take_while(|character| **character == b'=');
    data + filling.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agora::{RtcGrant, Signer, TokenFormat, User, rtc_token};
    use crate::config::secret::Secret;
    use crate::terms::role::Role;

    const APP: &str = "970ca35de60c44645bbae8a215061b33";

    /// Tokens whose base64 has no `=`, one and two.
    fn tokens(format: TokenFormat) -> Vec<String> {
        let signer = Signer::new(APP, &Secret::new("a".repeat(32).into())).unwrap();
        let token = |salt| {
            let channel = "c".repeat(usize::try_from(salt).unwrap() % 7 + 1);
            let grant = RtcGrant {
                channel: &channel,
                user: User::Uid(7),
                role: Role::Publisher,
                lifetime: 60,
                issued_at: 1_700_000_000,
                salt,
            };
            rtc_token(format, &signer, &grant).unwrap()
        };
        (0..60).map(token).collect()
    }

    #[test]
    fn a_token_ends_where_its_own_structure_does_whatever_base64_follows() {
        let mut fillings = [0; 3];
        for token in [TokenFormat::V007, TokenFormat::V006].map(tokens).concat() {
            let bare = token.trim_end_matches('=');
            fillings[token.len() - bare.len()] += 1;
            for written in [&token, bare] {
                for behind in ["", "/live_a", "7", "+", "live", "AAAAAAAA", &token, "/="] {
                    let text = format!("{written}{behind}");
                    let (parsed, length) = parse_beginning(&text, |app_id| app_id == APP)
                        .unwrap_or_else(|| panic!("{text}"))
                        .unwrap();
                    assert_eq!(length, written.len(), "{text}");
                    assert_eq!(parsed, super::super::parse(&token).unwrap(), "{text}");
                }
            }
        }
        assert!(fillings[0] > 0 && fillings[1] > 0, "{fillings:?}");
    }

    #[test]
    fn what_is_not_wanted_is_none_and_what_stops_within_is_an_error() {
        for token in [TokenFormat::V007, TokenFormat::V006].map(tokens).concat() {
            assert_eq!(parse_beginning(&token, |_| false), None);
            for length in 0..token.trim_end_matches('=').len() {
                let begun = parse_beginning(&token[..length], |app_id| app_id == APP);
                assert!(!matches!(begun, Some(Ok(_))), "{length} {token}");
            }
            let cut = parse_beginning(&token[..token.len() - 9], |app_id| app_id == APP);
            assert!(matches!(cut, Some(Err(_))), "{token}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(006|007eJx)?[0-9a-zA-Z+/=é]{0,700}") {
            let _ = parse_beginning(&text, |_| true);
        }
    }
}
