//! `[auth.jwt]`: whose JWTs are believed.
//!
//! Keeps true: at least one key, each usable under the allow-list; no secret is empty.

use super::{ANY_DURATION, seconds, unavailable};
use crate::config::credentials::{Found, Secrets};
use crate::config::diagnostic::quoted;
use crate::config::model::{Jwt, JwtAlgorithm, JwtKey};
use crate::config::raw::{Item, Table};
use crate::config::secret::Secret;

const ALGORITHMS: [(&str, JwtAlgorithm); 3] = [
    ("HS256", JwtAlgorithm::Hs256),
    ("HS384", JwtAlgorithm::Hs384),
    ("HS512", JwtAlgorithm::Hs512),
];
/// Known to JOSE (RFC 7518 §3.1, RFC 8037 §3.1), not built.
const UNBUILT_ALGORITHMS: [&str; 11] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "Ed25519",
];
/// Below this a secret can be guessed from one token.
const SHORT_SECRET: usize = 16;

pub(super) fn jwt(table: &Table<'_>, secrets: &Secrets<'_>) -> Jwt {
    let algorithms = algorithms(table);
    let keys = keys(table, &algorithms, secrets);
    let subject_claim = table.text("subject_claim", "sub");
    if let Some(item) = table.item("subject_claim")
        && subject_claim.is_empty()
    {
        item.error(
            "no claim is named",
            "write the claim that names the user, such as \"sub\"",
        );
    }
    Jwt {
        algorithms,
        keys,
        issuer: table.text("issuer", ""),
        audience: table.text("audience", ""),
        leeway: table.duration("leeway", ANY_DURATION, seconds(0)),
        require_exp: table.boolean("require_exp", true),
        key_grace: table.duration("key_grace", ANY_DURATION, seconds(600)),
        subject_claim,
    }
}

fn algorithms(table: &Table<'_>) -> Vec<JwtAlgorithm> {
    let Some(item) = table.item("algorithms") else {
        return vec![JwtAlgorithm::Hs256];
    };
    let Some(entries) = item.list() else {
        return Vec::new();
    };
    if entries.is_empty() {
        item.error(
            "nothing would be believed",
            "write [\"HS256\"], or what signs your JWTs",
        );
    }
    let mut algorithms: Vec<JwtAlgorithm> = entries.iter().filter_map(algorithm).collect();
    algorithms.dedup();
    algorithms
}

fn algorithm(item: &Item<'_>) -> Option<JwtAlgorithm> {
    let text = item.text()?;
    if UNBUILT_ALGORITHMS.contains(&text) {
        unavailable(item, text, "write \"HS256\", \"HS384\" or \"HS512\"");
        return None;
    }
    if text.eq_ignore_ascii_case("none") {
        item.error("unsigned JWTs are never believed", "remove it");
        return None;
    }
    item.choice(&ALGORITHMS)
}

fn keys(table: &Table<'_>, allowed: &[JwtAlgorithm], secrets: &Secrets<'_>) -> Vec<JwtKey> {
    let secret = match secrets.read(table, "secret") {
        Found::Secret(secret, item) => {
            warn_if_short(&secret, &item);
            Some(secret)
        }
        Found::Unknown => Some(Secret::new(Vec::new())),
        Found::Absent => None,
    };
    let list = table.item("keys");
    match (secret, list) {
        (Some(_), Some(list)) => {
            list.error(
                "`secret` is given too",
                "keep one of `secret` and `keys`; the list may hold several secrets",
            );
            Vec::new()
        }
        (Some(secret), None) => vec![JwtKey {
            id: String::new(),
            algorithm: None,
            secret,
        }],
        (None, Some(list)) => key_list(&list, allowed, secrets),
        (None, None) => {
            table.missing(
                "secret",
                "secret = \"env:JWT_SECRET\", \"credential:NAME\", secret_file, or keys = [...]",
            );
            Vec::new()
        }
    }
}

fn key_list(list: &Item<'_>, allowed: &[JwtAlgorithm], secrets: &Secrets<'_>) -> Vec<JwtKey> {
    let Some(entries) = list.list() else {
        return Vec::new();
    };
    if entries.is_empty() {
        list.error(
            "no key is listed",
            "keys = [{ id = \"...\", algorithm = \"HS256\", secret = \"env:NAME\" }]",
        );
    }
    let mut keys: Vec<JwtKey> = Vec::new();
    for entry in &entries {
        let Some(table) = entry.as_table() else {
            continue;
        };
        if let Some(key) = key(&table, allowed, secrets) {
            if !key.id.is_empty()
                && keys.iter().any(|earlier| earlier.id == key.id)
                && let Some(item) = table.item("id")
            {
                item.error(
                    format!("a key before this is called {} too", quoted(&key.id)),
                    "give each key an id of its own",
                );
            }
            keys.push(key);
        }
    }
    keys
}

fn key(table: &Table<'_>, allowed: &[JwtAlgorithm], secrets: &Secrets<'_>) -> Option<JwtKey> {
    let id = table.text("id", "");
    let secret = match secrets.read(table, "secret") {
        Found::Secret(secret, item) => {
            warn_if_short(&secret, &item);
            Some(secret)
        }
        Found::Unknown => Some(Secret::new(Vec::new())),
        Found::Absent => {
            table.missing("secret", "secret = \"env:NAME\", or secret_file");
            None
        }
    };
    let Some(item) = table.item("algorithm") else {
        table.missing("algorithm", "algorithm = \"HS256\": each key has its own");
        return None;
    };
    let algorithm = algorithm(&item)?;
    if !allowed.contains(&algorithm) {
        item.error(
            "not in auth.jwt.algorithms, so nothing it signs is believed",
            "add it to auth.jwt.algorithms",
        );
    }
    Some(JwtKey {
        id,
        algorithm: Some(algorithm),
        secret: secret?,
    })
}

fn warn_if_short(secret: &Secret, item: &Item<'_>) {
    if secret.expose().len() < SHORT_SECRET {
        item.warning(
            "the secret is shorter than 16 bytes: it can be guessed from one JWT",
            "sign with at least 32 random bytes",
        );
    }
}
