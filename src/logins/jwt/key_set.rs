//! A JSON Web Key Set (RFC 7517), read. Pure.
//!
//! Keeps true: only public keys for signatures come out, never `oct` keys: the operator of the URL would share a
//! secret with renewd. A key that can't be used is left out, not the set.
//! Must not know: where a set comes from.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::config::model::{JwtAlgorithm, JwtKey, KeyMaterial};
use crate::pki::public_key::{KeyKind, PublicKey};

/// The most keys read of one set: a token without `kid` is tried with each.
const MOST_KEYS: usize = 64;

/// Why an answer isn't a usable set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSet {
    /// Not `{"keys": [...]}`.
    #[error("the answer is no key set")]
    Malformed,
    /// A set without usable keys is taken for a mistake: it would log every user out.
    #[error("the key set has no key that can be used")]
    Empty,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// A member of a set (RFC 7517 §4, RFC 7518 §6). `x5c`, `x5u` and the like aren't read, since the key itself is
/// there.
#[derive(Deserialize)]
struct JsonWebKey {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

/// The usable keys of a set, in its order.
pub(super) fn parse(body: &[u8]) -> Result<Vec<JwtKey>, BadSet> {
    let set: Set = serde_json::from_slice(body).map_err(|_| BadSet::Malformed)?;
    let keys: Vec<JwtKey> = set
        .keys
        .into_iter()
        .filter_map(key)
        .take(MOST_KEYS)
        .collect();
    if keys.is_empty() {
        return Err(BadSet::Empty);
    }
    Ok(keys)
}

fn key(entry: Value) -> Option<JwtKey> {
    let entry: JsonWebKey = serde_json::from_value(entry).ok()?;
    let for_signatures = entry.usage.as_deref().is_none_or(|usage| usage == "sig");
    let operations = entry.key_ops.as_deref();
    let verifies = operations.is_none_or(|listed| listed.iter().any(|one| one == "verify"));
    if !for_signatures || !verifies {
        return None;
    }
    let material = KeyMaterial::Public(public_key(&entry)?);
    let algorithm = match entry.alg.as_deref() {
        None => None,
        Some(name) => Some(JwtAlgorithm::of_name(name).filter(|own| material.takes(*own))?),
    };
    Some(JwtKey {
        id: entry.kid,
        algorithm,
        material,
    })
}

fn public_key(entry: &JsonWebKey) -> Option<PublicKey> {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let key = match (&*entry.kty, &*entry.crv) {
        ("RSA", _) => PublicKey::rsa(&bytes(&entry.n)?, &bytes(&entry.e)?),
        ("EC", curve) => {
            let kind = match curve {
                "P-256" => KeyKind::P256,
                "P-384" => KeyKind::P384,
                "P-521" => KeyKind::P521,
                _ => return None,
            };
            PublicKey::point(kind, &bytes(&entry.x)?, &bytes(&entry.y)?)
        }
        ("OKP", "Ed25519") => PublicKey::ed25519(&bytes(&entry.x)?),
        _ => return None,
    };
    key.ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // RFC 7517 appendix A.1, RFC 8037 appendix A.2.
    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
    const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    fn ids(keys: &Value) -> Vec<String> {
        let body = json!({ "keys": keys }).to_string();
        let keys = parse(body.as_bytes()).unwrap_or_default();
        keys.into_iter().map(|key| key.id).collect()
    }

    #[test]
    fn keys_of_every_kind_are_read() {
        let keys = json!([
            {"kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": "sig", "kid": "ec"},
            {"kty": "RSA", "n": N, "e": "AQAB", "alg": "RS256", "kid": "rsa"},
            {"kty": "OKP", "crv": "Ed25519", "x": ED25519, "key_ops": ["verify"]},
        ]);
        assert_eq!(ids(&keys), ["ec", "rsa", ""]);
        let body = json!({"keys": keys}).to_string();
        let bound: Vec<_> = parse(body.as_bytes())
            .unwrap()
            .iter()
            .map(|key| key.algorithm)
            .collect();
        assert_eq!(bound, [None, Some(JwtAlgorithm::Rs256), None]);
    }

    #[test]
    fn what_is_not_for_verifying_is_left_out() {
        let ec = |more: &Value| {
            let mut key = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y});
            let members = key.as_object_mut().unwrap();
            members.extend(more.as_object().unwrap().clone());
            ids(&json!([key])).len()
        };
        assert_eq!(ec(&json!({})), 1);
        for more in [
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"use": "enc"}),
            json!({"key_ops": ["sign"]}),
            json!({"key_ops": []}),
            json!({"alg": "ES384"}),
            json!({"alg": "HS256"}),
            json!({"alg": "RSA-OAEP"}),
            json!({"crv": "secp256k1"}),
            json!({"kty": "RSA"}),
            json!({"x": "AAAA"}),
            json!({"y": X}),
            json!({"kid": 7}),
        ] {
            assert_eq!(ec(&more), 0, "{more}");
        }
        assert!(ids(&json!([{"kty": "RSA", "n": &N[..100], "e": "AQAB"}])).is_empty());
    }

    #[test]
    fn a_bad_key_spoils_no_other() {
        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519, "kid": "good"});
        assert_eq!(ids(&json!([7, null, {"kty": []}, good])), ["good"]);
    }

    #[test]
    fn a_set_without_usable_keys_is_no_set_and_a_large_one_is_cut() {
        assert_eq!(parse(b"{\"keys\":[]}"), Err(BadSet::Empty));
        for body in ["", "[]", "{}", "{\"keys\":{}}", "<html>"] {
            assert_eq!(parse(body.as_bytes()), Err(BadSet::Malformed), "{body}");
        }
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519});
        let many = Value::Array(vec![key; 100]);
        assert_eq!(ids(&many).len(), MOST_KEYS);
    }
}
