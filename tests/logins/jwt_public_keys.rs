//! Tokens signed with private keys: renewd verifies every token that Node signs, and gives Node's verdict on one that
//! was tampered with.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use crate::compare::{assert_equal, ours};
use crate::support::key_pairs::Pair;
use crate::table::{NOW, Row, Settings, Token, Verdict};
use crate::tokens::encode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use renewd::config::model::JwtAlgorithm::{
    self, EdDsa, Es256, Es384, Es512, Hs256, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512,
};
use renewd::logins::jwt::JwtError;
use serde_json::json;
use sha2::Sha256;

/// base64url in the order of its values (RFC 4648 §5).
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn row(name: &str, pair: &Pair, allowed: &[JwtAlgorithm], token: String, expected: Verdict) -> Row {
    Row {
        name: name.into(),
        token: Token::Text(token),
        secret: pair.public.clone(),
        settings: Settings {
            algorithms: allowed.to_vec(),
            ..Settings::default()
        },
        expected: Some(expected),
    }
}

fn ada() -> Verdict {
    Verdict::Accepted("ada".into())
}

/// Each algorithm of jsonwebtoken's with a key for it and one that isn't.
fn families() -> Vec<(&'static str, JwtAlgorithm, Pair, Pair)> {
    let (rsa, other_rsa) = (Pair::rsa(), Pair::rsa());
    let ec = |curve| (Pair::ec(curve), Pair::ec(curve));
    let mut families = Vec::new();
    for (name, algorithm) in [
        ("RS256", Rs256),
        ("RS384", Rs384),
        ("RS512", Rs512),
        ("PS256", Ps256),
        ("PS384", Ps384),
        ("PS512", Ps512),
    ] {
        families.push((name, algorithm, rsa.clone(), other_rsa.clone()));
    }
    for (name, algorithm, curve) in [
        ("ES256", Es256, "P-256"),
        ("ES384", Es384, "P-384"),
        ("ES512", Es512, "P-521"),
    ] {
        let (pair, other) = ec(curve);
        families.push((name, algorithm, pair, other));
    }
    families
}

/// A key pair's tokens, as signed and as they are not.
struct SignedTokens<'a> {
    name: &'a str,
    pair: &'a Pair,
    algorithm: JwtAlgorithm,
    rows: Vec<Row>,
}

impl SignedTokens<'_> {
    fn add(&mut self, what: &str, token: String, expected: Verdict) {
        let name = format!("{}: {what}", self.name);
        let allowed = [self.algorithm];
        self.rows
            .push(row(&name, self.pair, &allowed, token, expected));
    }

    fn refuse(&mut self, what: &str, token: String) {
        self.add(what, token, Verdict::Refused);
    }

    /// The token with another payload, another header, or without its signature.
    fn with_other_parts(&mut self, token: &str) {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let changed = encode(json!({"sub": "eve", "iat": NOW, "exp": NOW + 60}).to_string());
        let unsigned = encode(json!({"alg": "none"}).to_string());
        self.refuse(
            "of another payload",
            format!("{header}.{changed}.{signature}"),
        );
        self.refuse("without a signature", format!("{signed}."));
        self.refuse("named none", format!("{unsigned}.{changed}.{signature}"));
    }

    fn with_other_signatures(&mut self, token: &str) {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let with = |bytes: &[u8]| format!("{signed}.{}", encode(bytes));
        self.refuse("cut by a byte", with(&bytes[..bytes.len() - 1]));
        self.refuse("longer by a byte", with(&[&bytes[..], &[0]].concat()));
        self.refuse("all zeros", with(&vec![0; bytes.len()]));
        self.refuse("all ones", with(&vec![255; bytes.len()]));
        let mut flipped = bytes.clone();
        flipped[0] ^= 1;
        self.refuse("with a bit flipped", with(&flipped));
        if !bytes.len().is_multiple_of(3) {
            // Bits that fill no byte: a MAC is compared as text, a signature is decoded.
            let mut spelling = signature.as_bytes().to_vec();
            let last = spelling.last_mut().unwrap();
            let at = LETTERS.iter().position(|letter| letter == last).unwrap();
            *last = LETTERS[at ^ 1];
            let spelling = String::from_utf8(spelling).unwrap();
            self.add(
                "spelt with other spare bits",
                format!("{signed}.{spelling}"),
                ada(),
            );
        }
    }
}

#[test]
fn tokens_that_node_signs_get_nodes_verdict_whole_and_tampered_with() {
    let mut rows = Vec::new();
    for (name, algorithm, pair, other) in families() {
        let payload = json!({"sub": "ada", "iat": NOW, "exp": NOW + 60});
        let token = pair.sign(name, &payload, "");
        let mut tokens = SignedTokens {
            name,
            pair: &pair,
            algorithm,
            rows: Vec::new(),
        };
        tokens.add("as signed", token.clone(), ada());
        let expired = json!({"sub": "ada", "exp": NOW});
        tokens.add("expired", pair.sign(name, &expired, ""), Verdict::Expired);
        tokens.refuse("by another key", other.sign(name, &payload, ""));
        tokens.with_other_parts(&token);
        tokens.with_other_signatures(&token);
        rows.extend(tokens.rows);
    }
    assert_equal(&rows);
}

/// All algorithms that jsonwebtoken knows, which lacks `EdDSA`.
fn all_of_node() -> Vec<JwtAlgorithm> {
    let all = JwtAlgorithm::NAMES.map(|(_, algorithm)| algorithm);
    all.into_iter().filter(|one| *one != EdDsa).collect()
}

#[test]
fn a_public_key_never_serves_as_a_secret() {
    let (rsa, ec) = (Pair::rsa(), Pair::ec("P-256"));
    let all = all_of_node();
    let mut rows = Vec::new();
    for (name, pair) in [("RSA", &rsa), ("EC", &ec)] {
        for secret in [
            pair.public.clone(),
            pair.public.trim().to_owned(),
            pair.public.replace('\n', "\r\n"),
        ] {
            let signed = format!(
                "{}.{}",
                encode(json!({"alg": "HS256", "typ": "JWT"}).to_string()),
                encode(json!({"sub": "eve"}).to_string())
            );
            let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
            let mac = mac.chain_update(&signed).finalize().into_bytes();
            rows.push(row(
                &format!("{name} key as an HMAC secret of {} bytes", secret.len()),
                pair,
                &all,
                format!("{signed}.{}", encode(mac)),
                Verdict::Refused,
            ));
        }
    }
    assert_equal(&rows);
}

#[test]
fn a_public_key_verifies_no_algorithm_of_another_family() {
    let (rsa, ec) = (Pair::rsa(), Pair::ec("P-256"));
    let all = all_of_node();
    let mut rows = Vec::new();
    let payload = json!({"sub": "ada"});
    for (name, pair, key, allowed, expected) in [
        ("RS256", &rsa, &rsa, &all[..], ada()),
        ("ES256", &ec, &ec, &all[..], ada()),
        ("RS256", &rsa, &ec, &all[..], Verdict::Refused),
        ("ES256", &ec, &rsa, &all[..], Verdict::Refused),
        ("PS256", &rsa, &rsa, &[Rs256], Verdict::Refused),
        (
            "RS256",
            &rsa,
            &rsa,
            &[Ps256, Es256, Hs256],
            Verdict::Refused,
        ),
        ("RS512", &rsa, &rsa, &[Rs256, Rs384], Verdict::Refused),
    ] {
        let token = pair.sign(name, &payload, "");
        let kind = if key.public.len() > 300 { "RSA" } else { "EC" };
        rows.push(row(
            &format!("{name} with an {kind} key, of {allowed:?}"),
            key,
            allowed,
            token,
            expected,
        ));
    }
    // The header says one algorithm, the signature is made by another of the same key.
    for (says, is) in [("PS256", "RS256"), ("RS256", "PS256"), ("RS512", "RS256")] {
        let token = rsa.sign(is, &payload, "");
        let (_, rest) = token.split_once('.').unwrap();
        let header = encode(json!({"alg": says, "typ": "JWT"}).to_string());
        let name = format!("says {says}, is {is}");
        rows.push(row(
            &name,
            &rsa,
            &all,
            format!("{header}.{rest}"),
            Verdict::Refused,
        ));
    }
    assert_equal(&rows);
}

#[test]
fn a_curve_belongs_to_one_algorithm() {
    let pairs = [
        ("ES256", Pair::ec("P-256")),
        ("ES384", Pair::ec("P-384")),
        ("ES512", Pair::ec("P-521")),
    ];
    let mut rows = Vec::new();
    for (name, signer) in &pairs {
        let token = signer.sign(name, &json!({"sub": "ada"}), "");
        for (other, key) in &pairs {
            let expected = if name == other {
                ada()
            } else {
                Verdict::Refused
            };
            let allowed = [Es256, Es384, Es512];
            let named = format!("{name} with the key of {other}");
            rows.push(row(&named, key, &allowed, token.clone(), expected));
        }
    }
    assert_equal(&rows);
}

#[test]
fn an_ecdsa_signature_in_der_is_refused() {
    let pair = Pair::ec("P-256");
    let signed = format!(
        "{}.{}",
        encode(json!({"alg": "ES256"}).to_string()),
        encode(json!({"sub": "ada"}).to_string())
    );
    let token = format!("{signed}.{}", encode(pair.openssl_signature(&signed)));
    assert_equal(&[row("DER", &pair, &[Es256], token, Verdict::Refused)]);
}

#[test]
fn ed25519_tokens_of_nodes_crypto_verify_under_either_name() {
    let (pair, other) = (Pair::ed25519(), Pair::ed25519());
    let token = pair.sign("EdDSA", &json!({"sub": "ada"}), "");
    let verdict = |token: &str, key: &Pair, allowed: &[JwtAlgorithm]| {
        let row = row("", key, allowed, token.to_owned(), ada());
        ours(token, &row)
    };
    assert_eq!(verdict(&token, &pair, &[EdDsa]).unwrap(), "ada");
    assert_eq!(verdict(&token, &other, &[EdDsa]), Err(JwtError::Signature));
    assert_eq!(
        verdict(&token, &pair, &[Es256, Hs256]),
        Err(JwtError::Algorithm)
    );
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (_, payload) = signed.split_once('.').unwrap();
    let renamed = format!("{}.{payload}.{signature}", encode(r#"{"alg":"Ed25519"}"#));
    // The key is known, but this isn't the text that was signed.
    assert_eq!(verdict(&renamed, &pair, &[EdDsa]), Err(JwtError::Signature));
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[63] ^= 1;
    let tampered = format!("{signed}.{}", encode(bytes));
    assert_eq!(
        verdict(&tampered, &pair, &[EdDsa]),
        Err(JwtError::Signature)
    );
}
