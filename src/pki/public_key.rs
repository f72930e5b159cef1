//! A public key that verifies signatures: RSA, NIST's elliptic curves, Ed25519.
//!
//! Keeps true: a key is complete, of a kind that is used here, and long enough; it holds nothing secret.
//! Must not know: what is signed, files, which algorithm a key is used with.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::der::{Element, serial_number};

use crate::terms::labels::labels;

/// The shortest RSA modulus by RFC 7518 §3.3, which Node's `jsonwebtoken` 9 asks of signers.
const LEAST_RSA_BITS: usize = 2048;
/// The longest: beyond this one signature costs milliseconds.
const MOST_RSA_BITS: usize = 8192;

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    /// DER, or an uncompressed point: what aws-lc-rs takes for this kind.
    bytes: Arc<[u8]>,
}

labels! {
    /// The kind of a key, which says what it can verify.
    pub(crate) enum KeyKind {
        /// RSA, 2048 to 8192 bits.
        Rsa => "RSA",
        /// NIST P-256.
        P256 => "P-256",
        /// NIST P-384.
        P384 => "P-384",
        /// NIST P-521.
        P521 => "P-521",
        /// Edwards curve 25519 (RFC 8032).
        Ed25519 => "Ed25519",
    }
}

impl KeyKind {
    /// Some algorithm of this kind: aws-lc-rs parses a key for one, and how is the same for all of a kind.
    fn any_algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rsa => &RSA_PKCS1_2048_8192_SHA256,
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
            Self::Ed25519 => &ED25519,
        }
    }
}

/// Why something isn't a key that is used here. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The text has no public key or certificate between `-----BEGIN` and `-----END`.
    #[error("no public key in PEM")]
    NotPem,
    /// A private key, which only the signer should have.
    #[error("a private key")]
    Private,
    /// Another kind of key.
    #[error("neither RSA, P-256, P-384, P-521 nor Ed25519")]
    Kind,
    /// A key made for one way of padding, with parameters of its own.
    #[error("an RSA key for PSS alone (id-RSASSA-PSS)")]
    PssOnly,
    /// The curve's parameters in place of its name: an attacker who chooses them can forge signatures.
    #[error("an elliptic curve's parameters in place of its name")]
    UnnamedCurve,
    /// A key that is too short to be safe, or too long to be fast.
    #[error("an RSA key of {0} bits; 2048 to 8192 are taken")]
    Length(usize),
    /// The bytes aren't the key that their label or algorithm says.
    #[error("a damaged key")]
    Damaged,
}

impl PublicKey {
    /// The first key of a PEM text (RFC 7468): `PUBLIC KEY` (SPKI), `RSA PUBLIC KEY` (PKCS #1), or the key in a
    /// `CERTIFICATE`, whose dates and issuer don't count, as in Node's `createPublicKey`. `rustls::pki_types::pem`
    /// isn't used: its `SectionKind` (1.16) knows no `RSA PUBLIC KEY` and no `ENCRYPTED PRIVATE KEY`.
    pub fn from_pem(text: &[u8]) -> Result<Self, BadKey> {
        let text = String::from_utf8_lossy(text);
        let mut rest = &*text;
        while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
            let (label, body) = begun.split_once("-----").ok_or(BadKey::NotPem)?;
            let (body, after) = body.split_once("-----END ").ok_or(BadKey::NotPem)?;
            rest = after;
            if label.ends_with("PRIVATE KEY") {
                return Err(BadKey::Private);
            }
            let decoded = || {
                let letters: String = body.split_ascii_whitespace().collect();
                STANDARD.decode(letters).map_err(|_| BadKey::NotPem)
            };
            return match label {
                "PUBLIC KEY" => Self::from_spki(&decoded()?),
                "RSA PUBLIC KEY" => Self::rsa_from_pkcs1(&decoded()?),
                "CERTIFICATE" => {
                    let certificate = decoded()?;
                    // serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo.
                    let spki = serial_number(&certificate)
                        .and_then(|field| field.next()?.next()?.next()?.next()?.next())
                        .ok_or(BadKey::Damaged)?;
                    Self::from_spki(spki.whole)
                }
                _ => continue,
            };
        }
        Err(BadKey::NotPem)
    }

    /// An RSA key from its modulus and exponent, big-endian (RFC 7518 §6.3.1).
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, BadKey> {
        let modulus = without_zeros(modulus);
        check_length(modulus)?;
        let components = RsaPublicKeyComponents {
            n: modulus,
            e: without_zeros(exponent),
        };
        let parsed = components
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| BadKey::Damaged)?;
        Self::checked(KeyKind::Rsa, parsed.as_ref())
    }

    /// A point of one of the NIST curves; coordinates of the curve's full width (RFC 7518 §6.2.1).
    pub(crate) fn point(kind: KeyKind, x: &[u8], y: &[u8]) -> Result<Self, BadKey> {
        const UNCOMPRESSED: u8 = 4;
        let width = match kind {
            KeyKind::P256 => 32,
            KeyKind::P384 => 48,
            KeyKind::P521 => 66,
            KeyKind::Rsa | KeyKind::Ed25519 => return Err(BadKey::Kind),
        };
        if x.len() != width || y.len() != width {
            return Err(BadKey::Damaged);
        }
        Self::checked(kind, &[&[UNCOMPRESSED], x, y].concat())
    }

    /// An Ed25519 key from its 32 bytes (RFC 8037 §2).
    pub(crate) fn ed25519(bytes: &[u8]) -> Result<Self, BadKey> {
        if bytes.len() != 32 {
            return Err(BadKey::Damaged);
        }
        Self::checked(KeyKind::Ed25519, bytes)
    }

    /// The kind.
    pub(crate) fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key, ready to verify under one algorithm of its kind; `None` for one of another kind.
    pub(crate) fn parsed(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
    ) -> Option<ParsedPublicKey> {
        ParsedPublicKey::new(algorithm, &self.bytes).ok()
    }

    /// `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
    fn from_spki(der: &[u8]) -> Result<Self, BadKey> {
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
        const SEQUENCE: u8 = 0x30;
        const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
        const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
        const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
        const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
        const P521: &[u8] = &[0x2b, 0x81, 4, 0, 0x23];
        const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
        let algorithm = Element::first(der).and_then(|spki| spki.inner());
        let algorithm = algorithm.ok_or(BadKey::Damaged)?;
        let name = algorithm.inner().ok_or(BadKey::Damaged)?;
        let parameters = || name.next();
        let curve = || parameters().map(|curve| curve.content);
        let kind = match name.content {
            RSA => {
                // A bit string: how many of its last bits are none, then PKCS #1.
                let key = algorithm.next().and_then(|bits| bits.content.split_first());
                let (_, key) = key.ok_or(BadKey::Damaged)?;
                check_length(modulus(key).ok_or(BadKey::Damaged)?)?;
                KeyKind::Rsa
            }
            EC if curve() == Some(P256) => KeyKind::P256,
            EC if curve() == Some(P384) => KeyKind::P384,
            EC if curve() == Some(P521) => KeyKind::P521,
            ED25519 => KeyKind::Ed25519,
            RSA_PSS => return Err(BadKey::PssOnly),
            EC if parameters().is_some_and(|found| found.tag == SEQUENCE) => {
                return Err(BadKey::UnnamedCurve);
            }
            _ => return Err(BadKey::Kind),
        };
        Self::checked(kind, der)
    }

    fn rsa_from_pkcs1(der: &[u8]) -> Result<Self, BadKey> {
        check_length(modulus(der).ok_or(BadKey::Damaged)?)?;
        Self::checked(KeyKind::Rsa, der)
    }

    fn checked(kind: KeyKind, bytes: &[u8]) -> Result<Self, BadKey> {
        ParsedPublicKey::new(kind.any_algorithm(), bytes).map_err(|_| BadKey::Damaged)?;
        Ok(Self {
            kind,
            bytes: bytes.into(),
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.as_str())
    }
}

/// The modulus of an `RSAPublicKey` (RFC 8017 §A.1.1).
fn modulus(pkcs1: &[u8]) -> Option<&[u8]> {
    let modulus = Element::first(pkcs1)?.inner()?;
    Some(without_zeros(modulus.content))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0);
    start
        .and_then(|start| number.get(start..))
        .unwrap_or_default()
}

fn check_length(modulus: &[u8]) -> Result<(), BadKey> {
    let unused = modulus
        .first()
        .map_or(0, |first| first.leading_zeros() as usize);
    let bits = modulus.len() * 8 - unused;
    if (LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&bits) {
        Ok(())
    } else {
        Err(BadKey::Length(bits))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The output of openssl for these commands, each fed with the output of the one before.
    fn openssl(commands: &[&str]) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in");
        let mut printed = Vec::new();
        for command in commands {
            std::fs::write(&path, &printed).unwrap();
            let output = Command::new("openssl")
                .args(command.split(' '))
                .current_dir(&directory)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            printed = output.stdout;
        }
        printed
    }

    fn generated(how: &str) -> Vec<u8> {
        openssl(&[&format!("genpkey -quiet -algorithm {how}")])
    }

    fn public(how: &str) -> Vec<u8> {
        openssl(&[
            &format!("genpkey -quiet -algorithm {how}"),
            "pkey -in in -pubout",
        ])
    }

    #[test]
    fn every_kind_is_read_from_pem() {
        for (how, kind) in [
            ("RSA -pkeyopt rsa_keygen_bits:2048", KeyKind::Rsa),
            ("EC -pkeyopt ec_paramgen_curve:P-256", KeyKind::P256),
            ("EC -pkeyopt ec_paramgen_curve:P-384", KeyKind::P384),
            ("EC -pkeyopt ec_paramgen_curve:P-521", KeyKind::P521),
            ("ED25519", KeyKind::Ed25519),
        ] {
            let pem = public(how);
            let key = PublicKey::from_pem(&pem).unwrap();
            assert_eq!(key.kind(), kind, "{how}");
            let commented = [b"a comment\n".as_slice(), &pem].concat();
            assert_eq!(PublicKey::from_pem(&commented).unwrap(), key);
        }
    }

    #[test]
    fn pkcs1_and_a_certificate_hold_the_same_key() {
        let private = "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048";
        let pkcs1 = openssl(&[private, "rsa -in in -RSAPublicKey_out"]);
        assert!(pkcs1.starts_with(b"-----BEGIN RSA PUBLIC KEY"));
        assert_eq!(PublicKey::from_pem(&pkcs1).unwrap().kind(), KeyKind::Rsa);

        let directory = tempfile::tempdir().unwrap();
        let run = |arguments: &str| {
            let output = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(&directory)
                .output();
            output.unwrap().stdout
        };
        run(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out cert -subj /CN=x",
        );
        let certificate = std::fs::read(directory.path().join("cert")).unwrap();
        let public = run("pkey -in key -pubout");
        assert_eq!(
            PublicKey::from_pem(&certificate).unwrap(),
            PublicKey::from_pem(&public).unwrap()
        );
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused_with_its_reason() {
        let short = public("RSA -pkeyopt rsa_keygen_bits:1024");
        assert_eq!(PublicKey::from_pem(&short), Err(BadKey::Length(1024)));
        let private = generated("EC -pkeyopt ec_paramgen_curve:P-256");
        assert_eq!(PublicKey::from_pem(&private), Err(BadKey::Private));
        for how in ["X25519", "ED448", "EC -pkeyopt ec_paramgen_curve:secp256k1"] {
            let other = PublicKey::from_pem(&public(how));
            assert_eq!(other, Err(BadKey::Kind), "{how}");
        }
        let pss = public("RSA-PSS -pkeyopt rsa_keygen_bits:2048");
        assert_eq!(PublicKey::from_pem(&pss), Err(BadKey::PssOnly));
        for curve in ["P-256", "P-384", "P-521", "secp256k1"] {
            let explicit =
                format!("EC -pkeyopt ec_paramgen_curve:{curve} -pkeyopt ec_param_enc:explicit");
            let unnamed = PublicKey::from_pem(&public(&explicit));
            assert_eq!(unnamed, Err(BadKey::UnnamedCurve), "{curve}");
        }
        // This is the command that the configuration's hint shows.
        let named = openssl(&[
            "genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "pkey -in in -pubout",
            "ec -pubin -in in -param_enc named_curve",
        ]);
        assert_eq!(PublicKey::from_pem(&named).unwrap().kind(), KeyKind::P256);
        for text in [
            "",
            "secret",
            "-----BEGIN ",
            "-----BEGIN PUBLIC KEY-----\nMIIB",
            "-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----",
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----",
        ] {
            let refused = PublicKey::from_pem(text.as_bytes());
            assert_eq!(refused, Err(BadKey::NotPem), "{text}");
        }
        let cut = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----";
        assert_eq!(PublicKey::from_pem(cut.as_bytes()), Err(BadKey::Damaged));
    }

    #[test]
    fn a_point_off_its_curve_is_no_key() {
        let ones = [1; 32];
        assert_eq!(
            PublicKey::point(KeyKind::P256, &ones, &ones),
            Err(BadKey::Damaged)
        );
        assert_eq!(
            PublicKey::point(KeyKind::P256, &ones[1..], &ones),
            Err(BadKey::Damaged)
        );
        assert_eq!(
            PublicKey::rsa(&[255; 255], &[1, 0, 1]),
            Err(BadKey::Length(2040))
        );
        assert_eq!(PublicKey::ed25519(&[1; 31]), Err(BadKey::Damaged));
    }
}
