//! The shapes of a token: tiers, backups, jitter, several services in one; and the effect of each on its session.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::ask::{Ask, event_of};
use crate::support::environment::FixedEnvironment;
use crate::support::npm;
use crate::support::renewd::{APP_CERTIFICATE, Renewd, Settings, configuration};
use crate::support::timed::{CHANNEL, OWNER, START, Timed, token, unix};
use renewd::agora::User;
use renewd::agora::parse::{self, Parsed};
use renewd::agora::service::AgoraService;
use renewd::config;
use renewd::terms::role::Role;
use serde_json::{Value, json};

fn service_with(token: &str, tables: &str) -> Timed {
    let text = configuration(&Settings {
        token: token.to_owned(),
        tables: tables.to_owned(),
        ..Settings::default()
    });
    let path = Path::new("/etc/renewd/config.toml");
    match config::load(&text, path, &FixedEnvironment::default()) {
        Ok(loaded) => Timed::new(loaded.config),
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

fn service(token: &str) -> Timed {
    service_with(token, "")
}

fn viewer(uid: u32) -> Value {
    json!({"channelName": CHANNEL, "uid": uid, "role": "subscriber"})
}

fn host(uid: u32) -> Value {
    json!({"channelName": CHANNEL, "uid": uid, "role": "publisher"})
}

// === Tiers ===

const TIERS: &str = r#"
lifetime = "1h"

[[token.tier]]
claim = "plan"
value = "trial"
lifetime = "5m"
max_session = "10m"

[[token.tier]]
claim = "roles"
value = "staff"
lifetime = "2h"
max_session = "0s"

[[token.tier]]
claim = "level"
value = 3
lifetime = "90m"

[[token.tier]]
claim = "beta"
value = true
lifetime = "30m"
"#;

#[test]
fn a_tier_gives_its_logins_another_lifetime_and_hint() {
    let service = service(TIERS);
    for (index, (claims, lifetime, refresh)) in [
        (json!({}), 3600, 3000),
        (json!({"plan": "pro"}), 3600, 3000),
        (json!({"plan": "trial"}), 300, 150),
        // The first tier that fits applies.
        (json!({"roles": ["staff"], "plan": "trial"}), 300, 150),
        (json!({"roles": ["user", "staff"]}), 7200, 6600),
        (json!({"roles": "staff"}), 7200, 6600),
        (json!({"level": 3}), 5400, 4800),
        (json!({"level": "3"}), 5400, 4800),
        (json!({"level": 30}), 3600, 3000),
        (json!({"beta": true}), 1800, 1200),
        (json!({"beta": false}), 3600, 3000),
        (json!({"beta": {"true": true}}), 3600, 3000),
    ]
    .into_iter()
    .enumerate()
    {
        let subject = format!("viewer{index}");
        let login = service.login(&subject, claims.clone());
        let uid = u32::try_from(index).unwrap() + 1;
        let data = service.granted(&login, &viewer(uid));
        assert_eq!(data["expiresIn"], lifetime, "{claims}");
        assert_eq!(unix(&data["refreshAt"]), START + refresh, "{claims}");
    }
}

#[test]
fn what_a_request_says_of_a_tier_changes_nothing() {
    let service = service(TIERS);
    let mut body = viewer(7);
    body["plan"] = "trial".into();
    body["roles"] = json!(["staff"]);
    let data = service.granted(&service.login("ann", json!({})), &body);
    assert_eq!(data["expiresIn"], 3600);
}

#[test]
fn a_tier_ends_sessions_earlier_or_not_at_all() {
    let service = service_with(TIERS, "[policy]\nmax_session = \"20m\"\n");
    let trial = service.login("trial", json!({"plan": "trial"}));
    let staff = service.login("staff", json!({"roles": ["staff"]}));
    let other = service.login("other", json!({}));
    let lifetime = |login: &str, uid| service.granted(login, &viewer(uid))["expiresIn"].clone();
    assert_eq!(lifetime(&trial, 1), 300);
    assert_eq!(lifetime(&staff, 2), 7200);
    assert_eq!(lifetime(&other, 3), 1200);
    service.at(START + 290);
    assert_eq!(lifetime(&trial, 1), 300);
    service.at(START + 500);
    assert_eq!(lifetime(&trial, 1), 100);
    service.at(START + 560);
    let refused = service.refused(&trial, &viewer(1));
    assert_eq!(refused, (403, "session_too_long".to_owned()));
    // The same holds as soon as the last token has expired, with whichever uid.
    service.at(START + 600);
    for uid in [1, 11] {
        let refused = service.refused(&trial, &viewer(uid));
        assert_eq!(refused, (403, "session_too_long".to_owned()));
    }
    service.at(START + 690);
    assert_eq!(lifetime(&trial, 1), 300);
    service.at(START + 1100);
    assert_eq!(lifetime(&other, 3), 100);
    service.at(START + 1190);
    let refused = service.refused(&other, &viewer(3));
    assert_eq!(refused, (403, "session_too_long".to_owned()));
    assert_eq!(lifetime(&staff, 2), 7200);
}

// === Backups ===

const BACKUP: &str = "lifetime = \"1h\"\nbackup = \"15m\"\n";

#[test]
fn a_backup_is_the_same_token_for_longer() {
    let service = service(BACKUP);
    let data = service.granted(&service.login(OWNER, json!({})), &host(7));
    assert_eq!(data["expiresIn"], 3600);
    assert_eq!(unix(&data["refreshAt"]), START + 3000);
    let members: Vec<_> = data["backup"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["expiresAt", "token"]);
    assert_eq!(unix(&data["backup"]["expiresAt"]), START + 4500);
    let (main, backup) = (token(&data["token"]), token(&data["backup"]["token"]));
    let user = User::Uid(7);
    let rtc = |expire| [AgoraService::rtc(CHANNEL, user, Role::Publisher, expire)];
    assert_eq!(main.token.services, rtc(3600));
    assert_eq!(backup.token.services, rtc(4500));
}

#[test]
fn a_uid_is_its_holders_until_the_backup_expires() {
    let service = service(BACKUP);
    let (ann, bob) = (
        service.login("ann", json!({})),
        service.login("bob", json!({})),
    );
    service.granted(&ann, &viewer(7));
    let taken = (409, "uid_taken".to_owned());
    service.at(START + 3601);
    assert_eq!(service.refused(&bob, &viewer(7)), taken);
    service.at(START + 4499);
    assert_eq!(service.refused(&bob, &viewer(7)), taken);
    service.at(START + 4500);
    service.granted(&bob, &viewer(7));
}

#[test]
fn a_holder_of_a_backup_alone_still_rides_through_an_outage() {
    let service = service(BACKUP);
    let ann = service.login("ann", json!({}));
    service.granted(&ann, &viewer(7));
    service.at(START + 4000);
    service.streams_answer(false);
    let stranger = service.login("bob", json!({}));
    let unavailable = (503, "unavailable".to_owned());
    assert_eq!(service.refused(&stranger, &viewer(8)), unavailable);
    service.granted(&ann, &viewer(7));
}

#[test]
fn a_session_caps_the_backup_too() {
    let service = service_with(BACKUP, "[policy]\nmax_session = \"2h\"\n");
    let ann = service.login("ann", json!({}));
    let backup = |data: &Value| unix(&data["backup"]["expiresAt"]);
    assert_eq!(backup(&service.granted(&ann, &viewer(7))), START + 4500);
    service.at(START + 3000);
    let data = service.granted(&ann, &viewer(7));
    assert_eq!(unix(&data["expiresAt"]), START + 6600);
    assert_eq!(backup(&data), START + 7200);
    service.at(START + 5000);
    let data = service.granted(&ann, &viewer(7));
    assert_eq!(unix(&data["expiresAt"]), START + 7200);
    assert!(data.get("backup").is_none(), "{data}");
}

#[test]
fn a_backup_in_the_old_format_is_one_too() {
    let service = service(&format!("{BACKUP}format = \"006\"\n"));
    let (status, answer) = service.ask(&service.login("ann", json!({})), &viewer(7));
    assert_eq!(status, 200);
    for (text, expires) in [
        (&answer["data"]["token"], START + 3600),
        (&answer["data"]["backup"]["token"], START + 4500),
    ] {
        let Ok(Parsed::V006(token)) = parse::parse(text.as_str().unwrap()) else {
            panic!("{answer}");
        };
        // The format's whole tokens always live a day; what expires is the right to join.
        let privileges: Vec<u64> = token.privileges.values().map(|at| (*at).into()).collect();
        assert_eq!(privileges, [expires]);
    }
}

#[test]
fn the_audit_line_has_both_expiries_and_neither_token() {
    let renewd = Renewd::start(&Settings {
        token: BACKUP.to_owned(),
        ..Settings::default()
    });
    let answer = Ask::viewer("viewer", 77).send(&renewd);
    let data = &answer.json()["data"];
    let event = event_of(&renewd, &answer);
    for (name, timestamp) in [
        ("expires", &data["expiresAt"]),
        ("backup_expires", &data["backup"]["expiresAt"]),
    ] {
        assert_eq!(unix(&event[name]), unix(timestamp), "{event}");
    }
    let backup = data["backup"]["token"].as_str().unwrap();
    assert!(!event.to_string().contains(backup));
}

// === Jitter ===

#[test]
fn jitter_shortens_every_lifetime_and_moves_its_renewal() {
    let service =
        service("lifetime = \"10m\"\nrefresh_before = \"2m\"\njitter = \"5m\"\nbackup = \"1m\"");
    let mut lifetimes: Vec<u64> = (1..=200)
        .map(|uid| {
            let login = service.login(&format!("viewer{uid}"), json!({}));
            let data = service.granted(&login, &viewer(uid));
            let expires = unix(&data["expiresAt"]);
            assert_eq!(unix(&data["refreshAt"]), expires - 120);
            assert_eq!(unix(&data["backup"]["expiresAt"]), expires + 60);
            expires - START
        })
        .collect();
    lifetimes.sort_unstable();
    let (least, most) = (lifetimes[0], lifetimes[199]);
    assert!(least >= 300 && most <= 600, "{least} {most}");
    // These are 200 out of 301 values: a third stays empty by chance once in 10³⁴ runs.
    assert!(least < 400 && most > 500, "{least} {most}");
}

// === Several services in one token ===

const COMBINED: &str = "services = [\"rtc\", \"rtm\", \"chat\"]\nbackup = \"15m\"\n";

/// The report of Agora's own package on these tokens.
fn as_agora_reads(tokens: &[&Value]) -> Vec<Value> {
    let directory = npm::package("agora");
    npm::ensure(&directory);
    let mut child = Command::new("node")
        .arg("verify.js")
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node (install Node.js 20 or later)");
    let entries = tokens
        .iter()
        .map(|token| json!({"token": token, "certificate": APP_CERTIFICATE}));
    let request = entries.collect::<Value>().to_string();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(request.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn agora_reads_one_token_for_three_services() {
    let service = service(COMBINED);
    let data = service.granted(&service.login(OWNER, json!({})), &host(77));
    let read = as_agora_reads(&[&data["token"], &data["backup"]["token"]]);
    for (read, expire) in read.iter().zip([3600, 4500]) {
        assert_eq!(read["parsed"], true, "{read}");
        assert_eq!(read["verified"], true, "{read}");
        assert_eq!(read["expire"], expire, "{read}");
        assert_eq!(
            read["services"],
            json!([
                {
                    "type": 1, "channelName": CHANNEL, "uid": "77",
                    "privileges": {"1": expire, "2": expire, "3": expire, "4": expire},
                },
                {"type": 2, "userId": OWNER, "privileges": {"1": expire}},
                {"type": 5, "userId": OWNER, "privileges": {"1": expire}},
            ])
        );
    }
}

#[test]
fn with_rtm_alone_it_is_what_agoras_builder_makes() {
    let service = service("services = [\"rtc\", \"rtm\"]");
    let body = json!({"channelName": CHANNEL, "account": "ann@home"});
    let data = service.granted(&service.login("ann", json!({})), &body);
    let parsed = token(&data["token"]);
    let user = User::Account("ann@home");
    let built = [
        AgoraService::rtc(CHANNEL, user, Role::Subscriber, 3600),
        AgoraService::rtm("ann", 3600),
    ];
    assert_eq!(parsed.token.services, built);
}

#[test]
fn the_messaging_id_is_the_logins_and_never_the_requests() {
    let service = service(&format!("{COMBINED}messaging_id_claim = \"mid\"\n"));
    let mut body = viewer(7);
    for name in ["mid", "userId", "rtmUserId", "chatUserId", "subject"] {
        body[name] = "somebody-else".into();
    }
    for (claim, id) in [
        (json!("m-7"), "m-7"),
        (json!(1234), "1234"),
        (json!("0"), "0"),
    ] {
        let login = service.login("ann", json!({"mid": claim}));
        let data = service.granted(&login, &body);
        let expected = [
            AgoraService::rtc(CHANNEL, User::Uid(7), Role::Subscriber, 3600),
            AgoraService::rtm(id, 3600),
            AgoraService::chat_user(id, 3600),
        ];
        assert_eq!(token(&data["token"]).token.services, expected);
    }
}

#[test]
fn a_login_without_a_messaging_id_gets_no_token() {
    let denied = (403, "policy_denied".to_owned());
    let by_claim = service(&format!("{COMBINED}messaging_id_claim = \"mid\"\n"));
    for claims in [
        json!({}),
        json!({"mid": null}),
        json!({"mid": ""}),
        json!({"mid": "*"}),
        json!({"mid": "ann*"}),
        json!({"mid": ["ann"]}),
        json!({"mid": {"id": "ann"}}),
        json!({"mid": true}),
        json!({"mid": 1.5}),
        json!({"mid": "ä"}),
        json!({"mid": "m".repeat(65)}),
    ] {
        let login = by_claim.login("ann", claims.clone());
        assert_eq!(by_claim.refused(&login, &viewer(7)), denied, "{claims}");
    }
    let by_subject = service(COMBINED);
    for subject in ["ann*", "ä", &"s".repeat(65)] {
        let login = by_subject.login(subject, json!({}));
        assert_eq!(by_subject.refused(&login, &viewer(7)), denied, "{subject}");
    }
    // Where tokens are for RTC alone, such a login is as good as any.
    let plain = service("");
    plain.granted(&plain.login("ann*", json!({})), &viewer(7));
}
