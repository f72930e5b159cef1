//! Tokens signed byte by byte, because no library would sign most of these.

#![allow(dead_code)] // each test file uses its own part

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};

pub const SECRET: &str = "correct horse battery staple";
pub const TYPED: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
pub const UNTYPED: &str = r#"{"alg":"HS256"}"#;
pub const GOOD: &str = r#"{"sub":"ada"}"#;

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn mac(bits: u32, secret: &str, signed: &str) -> Vec<u8> {
    let secret = secret.as_bytes();
    match bits {
        256 => Hmac::<Sha256>::new_from_slice(secret)
            .unwrap()
            .chain_update(signed)
            .finalize()
            .into_bytes()
            .to_vec(),
        384 => Hmac::<Sha384>::new_from_slice(secret)
            .unwrap()
            .chain_update(signed)
            .finalize()
            .into_bytes()
            .to_vec(),
        _ => Hmac::<Sha512>::new_from_slice(secret)
            .unwrap()
            .chain_update(signed)
            .finalize()
            .into_bytes()
            .to_vec(),
    }
}

/// Signs two parts as they stand.
pub fn signed(header: &str, payload: &str) -> String {
    let signed = format!("{header}.{payload}");
    let signature = encode(mac(256, SECRET, &signed));
    format!("{signed}.{signature}")
}

/// Encodes and signs whatever bytes.
pub fn token(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    signed(&encode(header), &encode(payload))
}

pub fn claims(payload: impl AsRef<[u8]>) -> String {
    token(TYPED, payload)
}
