//! Takes apart the tokens of any builder: any zlib stream, any services, both versions.
//!
//! Keeps true: no input panics or inflates beyond [`INFLATED_LIMIT`]. The signed bytes are kept as they came,
//! so verifying never depends on how they were understood.
//! Must not know: the time, or what Agora would say (`inspect`).

mod begun;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use flate2::{Decompress, FlushDecompress, Status};
use hmac::Mac as _;

use super::access_token2::AccessToken2;
use super::packing::{SliceReader, Truncated};
use super::service::{AgoraService, Privileges};
use super::signer::{keyed, signing_key};
use super::{access_token, access_token2, is_hex_id};
use crate::config::secret::Secret;

pub(crate) use self::begun::{is_data, parse_beginning};

/// The most that a token may inflate to: a hundred times an ordinary token, and the end of a decompression bomb.
pub(crate) const INFLATED_LIMIT: usize = 64 * 1024;

/// Node's `Buffer.from(text, "base64")`, which Agora's package uses, asks for no padding either.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why a string isn't a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenParseError {
    /// The string is empty: Agora's builders return this for a malformed App ID or certificate.
    #[error(
        "the token is empty; Agora's builders return that for a malformed App ID or certificate"
    )]
    Empty,
    /// The string starts with neither 007 nor 006.
    #[error("the token starts with neither 007 nor 006")]
    Version,
    /// The rest isn't base64.
    #[error("what follows the version isn't base64")]
    Base64,
    /// 007: no zlib header.
    #[error("the decoded token isn't a zlib stream")]
    NotZlib,
    /// 007: the stream contradicts itself or its checksum.
    #[error("the zlib stream is damaged")]
    DamagedZlib,
    /// 007: beyond [`INFLATED_LIMIT`].
    #[error("the token inflates to more than {INFLATED_LIMIT} bytes")]
    TooLarge,
    /// Ends inside a value.
    #[error("the token is cut short")]
    Truncated,
}

impl From<Truncated> for TokenParseError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl TokenParseError {
    /// A stable name for programs.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Version => "bad_version",
            Self::Base64 => "bad_base64",
            Self::NotZlib => "not_zlib",
            Self::DamagedZlib => "damaged_zlib",
            Self::TooLarge => "inflated_too_large",
            Self::Truncated => "truncated",
        }
    }
}

/// A token taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// AccessToken2.
    V007(Parsed007),
    /// AccessToken.
    V006(Parsed006),
}

/// An AccessToken2 taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed007 {
    /// As written in the token, be it an App ID or not.
    pub app_id: String,
    /// Times, salt and services; those before an unknown one only.
    pub token: AccessToken2,
    /// The type number at which understanding ended, as Agora's own parser does.
    pub unknown_service: Option<u16>,
    /// Bytes after the last service (signed, but meaning nothing) and after the zlib stream (not even signed).
    pub trailing_bytes: usize,
    signature: Vec<u8>,
    signed: Vec<u8>,
}

/// An AccessToken taken apart. Channel and uid aren't in it, only their CRC-32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed006 {
    /// As written in the token, be it an App ID or not.
    pub app_id: String,
    /// CRC-32 of the channel; in an RTM token of the account.
    pub channel_crc: u32,
    /// CRC-32 of the uid in digits or the account; 0 is that of the empty string.
    pub uid_crc: u32,
    /// The salt.
    pub salt: u32,
    /// When the whole token ends, Unix seconds.
    pub expires_at: u32,
    /// Privilege number to Unix seconds; 0 is "never by itself".
    pub privileges: Privileges,
    /// Bytes that mean nothing.
    pub trailing_bytes: usize,
    signature: Vec<u8>,
    message: Vec<u8>,
}

/// Takes a token apart.
pub fn parse(token: &str) -> Result<Parsed, TokenParseError> {
    if token.is_empty() {
        return Err(TokenParseError::Empty);
    }
    if let Some(encoded) = token.strip_prefix(access_token2::VERSION) {
        return parse_007(encoded).map(Parsed::V007);
    }
    if let Some(rest) = token.strip_prefix(access_token::VERSION) {
        return parse_006(rest).map(Parsed::V006);
    }
    Err(TokenParseError::Version)
}

fn parse_007(encoded: &str) -> Result<Parsed007, TokenParseError> {
    let compressed = BASE64
        .decode(encoded)
        .map_err(|_| TokenParseError::Base64)?;
    let (content, after_stream) = inflate(&compressed)?;
    read_007(&content, after_stream)
}

fn read_007(content: &[u8], after_stream: usize) -> Result<Parsed007, TokenParseError> {
    let mut reader = SliceReader::new(content);
    let signature = reader.bytes()?.to_vec();
    let signed = reader.rest().to_vec();
    let app_id = String::from_utf8_lossy(reader.bytes()?).into_owned();
    let mut token = AccessToken2 {
        issued_at: reader.u32()?,
        expire: reader.u32()?,
        salt: reader.u32()?,
        services: Vec::new(),
    };
    let mut unknown_service = None;
    for _ in 0..reader.u16()? {
        if let Some(service) = AgoraService::unpack(&mut reader)? {
            token.services.push(service);
        } else {
            unknown_service = Some(reader.u16()?);
            break;
        }
    }
    let after_services = match unknown_service {
        Some(_) => 0,
        None => reader.rest().len(),
    };
    Ok(Parsed007 {
        app_id,
        token,
        unknown_service,
        trailing_bytes: after_services + after_stream,
        signature,
        signed,
    })
}

fn parse_006(rest: &str) -> Result<Parsed006, TokenParseError> {
    let (app_id, encoded) = rest
        .split_at_checked(32)
        .ok_or(TokenParseError::Truncated)?;
    let content = BASE64
        .decode(encoded)
        .map_err(|_| TokenParseError::Base64)?;
    read_006(app_id, &content)
}

fn read_006(app_id: &str, content: &[u8]) -> Result<Parsed006, TokenParseError> {
    let mut reader = SliceReader::new(content);
    let signature = reader.bytes()?.to_vec();
    let channel_crc = reader.u32()?;
    let uid_crc = reader.u32()?;
    let message = reader.bytes()?.to_vec();
    let mut inner = SliceReader::new(&message);
    let (salt, expires_at, privileges) = (inner.u32()?, inner.u32()?, inner.privileges()?);
    Ok(Parsed006 {
        app_id: app_id.to_owned(),
        channel_crc,
        uid_crc,
        salt,
        expires_at,
        privileges,
        trailing_bytes: inner.rest().len() + reader.rest().len(),
        signature,
        message,
    })
}

/// Inflates a zlib stream (RFC 1950); gives its content and how many bytes follow it.
fn inflate(stream: &[u8]) -> Result<(Vec<u8>, usize), TokenParseError> {
    const DEFLATE: u8 = 8;
    let header = stream
        .first_chunk::<2>()
        .ok_or(TokenParseError::Truncated)?;
    if header[0] & 0x0f != DEFLATE || u16::from_be_bytes(*header) % 31 != 0 {
        return Err(TokenParseError::NotZlib);
    }
    let mut inflating = Inflating::new();
    if !inflating.feed(stream)? {
        return Err(TokenParseError::Truncated);
    }
    let after_stream = stream.len().saturating_sub(inflating.used());
    Ok((inflating.content, after_stream))
}

/// A zlib stream that is being inflated.
struct Inflating {
    inflater: Decompress,
    content: Vec<u8>,
}

impl Inflating {
    fn new() -> Self {
        Self {
            inflater: Decompress::new(true),
            content: Vec::with_capacity(1024),
        }
    }

    /// Inflates the next part of the stream; returns whether the stream ends in it.
    fn feed(&mut self, part: &[u8]) -> Result<bool, TokenParseError> {
        let before = self.used();
        loop {
            let rest = part.get(self.used() - before..).unwrap_or_default();
            let status = self
                .inflater
                .decompress_vec(rest, &mut self.content, FlushDecompress::None)
                .map_err(|_| TokenParseError::DamagedZlib)?;
            if self.content.len() > INFLATED_LIMIT {
                return Err(TokenParseError::TooLarge);
            }
            if status == Status::StreamEnd {
                return Ok(true);
            }
            if self.content.len() < self.content.capacity() {
                // Room was left and the stream isn't at its end: there was nothing more to read.
                return Ok(false);
            }
            self.content.reserve(self.content.len());
        }
    }

    /// Bytes of the stream so far.
    fn used(&self) -> usize {
        usize::try_from(self.inflater.total_in()).unwrap_or(usize::MAX)
    }
}

impl Parsed {
    /// The App ID, as written in the token.
    pub(crate) fn app_id(&self) -> &str {
        match self {
            Self::V007(token) => &token.app_id,
            Self::V006(token) => &token.app_id,
        }
    }
}

impl Parsed007 {
    /// Whether the certificate (32 hexadecimal digits) signed it. In constant time.
    pub fn verify(&self, certificate: &Secret) -> bool {
        let key = signing_key(certificate.expose(), self.token.issued_at, self.token.salt);
        let signed = keyed(&*key).chain_update(&self.signed);
        are_ids(&self.app_id, certificate) && signed.verify_slice(&self.signature).is_ok()
    }
}

impl Parsed006 {
    /// Whether the certificate (32 hexadecimal digits) signed it for this channel and uid, which aren't in the token.
    /// In constant time.
    pub fn verify(&self, certificate: &Secret, channel: &str, uid: &str) -> bool {
        let signed = keyed(certificate.expose())
            .chain_update(&self.app_id)
            .chain_update(channel)
            .chain_update(uid)
            .chain_update(&self.message);
        are_ids(&self.app_id, certificate) && signed.verify_slice(&self.signature).is_ok()
    }

    /// Whether its CRC is that of this channel.
    pub(crate) fn is_for_channel(&self, channel: &str) -> bool {
        self.channel_crc == crc32fast::hash(channel.as_bytes())
    }

    /// Whether its CRC is that of this uid, spelled as tokens spell it.
    pub(crate) fn is_for_uid(&self, uid: &str) -> bool {
        self.uid_crc == crc32fast::hash(uid.as_bytes())
    }
}

/// Agora's package verifies nothing where either isn't 32 hexadecimal digits.
fn are_ids(app_id: &str, certificate: &Secret) -> bool {
    is_hex_id(app_id.as_bytes()) && is_hex_id(certificate.expose())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn token_of(content: &[u8]) -> String {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        format!("007{}", BASE64.encode(encoder.finish().unwrap()))
    }

    /// Signature, App ID, issue time, lifetime, salt and a count of services; then the given bytes.
    fn content_with(services: u16, rest: &[u8]) -> Vec<u8> {
        let mut content = vec![32, 0];
        content.extend([7; 32]);
        content.extend([32, 0]);
        content.extend([b'a'; 32]);
        content.extend([0; 12]);
        content.extend(services.to_le_bytes());
        content.extend(rest);
        content
    }

    fn refusal(token: &str) -> TokenParseError {
        parse(token).unwrap_err()
    }

    #[test]
    fn a_string_that_is_no_token_says_why() {
        assert_eq!(refusal(""), TokenParseError::Empty);
        assert_eq!(refusal("00"), TokenParseError::Version);
        assert_eq!(refusal("008abcd"), TokenParseError::Version);
        assert_eq!(refusal("007"), TokenParseError::Truncated);
        assert_eq!(refusal("007!!!!"), TokenParseError::Base64);
        assert_eq!(refusal("007AAAA"), TokenParseError::NotZlib);
        assert_eq!(refusal("006ff"), TokenParseError::Truncated);
        assert_eq!(
            refusal(&format!("006{}", "a".repeat(32))),
            TokenParseError::Truncated
        );
        assert_eq!(
            refusal(&format!("006{}*", "a".repeat(32))),
            TokenParseError::Base64
        );
        assert_eq!(
            refusal(&format!("006{}ü", "a".repeat(31))),
            TokenParseError::Truncated
        );
    }

    #[test]
    fn a_damaged_stream_is_told_from_a_short_one() {
        let good = token_of(&content_with(0, &[]));
        assert!(parse(&good).is_ok());
        let mut stream = BASE64.decode(&good[3..]).unwrap();
        let last = stream.len() - 1;
        stream[last] ^= 1;
        assert_eq!(inflate(&stream), Err(TokenParseError::DamagedZlib));
        assert_eq!(inflate(&stream[..last]), Err(TokenParseError::Truncated));
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        assert_eq!(
            refusal(&token_of(&vec![0; INFLATED_LIMIT + 1])),
            TokenParseError::TooLarge
        );
        assert_eq!(
            refusal(&token_of(&vec![0; 50_000_000])),
            TokenParseError::TooLarge
        );
        let largest = content_with(0, &vec![0; INFLATED_LIMIT - content_with(0, &[]).len()]);
        assert!(parse(&token_of(&largest)).is_ok());
    }

    #[test]
    fn reading_ends_at_an_unknown_service_as_agoras_parser_does() {
        let Ok(Parsed::V007(parsed)) = parse(&token_of(&content_with(2, &[4, 0, 0, 0, 99, 0, 1])))
        else {
            panic!("not parsed");
        };
        assert_eq!(parsed.token.services.len(), 1);
        assert_eq!(parsed.unknown_service, Some(99));
        assert_eq!(
            refusal(&token_of(&content_with(2, &[4, 0, 0, 0]))),
            TokenParseError::Truncated
        );
    }

    #[test]
    fn trailing_bytes_are_counted_inside_and_behind_the_stream() {
        let token = token_of(&content_with(1, &[4, 0, 0, 0, 1, 2, 3]));
        let mut stream = BASE64.decode(&token[3..]).unwrap();
        stream.extend([9; 5]);
        let Ok(Parsed::V007(parsed)) = parse(&format!("007{}", BASE64.encode(stream))) else {
            panic!("not parsed");
        };
        assert_eq!(parsed.trailing_bytes, 8);
    }

    proptest! {
        #[test]
        fn no_string_panics(token in "(006|007)?\\PC{0,200}") {
            let _ = parse(&token);
        }

        #[test]
        fn no_content_panics(content in proptest::collection::vec(any::<u8>(), 0..300), services: u16) {
            let _ = parse(&token_of(&content));
            let _ = parse(&token_of(&content_with(services, &content)));
            let _ = parse(&format!("006{}{}", "a".repeat(32), BASE64.encode(&content)));
        }
    }
}
