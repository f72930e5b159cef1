//! The sealing of sockets' logins for a store that others may read: what is there tells neither a login nor a session's
//! id to anybody without the Agora project's certificate.
//!
//! Keeps true: a sealed login opens only under the session and the namespace that it was sealed for, and only unchanged;
//! what doesn't open counts as unknown, as after a change of the certificate. Keys are wiped when they are dropped, and
//! never shown.
//! Must not know: who keeps what is sealed, who a login names.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::secret::Secret;
use crate::terms::clock::Entropy;

/// The salt of the keys' derivation. Another format of what is sealed takes another salt.
const SALT: &[u8] = b"renewd: logins of sockets, 1";

/// What is derived: a session's name, a session's key, a namespace's field.
const NAME: &[u8] = b"name";
const KEY: &[u8] = b"key.";
const FIELD: &[u8] = b"ns..";

/// The length of a field's name.
const FIELD_LENGTH: usize = 16;

/// The seals under one certificate, which replicas have in common and no store ever sees.
#[derive(Clone)]
pub(crate) struct LoginSeals(Hmac<Sha256>);

/// The seal of one session. AES-GCM bears no nonce twice under one key, and random ones of 96 bits are safe for some
/// 2³² messages: so each session has a key of its own, and a certificate may stay for years.
pub(crate) struct SessionSeal {
    /// Stands for the session's id.
    pub name: [u8; 32],
    seals: LoginSeals,
    key: LessSafeKey,
}

/// A login that is sealed, and the field that stands for its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedLogin {
    /// Tells the namespace from the session's others, and nothing else.
    pub field: Vec<u8>,
    /// The nonce, the namespace and its login encrypted, the tag.
    pub bytes: Vec<u8>,
}

/// A namespace, and its login; `None` where the client gave none.
pub(crate) type NamespaceLogin = (Box<str>, Option<Box<str>>);

// === impl LoginSeals ===

impl LoginSeals {
    /// The seals under this certificate.
    pub(crate) fn new(certificate: &Secret) -> Self {
        Self(keyed(&*extracted(certificate.expose())))
    }

    /// The seal of the session with this id.
    pub(crate) fn session(&self, id: &str) -> Option<SessionSeal> {
        let name = *self.derived(&[NAME, id.as_bytes()]);
        let key = self.derived(&[KEY, &name]);
        let key = UnboundKey::new(&AES_256_GCM, &*key).ok()?;
        Some(SessionSeal {
            name,
            seals: self.clone(),
            key: LessSafeKey::new(key),
        })
    }

    /// HKDF-Expand (RFC 5869 §2.3) to one block. The first part says what is derived, and its length is always the same.
    fn derived(&self, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut mac = self.0.clone();
        for part in info {
            mac.update(part);
        }
        mac.update(&[1]);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

/// HKDF-Extract (RFC 5869 §2.2).
fn extracted(secret: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = keyed(SALT);
    mac.update(secret);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The state under a key of at most a block, which HMAC fills up with zeros (RFC 2104).
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    for (place, byte) in block.iter_mut().zip(key) {
        *place = *byte;
    }
    Hmac::new((&*block).into())
}

impl fmt::Debug for LoginSeals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LoginSeals").finish_non_exhaustive()
    }
}

// === impl SessionSeal ===

impl SessionSeal {
    /// Seals a namespace's login; `None` where the system's generator gives nothing.
    pub(crate) fn seal(
        &self,
        namespace: &str,
        login: Option<&str>,
        entropy: Entropy,
    ) -> Option<SealedLogin> {
        let field = self.field(namespace);
        let nonce = nonce(entropy)?;
        let length = u32::try_from(namespace.len()).ok()?;
        let text = login.unwrap_or_default();
        // Room for all: a buffer that grows leaves copies behind.
        let room = NONCE_LEN + 4 + namespace.len() + 1 + text.len() + AES_256_GCM.tag_len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(namespace.as_bytes());
        bytes.push(u8::from(login.is_some()));
        bytes.extend_from_slice(text.as_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let about = self.about(&field);
        let secret = bytes.get_mut(NONCE_LEN..)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(about), secret);
        bytes.extend_from_slice(tag.ok()?.as_ref());
        Some(SealedLogin {
            field,
            bytes: std::mem::take(&mut *bytes),
        })
    }

    /// Opens what was sealed for this session under this field.
    pub(crate) fn open(&self, field: &[u8], bytes: &[u8]) -> Option<NamespaceLogin> {
        let (nonce, sealed) = bytes.split_first_chunk()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut opened = Zeroizing::new(sealed.to_vec());
        let about = Aad::from(self.about(field));
        let plain: &[u8] = self.key.open_in_place(nonce, about, &mut opened).ok()?;
        let (length, rest) = plain.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (namespace, rest) = rest.split_at_checked(length)?;
        let (has_login, login) = rest.split_first()?;
        let namespace = std::str::from_utf8(namespace).ok()?;
        let login = std::str::from_utf8(login).ok()?;
        Some((namespace.into(), (*has_login == 1).then(|| login.into())))
    }

    /// The field that stands for a namespace of this session.
    pub(crate) fn field(&self, namespace: &str) -> Vec<u8> {
        let derived = self
            .seals
            .derived(&[FIELD, &self.name, namespace.as_bytes()]);
        derived.iter().copied().take(FIELD_LENGTH).collect()
    }

    /// What is authenticated with each login: whose it is.
    fn about(&self, field: &[u8]) -> Vec<u8> {
        [&self.name, field].concat()
    }
}

fn nonce(entropy: Entropy) -> Option<[u8; NONCE_LEN]> {
    let mut nonce = [0; NONCE_LEN];
    for part in nonce.chunks_mut(8) {
        let random = entropy.u64().ok()?.to_le_bytes();
        part.copy_from_slice(random.get(..part.len())?);
    }
    Some(nonce)
}

impl fmt::Debug for SessionSeal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SessionSeal")
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals(certificate: &str) -> LoginSeals {
        LoginSeals::new(&Secret::new(certificate.into()))
    }

    fn seal_of(id: &str) -> SessionSeal {
        seals("5cfd2fd1755d40ecb72977518be15d3b")
            .session(id)
            .unwrap()
    }

    #[test]
    fn keys_are_derived_as_the_first_example_of_rfc_5869_says() {
        let secret = [0x0b; 22];
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let mut mac = keyed(&salt);
        mac.update(&secret);
        let extracted: [u8; 32] = mac.finalize().into_bytes().into();
        let derived = LoginSeals(keyed(&extracted)).derived(&[&info]);
        let expected = [
            0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36,
            0x2f, 0x2a, 0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56,
            0xec, 0xc4, 0xc5, 0xbf,
        ];
        assert_eq!(*derived, expected);
    }

    #[test]
    fn a_login_opens_for_its_own_session_and_namespace_alone() {
        let (own, other) = (seal_of("session a"), seal_of("session b"));
        for (namespace, login) in [
            ("/", Some("a.b.c")),
            ("/", Some("")),
            ("/calls", None),
            ("", Some("grüße")),
        ] {
            let sealed = own.seal(namespace, login, Entropy::System).unwrap();
            let opened = own.open(&sealed.field, &sealed.bytes).unwrap();
            assert_eq!((&*opened.0, opened.1.as_deref()), (namespace, login));
            // Another process with the same certificate.
            let again = seal_of("session a").open(&sealed.field, &sealed.bytes);
            assert_eq!(again, Some(opened));
            assert_eq!(other.open(&sealed.field, &sealed.bytes), None);
            assert_eq!(other.open(&other.field(namespace), &sealed.bytes), None);
            assert_eq!(own.open(&own.field("/other"), &sealed.bytes), None);
            let rotated = seals("970ca35de60c44645bbae8a215061b33").session("session a");
            let rotated = rotated.unwrap();
            assert_eq!(rotated.open(&sealed.field, &sealed.bytes), None);
            assert_ne!(rotated.name, own.name);
        }
    }

    #[test]
    fn what_was_changed_or_cut_does_not_open() {
        let own = seal_of("session");
        let sealed = own.seal("/ns", Some("login"), Entropy::System).unwrap();
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.bytes.clone();
            changed[at] ^= 1;
            assert_eq!(own.open(&sealed.field, &changed), None);
            assert_eq!(own.open(&sealed.field, &sealed.bytes[..at]), None);
        }
    }

    #[test]
    fn the_same_login_is_sealed_differently_each_time_and_never_readable() {
        let own = seal_of("the session's id");
        let secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
        let seal = || own.seal("/calls", Some(secret), Entropy::System).unwrap();
        let (first, second) = (seal(), seal());
        assert_eq!(first.field, second.field);
        assert_ne!(first.bytes, second.bytes);
        for sealed in [first, second] {
            let all = [own.name.to_vec(), sealed.field, sealed.bytes].concat();
            for readable in ["eyJ", "calls", "session"] {
                let mut windows = all.windows(readable.len());
                assert!(!windows.any(|window| window == readable.as_bytes()));
            }
        }
    }
}
