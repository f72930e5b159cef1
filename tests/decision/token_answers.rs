//! The answer to a granted token request: the JSON that installed clients read, and a token that says the same.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support::ask::{Ask, counted};
use crate::support::renewd::{APP_CERTIFICATE, APP_ID, Renewd, Settings, now};
use renewd::agora::User;
use renewd::agora::parse::{self, Parsed};
use renewd::agora::service::AgoraService;
use renewd::config::secret::Secret;
use renewd::terms::role::Role;
use serde_json::{Value, json};

fn token_settings(token: &str) -> Settings {
    Settings {
        token: token.to_owned(),
        ..Settings::default()
    }
}

/// The `data` of a grant.
fn granted(renewd: &Renewd, ask: &Ask) -> Value {
    let answer = ask.send(renewd);
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 200, "{ask:?} {shown}");
    answer.json()["data"].clone()
}

fn refused(renewd: &Renewd, ask: &Ask) -> String {
    let answer = ask.send(renewd);
    assert_eq!(answer.status, 400, "{ask:?}");
    answer.json()["message"].as_str().unwrap().to_owned()
}

fn unix(timestamp: &Value) -> u64 {
    let text = timestamp.as_str().unwrap();
    // This is how JavaScript's `toISOString` writes whole seconds.
    let whole = text
        .strip_suffix(".000Z")
        .unwrap_or_else(|| panic!("{text}"));
    let time = humantime::parse_rfc3339(&format!("{whole}Z")).unwrap();
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs()
}

fn certificate() -> Secret {
    Secret::new(APP_CERTIFICATE.as_bytes().to_vec())
}

/// Holds the token to what the answer says of it, for this user.
fn is_for(data: &Value, user: User<&str>) {
    let Parsed::V007(parsed) = parse::parse(data["token"].as_str().unwrap()).unwrap() else {
        panic!("an old token: {data}");
    };
    assert!(parsed.verify(&certificate()));
    assert_eq!(parsed.app_id, APP_ID);
    let lifetime = u32::try_from(data["expiresIn"].as_u64().unwrap()).unwrap();
    let role = match data["role"].as_str().unwrap() {
        "publisher" => Role::Publisher,
        _ => Role::Subscriber,
    };
    let channel = data["channelName"].as_str().unwrap();
    assert_eq!(
        parsed.token.services,
        [AgoraService::rtc(channel, user, role, lifetime)]
    );
    assert_eq!(parsed.token.expire, lifetime);
    let expires = u64::from(parsed.token.issued_at) + u64::from(lifetime);
    assert_eq!(unix(&data["expiresAt"]), expires);
}

#[test]
fn a_grant_has_exactly_the_fields_that_clients_read() {
    let renewd = Renewd::start(&token_settings(
        "lifetime = \"40m\"\nrefresh_before = \"7m\"",
    ));
    let before = now();
    let answer = Ask::viewer("viewer", 77).send(&renewd);
    let after = now();
    let json = answer.json();
    assert_eq!(json["success"], true);
    let members: Vec<_> = json.as_object().unwrap().keys().collect();
    assert_eq!(members, ["data", "success"]);
    let data = &json["data"];
    let members: Vec<_> = data.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "appId",
            "channelName",
            "expiresAt",
            "expiresIn",
            "refreshAt",
            "role",
            "token",
            "uid"
        ]
    );
    assert_eq!(data["channelName"], "live_show");
    assert_eq!(data["uid"], 77);
    assert_eq!(data["role"], "subscriber");
    assert_eq!(data["appId"], APP_ID);
    assert_eq!(data["expiresIn"], 2400);
    let expires = unix(&data["expiresAt"]);
    assert!((before + 2400..=after + 2400).contains(&expires));
    assert_eq!(unix(&data["refreshAt"]), expires - 420);

    is_for(data, User::Uid(77));
}

#[test]
fn the_old_format_carries_the_same_answer() {
    let renewd = Renewd::start(&token_settings("format = \"006\""));
    let owner = Ask::new("owner", &json!({"channel": "live_show", "uid": 77}));
    let data = granted(&renewd, &owner);
    let Parsed::V006(token) = parse::parse(data["token"].as_str().unwrap()).unwrap() else {
        panic!("a new token: {data}");
    };
    assert!(token.verify(&certificate(), "live_show", "77"));
    assert!(!token.verify(&certificate(), "live_show", "78"));
    assert_eq!(data["role"], "publisher");
    let series = r#"renewd_tokens_issued_total{endpoint="token",role="publisher",format="006"}"#;
    assert_eq!(counted(&renewd, series), 1);
}

#[test]
fn an_absent_role_is_what_the_stream_makes_of_the_caller() {
    let renewd = Renewd::start(&Settings::default());
    for (subject, uid, role) in [
        ("owner", 1, "publisher"),
        ("cohost", 2, "publisher"),
        ("viewer", 3, "subscriber"),
    ] {
        for role_field in ["", r#","role":null"#] {
            let body = format!(r#"{{"channelName":"live_show","uid":{uid}{role_field}}}"#);
            assert_eq!(
                granted(&renewd, &Ask::text(subject, &body))["role"],
                role,
                "{subject}"
            );
        }
    }
}

#[test]
fn an_absent_role_is_what_is_configured() {
    let renewd = Renewd::start(&token_settings("default_role = \"subscriber\""));
    let body = json!({"channelName": "live_show", "uid": 7});
    assert_eq!(
        granted(&renewd, &Ask::new("owner", &body))["role"],
        "subscriber"
    );
    let renewd = Renewd::start(&token_settings("default_role = \"publisher\""));
    assert_eq!(
        granted(&renewd, &Ask::new("owner", &body))["role"],
        "publisher"
    );
    assert_eq!(Ask::new("viewer", &body).send(&renewd).status, 403);
}

#[test]
fn uid_0_is_refused_unless_allowed_and_then_counted() {
    let zeros = [
        r#"{"channelName":"live_show"}"#,
        r#"{"channelName":"live_show","uid":null}"#,
        r#"{"channelName":"live_show","uid":0}"#,
        r#"{"channelName":"live_show","uid":"000"}"#,
    ];
    let renewd = Renewd::start(&Settings::default());
    for body in zeros {
        let message = refused(&renewd, &Ask::text("viewer", body));
        assert!(message.starts_with("uid: "), "{message}");
    }
    let renewd = Renewd::start(&token_settings("zero_uid = \"allow\""));
    let wildcards = |endpoint: &str| {
        counted(
            &renewd,
            &format!(
                r#"renewd_wildcard_tokens_issued_total{{endpoint="{endpoint}",role="subscriber",format="007"}}"#
            ),
        )
    };
    for body in zeros {
        let data = granted(&renewd, &Ask::text("viewer", body));
        assert_eq!(data["uid"], 0);
        is_for(&data, User::Uid(0));
    }
    assert_eq!((wildcards("token"), wildcards("refresh")), (1, 3));
    // Uid 0 belongs to no subject.
    assert_eq!(granted(&renewd, &Ask::text("another", zeros[0]))["uid"], 0);
}

#[test]
fn a_uid_is_read_as_agora_means_it() {
    let renewd = Renewd::start(&Settings::default());
    for (written, uid) in [
        ("77", 77_u32),
        ("\"77\"", 77),
        ("\"077\"", 77),
        ("77.0", 77),
        ("4294967295", u32::MAX),
        ("-1", u32::MAX),
        ("\"-2147483648\"", 1 << 31),
    ] {
        let body = format!(r#"{{"channelName":"live_show","uid":{written}}}"#);
        let data = granted(&renewd, &Ask::text("viewer", &body));
        assert_eq!(data["uid"], uid, "{written}");
        is_for(&data, User::Uid(uid));
    }
    for written in [
        "4294967296",
        "-2147483649",
        "7.5",
        "\"\"",
        "\"0x7\"",
        "true",
        "[7]",
        "{\"$gt\":0}",
    ] {
        let body = format!(r#"{{"channelName":"live_show","uid":{written}}}"#);
        let message = refused(&renewd, &Ask::text("viewer", &body));
        assert!(message.starts_with("uid: "), "{message}");
    }
}

#[test]
fn an_account_is_answered_in_place_of_a_uid() {
    let renewd = Renewd::start(&Settings::default());
    for (name, account) in [("account", "ann@home"), ("userAccount", "ann.2")] {
        let body = json!({"channelName": "live_show", name: account});
        let data = granted(&renewd, &Ask::new("ann", &body));
        assert_eq!(data["account"], account);
        assert!(data.get("uid").is_none(), "{data}");
        is_for(&data, User::Account(account));
        // The account belongs to its holder, as a uid would.
        assert_eq!(Ask::new("bob", &body).send(&renewd).status, 409);
    }
    for (body, field) in [
        (
            json!({"channel": "live_show", "account": "ann", "uid": 7}),
            "account",
        ),
        (
            json!({"channel": "live_show", "account": "ann", "userAccount": "bob"}),
            "userAccount",
        ),
        (json!({"channel": "live_show", "account": "123"}), "account"),
        (json!({"channel": "live_show", "account": "*"}), "account"),
        (json!({"channel": "live_show", "account": ""}), "account"),
        (
            json!({"channel": "live_show", "account": "a".repeat(256)}),
            "account",
        ),
        (
            json!({"channel": "live_show", "account": {"$ne": null}}),
            "account",
        ),
    ] {
        let message = refused(&renewd, &Ask::new("ann", &body));
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
}

#[test]
fn a_channel_is_never_a_wildcard_nor_an_object() {
    let renewd = Renewd::start(&Settings::default());
    for channel in [
        json!("*"),
        json!("live*"),
        json!(""),
        json!("live/show"),
        json!("live\u{0}show"),
        json!("l\u{ef}ve"),
        json!("a".repeat(65)),
        json!({"$ne": null}),
        json!(["live_show"]),
        json!(7),
        json!(null),
    ] {
        for name in ["channelName", "channel", "channelId"] {
            let body = json!({name: channel, "uid": 7});
            let message = refused(&renewd, &Ask::new("viewer", &body));
            assert!(message.starts_with("channel"), "{message}");
        }
    }
}

#[test]
fn every_alias_and_every_name_of_a_role_is_understood() {
    let renewd = Renewd::start(&Settings {
        tables: "[rate_limit]\nsubject = \"off\"\n".to_owned(),
        ..Settings::default()
    });
    for channel in ["channelName", "channel", "channelId"] {
        for (field, value, role) in [
            ("role", json!("publisher"), "publisher"),
            ("role", json!("broadcaster"), "publisher"),
            ("role", json!("host"), "publisher"),
            ("role", json!("1"), "publisher"),
            ("role", json!(1), "publisher"),
            ("role", json!("subscriber"), "subscriber"),
            ("role", json!("audience"), "subscriber"),
            ("role", json!("viewer"), "subscriber"),
            ("role", json!("2"), "subscriber"),
            ("role", json!(2), "subscriber"),
            ("isBroadcaster", json!(true), "publisher"),
            ("isBroadcaster", json!(false), "subscriber"),
            ("isPublisher", json!(true), "publisher"),
            ("isPublisher", json!(false), "subscriber"),
        ] {
            let body = json!({channel: "live_show", "uid": 7, field: value});
            assert_eq!(
                granted(&renewd, &Ask::new("owner", &body))["role"],
                role,
                "{body}"
            );
        }
    }
    for (body, field) in [
        (
            json!({"channelName": "live_show", "channel": "other", "uid": 7}),
            "channel",
        ),
        (
            json!({"channel": "live_show", "uid": 7, "role": "host", "isBroadcaster": false}),
            "isBroadcaster",
        ),
        (
            json!({"channel": "live_show", "uid": 7, "isBroadcaster": true, "isPublisher": false}),
            "isPublisher",
        ),
        (
            json!({"channel": "live_show", "uid": 7, "role": "admin"}),
            "role",
        ),
        (
            json!({"channel": "live_show", "uid": 7, "role": ["host"]}),
            "role",
        ),
        (
            json!({"channel": "live_show", "uid": 7, "isPublisher": 1}),
            "isPublisher",
        ),
    ] {
        let message = refused(&renewd, &Ask::new("owner", &body));
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
}
