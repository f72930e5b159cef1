//! A daemon whose logins are signed with private keys: a key set that is slow, rotated, gone, and back.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

// `pairs` looks for the module here.

use std::time::Duration;

use crate::support::app::{self, ASTROLOGER, CHANNEL, VIEWER};
use crate::support::ask::{Ask, Row, counted, reconfigure, token_requests};
use crate::support::conversation::request;
use crate::support::express::Version;
use crate::support::key_pairs::Pair;
use crate::support::moved_clock::MovedClock;
use crate::support::raw::Client;
use crate::support::renewd::{Renewd, STREAMS, Settings, now, private_file, write_files};
use crate::support::scripted::Scripted;
use serde_json::json;

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
    // The answer isn't even a 401, because the caller isn't known.
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
    reconfigure(&renewd, &settings(&keys, "leeway = \"1s\""));
    granted().holds_for(&renewd, &ask(&new, "ES256", "new", 11));
    assert_eq!(keys.asked().len(), 2);
    reconfigure(&renewd, &Settings::default());
    assert!(!renewd.metrics().contains("source=\"jwks\""));
}

#[test]
fn a_login_that_no_key_verifies_pays_like_a_401_and_is_no_failure_of_ours() {
    let keys = Scripted::start();
    let (pair, forger) = (Pair::ec("P-256"), Pair::ec("P-256"));
    publish(&keys, &[("login", &pair)]);
    let renewd = Renewd::start(&Settings {
        tables: "[rate_limit]\naddress = { requests = 1, per = \"1h\", burst = 3 }\n".to_owned(),
        ..settings(&keys, "")
    });
    granted().holds_for(&renewd, &ask(&pair, "ES256", "login", 7));
    let forged = ask(&forger, "ES256", "login", 8);
    // The set is read again, once: then a key of that name may have changed for all that is known.
    Row::new(401, "unauthenticated", "unknown", "client").holds_for(&renewd, &forged);
    let not_now = Row::new(503, "unavailable", "unknown", "client");
    not_now.holds_for(&renewd, &forged);
    not_now.holds_for(&renewd, &forged);
    Row::new(429, "rate_limited", "unknown", "client").holds_for(&renewd, &forged);
    assert_eq!(keys.asked().len(), 2);
    let renewal = ask(&pair, "ES256", "login", 7).refresh();
    granted().refreshing().holds_for(&renewd, &renewal);
}

#[test]
fn a_minute_of_forged_logins_is_the_callers_fault_and_no_failure_of_ours() {
    let keys = Scripted::start();
    let (pair, forger) = (Pair::ec("P-256"), Pair::ec("P-256"));
    publish(&keys, &[("login", &pair)]);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        tables: "[rate_limit]\naddress = \"off\"\nsubject = \"off\"\n".to_owned(),
        ..settings(&keys, "")
    };
    write_files(directory.path(), &settings);
    let clock = MovedClock::new();
    let renewd = Renewd::start_in(directory, &[], |command| clock.is_used_by(command));
    let genuine = ask(&pair, "ES256", "login", 7);
    granted().holds_for(&renewd, &genuine);
    let known = ask(&forger, "ES256", "login", 8);
    let unknown = ask(&forger, "ES256", "other", 9);
    for second in 1..=60 {
        clock.forward(Duration::from_secs(second));
        for forged in [&known, &unknown, &known, &unknown] {
            assert!([401, 503].contains(&forged.send(&renewd).status));
        }
    }
    granted().refreshing().holds_for(&renewd, &genuine);
    let counts = token_requests(&renewd);
    let of_class = |class: &str| {
        let class = format!("class=\"{class}\"");
        let series = counts.iter().filter(|(series, _)| series.contains(&class));
        series.map(|(_, count)| count).sum::<u64>()
    };
    assert_eq!((of_class("client"), of_class("ok")), (240, 2), "{counts:?}");
    assert_eq!(counts.values().sum::<u64>(), 242, "{counts:?}");
    // One read at the start, and no more than one in 30 seconds for whatever names the forged ones have.
    assert!((2..=4).contains(&keys.asked().len()), "{:?}", keys.asked());
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

#[test]
fn for_tokens_in_other_answers_a_login_whose_key_is_not_known_yet_counts_as_none() {
    let app = app::start(Version::Four);
    app.control("/streams", &json!({ "astrologerId": ASTROLOGER }));
    let (keys, old, new) = (Scripted::start(), Pair::ec("P-256"), Pair::ec("P-256"));
    publish(&keys, &[("old", &old)]);
    let streams = format!(
        "{STREAMS}\n[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{ASTROLOGER}\"\nbanned_viewers = [\"{VIEWER}\"]\n"
    );
    let renewd = Renewd::start(&Settings {
        backend: Some(app.address),
        streams: Some(streams),
        tables: "[[reissue.rule]]\npath = \"/api/live/active\"\n\n\
            [[reissue.rule]]\npath = \"/api/live/{id}\"\nrequire_auth = true\n"
            .to_owned(),
        ..settings(&keys, "")
    });
    let login = |subject: &str| {
        let claims = json!({"sub": subject, "exp": now() + 600});
        new.sign("ES256", &claims, "new")
    };
    let (fan, banned) = (login("fan"), login(VIEWER));
    let get = |path: &str, bearer: &str| {
        let bearer = format!("Authorization: Bearer {bearer}\r\n");
        let answer = app::send(renewd.public, &request("GET", path, &bearer, ""));
        assert_eq!(answer.status, 200);
        answer.json()["data"].clone()
    };
    let id = get("/api/live/active", "")[0]["_id"].clone();
    let one = format!("/api/live/{}", id.as_str().unwrap());
    let open = |bearer: &str| get("/api/live/active", bearer)[0]["agoraToken"].is_string();
    let with_login = |bearer: &str| get(&one, bearer)["agoraToken"].is_string();
    granted().holds_for(&renewd, &ask(&old, "ES256", "old", 7));
    publish(&keys, &[("new", &new)]);
    for login in [&fan, &banned] {
        assert!(open(login), "as without a login");
        assert!(!with_login(login), "as without a login");
    }
    assert_eq!(keys.asked().len(), 1, "an answer waits for no key");
    // The app then asks the endpoint that says why, which reads the key.
    let body = json!({"channelName": CHANNEL, "uid": 7, "role": "subscriber"});
    let asked = Ask::new("", &body).bearer(&banned).send(&renewd);
    assert_eq!(asked.json()["code"], "viewer_banned");
    assert!(open(&fan) && with_login(&fan));
    assert!(!open(&banned) && !with_login(&banned));
    assert_eq!(keys.asked().len(), 2);
}
