//! A daemon whose logins are signed with private keys: a key set that is slow, rotated, gone, and back.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

mod support;

// Where `pairs` looks for it.
use support::npm;

#[path = "jwt/pairs.rs"]
mod pairs;

use pairs::Pair;
use serde_json::json;
use support::ask::{Ask, Row, counted, reconfigure};
use support::raw::Client;
use support::renewd::{Renewd, Settings, now, private_file, write_files};
use support::scripted::Scripted;

fn settings(keys: &Scripted, more: &str) -> Settings {
    let jwt = format!(
        "algorithms = [\"HS256\", \"RS256\", \"ES256\"]\njwks_url = \"{}\"\n{more}",
        keys.url("/keys")
    );
    Settings {
        jwt,
        ..Settings::default()
    }
}

fn publish(keys: &Scripted, pairs: &[(&str, &Pair)]) {
    let set: Vec<_> = pairs
        .iter()
        .map(|(id, pair)| {
            let mut jwk = pair.jwk();
            jwk["kid"] = (*id).into();
            jwk
        })
        .collect();
    keys.answer(200, &json!({ "keys": set }).to_string());
}

fn ask(pair: &Pair, algorithm: &str, id: &str, uid: u32) -> Ask {
    let claims = json!({"sub": format!("user-{uid}"), "exp": now() + 600});
    Ask::viewer("", uid).bearer(&pair.sign(algorithm, &claims, id))
}

fn granted() -> Row {
    Row::new(200, "ok", "subscriber", "ok")
}

fn up(renewd: &Renewd) -> u64 {
    counted(renewd, r#"renewd_source_up{source="jwks"}"#)
}

#[test]
fn a_silent_key_set_delays_no_port_and_no_other_login() {
    let keys = Scripted::start();
    let pair = Pair::rsa();
    let renewd = Renewd::start(&settings(&keys, ""));
    granted().holds_for(&renewd, &Ask::viewer("ada", 7));
    // Not even a 401: it isn't known who this is.
    let unknown = Row::new(503, "unavailable", "unknown", "failed");
    unknown.holds_for(&renewd, &ask(&pair, "RS256", "one", 8));
    renewd.eventually("the set is down", |renewd| up(renewd) == 0);
    let ready = Client::new(renewd.admin)
        .send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    assert_eq!(ready.status, 200);
    assert!(String::from_utf8(ready.body).unwrap().contains("jwks"));
    publish(&keys, &[("one", &pair)]);
    renewd.eventually("the set is read", |renewd| up(renewd) == 1);
    granted().holds_for(&renewd, &ask(&pair, "RS256", "one", 8));
}

#[test]
fn a_new_key_is_believed_at_once_and_reloads_read_nothing_again() {
    let keys = Scripted::start();
    let (old, new) = (Pair::rsa(), Pair::ec("P-256"));
    publish(&keys, &[("old", &old)]);
    let renewd = Renewd::start(&settings(&keys, ""));
    granted().holds_for(&renewd, &ask(&old, "RS256", "old", 7));
    publish(&keys, &[("new", &new)]);
    granted().holds_for(&renewd, &ask(&new, "ES256", "new", 8));
    granted().holds_for(&renewd, &ask(&old, "RS256", "old", 9));
    let refused = Row::new(401, "unauthenticated", "unknown", "client");
    // Known by name, and signed by somebody else.
    refused.holds_for(&renewd, &ask(&Pair::ec("P-256"), "ES256", "new", 10));
    assert_eq!(keys.asked().len(), 2);
    reconfigure(&renewd, &settings(&keys, "leeway = \"1s\""));
    granted().holds_for(&renewd, &ask(&new, "ES256", "new", 11));
    assert_eq!(keys.asked().len(), 2);
    reconfigure(&renewd, &Settings::default());
    assert!(!renewd.metrics().contains("source=\"jwks\""));
}

#[test]
fn a_public_key_file_verifies_and_is_watched() {
    let (first, second) = (Pair::ed25519(), Pair::ed25519());
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("login.pem");
    std::fs::write(&key, &first.public).unwrap();
    let settings = Settings::default();
    write_files(directory.path(), &settings);
    let config = directory.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let secret = text
        .lines()
        .find(|line| line.starts_with("secret"))
        .unwrap();
    let public = "algorithms = [\"EdDSA\"]\npublic_key_file = \"login.pem\"\nkey_grace = \"0s\"";
    private_file(&config, &text.replace(secret, public));
    let renewd = Renewd::start_in(directory, &[], |_| {});
    let refused = Row::new(401, "unauthenticated", "unknown", "client");
    granted().holds_for(&renewd, &ask(&first, "EdDSA", "", 7));
    refused.holds_for(&renewd, &ask(&second, "EdDSA", "", 7));
    refused.holds_for(&renewd, &Ask::viewer("ada", 7));
    std::fs::write(&key, &second.public).unwrap();
    renewd.eventually("the new key is read", |renewd| {
        ask(&second, "EdDSA", "", 9).send(renewd).status == 200
    });
    refused.holds_for(&renewd, &ask(&first, "EdDSA", "", 7));
}
