//! The token endpoints' table, row by row: status, code, headers, one count, one audit event.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support;

use crate::support::ask::{Ask, Row, change_streams, counted, each_was_audited_once, event_of};
use crate::support::renewd::{APP_ID, Renewd, STREAMS, Settings, jwt, login, now};
use serde_json::json;

fn limited(scope: &str, quota: &str) -> Renewd {
    Renewd::start(&Settings {
        tables: format!("[rate_limit]\n{scope} = {quota}\n"),
        ..Settings::default()
    })
}

fn with_policy(policy: &str) -> Renewd {
    Renewd::start(&Settings {
        tables: format!("[policy]\n{policy}\n"),
        ..Settings::default()
    })
}

fn message(answer: &support::raw::Response) -> String {
    answer.json()["message"].as_str().unwrap().to_owned()
}

#[test]
fn row_1_an_address_in_debt_is_told_to_wait() {
    let renewd = limited("address", r#"{ requests = 1, per = "1h", burst = 1 }"#);
    let stranger = Ask::viewer("viewer", 7).bearer("no.such.token");
    Row::new(401, "unauthenticated", "unknown", "client").holds_for(&renewd, &stranger);
    let row = Row::new(429, "rate_limited", "unknown", "client");
    let (answer, event) = row.holds_for(&renewd, &stranger);
    assert_eq!(answer.header("ratelimit-limit"), Some("1"));
    assert_eq!(answer.header("ratelimit-remaining"), Some("0"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert!(event["subject"].is_null(), "{event}");
    assert_eq!(
        counted(&renewd, r#"renewd_rate_limited_total{scope="address"}"#),
        1
    );
    // The last request is refused too.
    each_was_audited_once(&renewd, 2);
}

#[test]
fn row_2_a_caller_who_is_not_signed_in_is_401() {
    let renewd = Renewd::start(&Settings::default());
    let unauthenticated = Row::new(401, "unauthenticated", "unknown", "client");
    let viewer = Ask::viewer("viewer", 7);
    let nobody = Ask {
        authorization: String::new(),
        ..viewer.clone()
    };
    let (answer, event) = unauthenticated.holds_for(&renewd, &nobody);
    assert_eq!(message(&answer), "Authentication required");
    for absent in ["subject", "channel", "uid", "account", "expires"] {
        assert!(event[absent].is_null(), "{event}");
    }
    let signed_by_nobody = format!("{}x", login("viewer"));
    let subjectless = jwt(&json!({"exp": now() + 60}));
    for token in ["rubbish", &signed_by_nobody, &subjectless] {
        unauthenticated.holds_for(&renewd, &viewer.clone().bearer(token));
    }
    let expired = jwt(&json!({"sub": "viewer", "exp": now() - 1}));
    Row::new(401, "token_expired", "unknown", "client")
        .holds_for(&renewd, &viewer.clone().bearer(&expired));
    // The installed clients may leave the scheme out.
    let bare = Ask {
        authorization: login("viewer"),
        ..viewer
    };
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &bare);
    each_was_audited_once(&renewd, 6);
}

#[test]
fn row_2_says_to_operators_why_a_login_was_refused() {
    let settings = |jwt: &str, decision: &str| Settings {
        jwt: jwt.to_owned(),
        tables: format!("[decision]\n{decision}\n"),
        ..Settings::default()
    };
    let in_an_hour = now() + 3600;
    let strict = "audience = \"app\"\nissuer = \"backend\"";
    let claims = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims =
            json!({"sub": "viewer", "exp": in_an_hour, "aud": "app", "iss": "backend"});
        change(&mut claims);
        jwt(&claims)
    };
    let unsigned = format!("{}x", claims(&|_| ()));
    let (_, rest) = unsigned.split_once('.').unwrap();
    // {"alg":"HS512"}, which `algorithms` doesn't list.
    let other_algorithm = format!("eyJhbGciOiJIUzUxMiJ9.{rest}");
    let cases = [
        ("missing", String::new()),
        ("malformed", "rubbish".to_owned()),
        ("malformed", claims(&|claims| claims["exp"] = json!("soon"))),
        ("signature", unsigned.clone()),
        ("algorithm", other_algorithm),
        (
            "not_yet_valid",
            claims(&|claims| claims["nbf"] = json!(in_an_hour)),
        ),
        ("audience", claims(&|claims| claims["aud"] = json!("other"))),
        ("issuer", claims(&|claims| claims["iss"] = json!("other"))),
        ("subject", claims(&|claims| claims["sub"] = json!(""))),
    ];
    for decision in ["mode = \"enforce\"", "mode = \"observe\""] {
        let renewd = Renewd::start(&settings(strict, decision));
        for (reason, token) in &cases {
            let series = format!("renewd_unauthenticated_total{{reason=\"{reason}\"}}");
            let before = counted(&renewd, &series);
            let ask = Ask {
                authorization: match token.as_str() {
                    "" => String::new(),
                    token => format!("Bearer {token}"),
                },
                ..Ask::viewer("viewer", 7)
            };
            let answer = ask.send(&renewd);
            assert_eq!(counted(&renewd, &series), before + 1, "{reason} {decision}");
            let event = event_of(&renewd, &answer);
            assert_eq!(event["reason"], *reason, "{event}");
        }
        // An expired login says so by its outcome.
        let expired = claims(&|claims| claims["exp"] = json!(now() - 1));
        Ask::viewer("viewer", 7).bearer(&expired).send(&renewd);
        let page = renewd.metrics();
        let counts = page.lines().filter_map(|line| {
            let series = line.strip_prefix("renewd_unauthenticated_total")?;
            series.rsplit_once(' ')?.1.parse::<usize>().ok()
        });
        assert_eq!(counts.sum::<usize>(), cases.len(), "{page}");
    }
}

#[test]
fn row_3_a_body_that_is_none_is_400_413_or_415() {
    let renewd = Renewd::start(&Settings::default());
    let viewer = Ask::viewer("viewer", 7);
    let body = |body: &str| Ask {
        body: body.to_owned(),
        ..viewer.clone()
    };
    let (answer, event) = Row::new(400, "invalid_request", "unknown", "client")
        .holds_for(&renewd, &body(r#"{"channelName":"live_show","uid":"x"}"#));
    assert!(message(&answer).starts_with("uid: "));
    assert_eq!(event["subject"], "viewer");
    assert!(event["channel"].is_null(), "{event}");
    Row::new(413, "body_too_large", "unknown", "client")
        .holds_for(&renewd, &body(&" ".repeat(16 * 1024 + 1)));
    let typed = Ask {
        media_type: "text/plain".to_owned(),
        ..viewer
    };
    Row::new(415, "unsupported_media_type", "unknown", "client").holds_for(&renewd, &typed);
    each_was_audited_once(&renewd, 3);
}

#[test]
fn row_4_a_subject_who_asks_too_often_waits() {
    let renewd = limited("subject", r#"{ requests = 1, per = "1h", burst = 2 }"#);
    for _ in 0..2 {
        assert_eq!(Ask::viewer("viewer", 7).send(&renewd).status, 200);
    }
    let row = Row::new(429, "rate_limited", "subscriber", "client").refreshing();
    let (answer, event) = row.holds_for(&renewd, &Ask::viewer("viewer", 7));
    assert_eq!(answer.header("ratelimit-limit"), Some("2"));
    assert_eq!(event["subject"], "viewer");
    assert_eq!(event["channel"], "live_show");
    assert_eq!(event["uid"], 7);
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &Ask::viewer("another", 8));
    assert_eq!(
        counted(&renewd, r#"renewd_rate_limited_total{scope="subject"}"#),
        1
    );
}

#[test]
fn row_4_a_channel_that_is_asked_for_too_often_is_ours_to_mend() {
    for scope in ["channel", "global"] {
        let renewd = limited(scope, r#"{ requests = 1, per = "1h", burst = 1 }"#);
        assert_eq!(Ask::viewer("first", 1).send(&renewd).status, 200);
        Row::new(429, "rate_limited", "subscriber", "failed")
            .holds_for(&renewd, &Ask::viewer("second", 2));
        let series = format!(r#"renewd_rate_limited_total{{scope="{scope}"}}"#);
        assert_eq!(counted(&renewd, &series), 1);
        Row::new(200, "ok", "subscriber", "ok")
            .refreshing()
            .holds_for(&renewd, &Ask::viewer("first", 1));
        each_was_audited_once(&renewd, 3);
    }
}

#[test]
fn row_7_a_stream_that_is_not_live_is_404() {
    let streams = format!(
        "{STREAMS}\n[[stream]]\nchannel = \"over\"\nowner = \"owner\"\nlive = false\n\n\
         [[stream]]\nchannel = \"taken_down\"\nowner = \"owner\"\nlive = true\nbanned = true\n"
    );
    let renewd = Renewd::start(&Settings {
        streams: Some(streams),
        ..Settings::default()
    });
    for channel in ["nowhere", "over", "taken_down"] {
        let ask = Ask::new(
            "owner",
            &json!({"channel": channel, "uid": 1, "role": "host"}),
        );
        let row = Row::new(404, "stream_not_live", "publisher", "denied");
        let (answer, event) = row.holds_for(&renewd, &ask);
        assert_eq!(message(&answer), "Stream no longer active");
        assert_eq!(event["channel"], channel);
    }
    let nobody_said = Ask::new("owner", &json!({"channel": "over", "uid": 1}));
    Row::new(404, "stream_not_live", "unknown", "denied").holds_for(&renewd, &nobody_said);
}

#[test]
fn row_8_a_viewer_banned_from_the_stream_is_403_without_a_word_of_suspension() {
    let renewd = Renewd::start(&Settings::default());
    let row = Row::new(403, "viewer_banned", "subscriber", "denied");
    let (answer, event) = row.holds_for(&renewd, &Ask::viewer("troll", 7));
    assert!(!message(&answer).to_lowercase().contains("suspend"));
    assert_eq!(event["subject"], "troll");
}

#[test]
fn row_9_a_subject_that_neither_owns_the_stream_nor_co_hosts_it_does_not_publish() {
    let renewd = Renewd::start(&Settings::default());
    let publish = json!({"channelName": "live_show", "uid": 7, "role": "publisher"});
    let row = Row::new(403, "not_owner", "publisher", "denied");
    let (answer, _) = row.holds_for(&renewd, &Ask::new("viewer", &publish));
    assert_eq!(message(&answer), "Not authorized to broadcast this stream");
    for subject in ["owner", "cohost"] {
        Row::new(200, "ok", "publisher", "ok").holds_for(&renewd, &Ask::new(subject, &publish));
    }
}

#[test]
fn row_10_a_uid_belongs_to_its_subscriber_until_a_publisher_takes_it() {
    let renewd = Renewd::start(&Settings::default());
    let granted = Row::new(200, "ok", "subscriber", "ok");
    let taken = Row::new(409, "uid_taken", "subscriber", "denied");
    granted.holds_for(&renewd, &Ask::viewer("ann", 7));
    taken.holds_for(&renewd, &Ask::viewer("bob", 7));
    // The same person on another device, and again on the first.
    granted
        .refreshing()
        .holds_for(&renewd, &Ask::viewer("ann", 8));
    granted
        .refreshing()
        .holds_for(&renewd, &Ask::viewer("ann", 7));
    let owner = Ask::new("owner", &json!({"channelName": "live_show", "uid": 7}));
    Row::new(200, "ok", "publisher", "ok").holds_for(&renewd, &owner);
    // The subject is still a holder, under the other uid.
    taken
        .refreshing()
        .holds_for(&renewd, &Ask::viewer("ann", 7));
    granted
        .refreshing()
        .holds_for(&renewd, &Ask::viewer("ann", 8));
}

#[test]
fn row_10_is_off_where_uids_are_not_bound() {
    let renewd = with_policy("bind_uid = false");
    for subject in ["ann", "bob"] {
        Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &Ask::viewer(subject, 7));
    }
}

#[test]
fn row_11_a_login_that_never_expires_is_refused_unless_allowed() {
    let endless = jwt(&json!({"sub": "viewer"}));
    let ask = Ask::viewer("viewer", 7).bearer(&endless);
    let renewd = Renewd::start(&Settings::default());
    Row::new(403, "policy_denied", "subscriber", "denied").holds_for(&renewd, &ask);
    let renewd = Renewd::start(&Settings {
        jwt: "require_exp = false".to_owned(),
        ..Settings::default()
    });
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &ask);
}

#[test]
fn row_11_a_publisher_is_live_in_only_so_many_channels() {
    let both = |first_is_live: bool| {
        format!(
            "[[stream]]\nchannel = \"first\"\nowner = \"owner\"\nlive = {first_is_live}\n\n\
             [[stream]]\nchannel = \"second\"\nowner = \"owner\"\nlive = true\n"
        )
    };
    let renewd = Renewd::start(&Settings {
        streams: Some(both(true)),
        tables: "[policy]\nmax_streams_per_publisher = 1\n".to_owned(),
        ..Settings::default()
    });
    let ask = |channel: &str, role: &str| {
        Ask::new(
            "owner",
            &json!({"channelName": channel, "uid": 7, "role": role}),
        )
    };
    let granted = Row::new(200, "ok", "publisher", "ok");
    granted.holds_for(&renewd, &ask("first", "host"));
    Row::new(403, "too_many_streams", "publisher", "denied")
        .holds_for(&renewd, &ask("second", "host"));
    // A viewer's token doesn't count as a stream.
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &ask("second", "viewer"));
    granted
        .refreshing()
        .holds_for(&renewd, &ask("first", "host"));
    // A publisher that ends one stream may begin the next, though the first one's token lives on.
    change_streams(&renewd, &both(false));
    granted.holds_for(&renewd, &ask("second", "host"));
}

#[test]
fn row_11_a_session_ends_after_its_full_length() {
    let renewd = with_policy("max_session = \"90s\"");
    let row = Row::new(200, "ok", "subscriber", "ok");
    let (answer, _) = row.holds_for(&renewd, &Ask::viewer("viewer", 7));
    let lifetime = answer.json()["data"]["expiresIn"].as_u64().unwrap();
    assert_eq!(lifetime, 90);
    // When less than a minute is left, no useful token fits.
    let renewd = with_policy("max_session = \"1m\"");
    let viewer = Ask::viewer("viewer", 7);
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &viewer);
    let granted = now();
    renewd.eventually("the session is more than a second old", |_| {
        now() > granted + 1
    });
    Row::new(403, "session_too_long", "subscriber", "denied")
        .refreshing()
        .holds_for(&renewd, &viewer);
}

#[test]
fn no_answer_of_a_source_is_503() {
    let renewd = Renewd::start(&Settings::default());
    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    renewd.eventually("the source is down", |renewd| {
        counted(renewd, r#"renewd_source_up{source="streams"}"#) == 0
    });
    Row::new(503, "unavailable", "subscriber", "failed")
        .holds_for(&renewd, &Ask::viewer("viewer", 7));
    each_was_audited_once(&renewd, 1);
}

#[test]
fn a_grant_is_audited_with_all_that_was_granted_and_nothing_that_opens_a_door() {
    let renewd = Renewd::start(&Settings::default());
    let row = Row::new(200, "ok", "publisher", "ok").refreshing();
    let ask = Ask::new(
        "owner",
        &json!({"channelName": "live_show", "account": "o.w"}),
    )
    .refresh();
    let (answer, event) = row.holds_for(&renewd, &ask);
    let data = &answer.json()["data"];
    assert_eq!(event["subject"], "owner");
    assert_eq!(event["channel"], "live_show");
    assert_eq!(event["account"], "o.w");
    assert!(event["uid"].is_null(), "{event}");
    let expires = event["expires"].as_str().unwrap().replace('Z', ".000Z");
    assert_eq!(data["expiresAt"], expires.as_str());
    let mut fields: Vec<_> = event.as_object().unwrap().keys().cloned().collect();
    fields.retain(|field| !matches!(field.as_str(), "time" | "level" | "target" | "msg"));
    assert_eq!(
        fields,
        [
            "account",
            "channel",
            "client",
            "endpoint",
            "enforced",
            "event",
            "expires",
            "outcome",
            "request_id",
            "role",
            "subject"
        ]
    );
    assert_eq!(data["appId"], APP_ID);
}

#[test]
fn an_audit_file_says_what_the_log_would() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    let renewd = Renewd::start(&Settings {
        log: format!("audit = \"file:{}\"", file.display()),
        ..Settings::default()
    });
    let answer = Ask::viewer("viewer", 7).send(&renewd);
    let refused = Ask::viewer("troll", 7).send(&renewd);
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    renewd.eventually("two audit events", |_| read().lines().count() >= 2);
    let events: Vec<serde_json::Value> = read()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let summary = |event: &serde_json::Value| {
        ["request_id", "client", "subject", "outcome", "role"]
            .map(|name| event[name].as_str().unwrap_or_default().to_owned())
    };
    let id = |answer: &support::raw::Response| answer.header("x-request-id").unwrap().to_owned();
    assert_eq!(events.len(), 2);
    let expected = |answer, rest: [&str; 4]| {
        let [client, subject, outcome, role] = rest.map(str::to_owned);
        [id(answer), client, subject, outcome, role]
    };
    assert_eq!(
        summary(&events[0]),
        expected(&answer, ["127.0.0.1", "viewer", "ok", "subscriber"])
    );
    assert_eq!(
        summary(&events[1]),
        expected(
            &refused,
            ["127.0.0.1", "troll", "viewer_banned", "subscriber"]
        )
    );
}
