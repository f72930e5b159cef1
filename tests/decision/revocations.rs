//! Revocations over the wire: the requests that are refused from the next one on, and the answers that an operator
//! gets.

use std::thread;

use serde_json::{Value, json};

use crate::support::commands::command;
use crate::support::express::{Express, Version};
use crate::support::raw::Response;
use crate::support::renewd::{Renewd, Settings, login, private_file};
use crate::support::scripted::Scripted;

/// Two live streams of the same owner.
const STREAMS: &str = r#"
[[stream]]
channel = "live_show"
owner = "owner"
live = true
cohosts = ["cohost"]

[[stream]]
channel = "live_other"
owner = "owner"
live = true
"#;

fn start() -> Renewd {
    Renewd::start(&Settings {
        streams: Some(STREAMS.to_owned()),
        token: "zero_uid = \"allow\"".to_owned(),
        ..Settings::default()
    })
}

fn ask_on(path: &str, renewd: &Renewd, subject: &str, channel: &str, uid: u32) -> (u16, Value) {
    let body = json!({"channelName": channel, "uid": uid}).to_string();
    let answer = renewd.post(path, &login(subject), &body);
    (answer.status, answer.json()["code"].clone())
}

/// Status and code of a request for a token.
fn ask(renewd: &Renewd, subject: &str, channel: &str, uid: u32) -> (u16, Value) {
    ask_on("/api/live/token", renewd, subject, channel, uid)
}

fn granted() -> (u16, Value) {
    (200, Value::Null)
}

fn revoked() -> (u16, Value) {
    (403, json!("revoked"))
}

fn post(renewd: &Renewd, body: &Value) -> Response {
    renewd.ask_admin("POST", "/v1/revocations", &body.to_string())
}

/// Revokes and gives the answer.
fn revoke(renewd: &Renewd, body: &Value) -> Value {
    let answer = post(renewd, body);
    let told = answer.json();
    assert_eq!(answer.status, 201, "{told}");
    assert_eq!(told["success"], true);
    told
}

fn lift(renewd: &Renewd, told: &Value) -> Response {
    let id = told["id"].as_str().expect("an id");
    renewd.ask_admin("DELETE", &format!("/v1/revocations/{id}"), "")
}

fn list(renewd: &Renewd, query: &str) -> Value {
    let answer = renewd.ask_admin("GET", &format!("/v1/revocations{query}"), "");
    assert_eq!(answer.status, 200, "{query}");
    answer.json()
}

#[test]
fn a_revoked_subject_is_refused_at_the_next_request_until_the_revocation_is_lifted() {
    let renewd = start();
    assert_eq!(ask(&renewd, "viewer", "live_show", 7), granted());
    let told = revoke(
        &renewd,
        &json!({"subject": "viewer", "for": "1h", "reason": "spam"}),
    );
    assert_eq!(told["durable"], true);
    for path in ["/api/live/token", "/api/live/refresh-token"] {
        for channel in ["live_show", "live_other"] {
            let answered = ask_on(path, &renewd, "viewer", channel, 7);
            assert_eq!(answered, revoked(), "{path} {channel}");
        }
    }
    assert_eq!(ask(&renewd, "other", "live_show", 8), granted());
    assert_eq!(renewd.whole("renewd_revocations"), 1);
    assert_eq!(renewd.status()["revocations"], 1);
    let lifted = lift(&renewd, &told);
    assert_eq!((lifted.status, &lifted.json()["id"]), (200, &told["id"]));
    assert_eq!(ask(&renewd, "viewer", "live_show", 7), granted());
    assert_eq!(lift(&renewd, &told).status, 404);
    let page = renewd.metrics();
    let mut counted = page.lines().filter(|line| {
        line.contains("outcome=\"revoked\",class=\"denied\"") && !line.ends_with(" 0")
    });
    assert!(counted.next().is_some(), "{page}");
}

#[test]
fn a_request_that_waits_for_a_source_while_its_user_is_revoked_gets_no_token() {
    let hook = Scripted::start();
    let renewd = Renewd::start(&Settings {
        tables: format!(
            "[decision]\ntimeout = \"30s\"\n[authorize]\nurl = \"{}\"\ntimeout = \"25s\"\n",
            hook.url("/authorize")
        ),
        ..Settings::default()
    });
    hook.hold();
    let told = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&renewd, "viewer", "live_show", 7));
        hook.wait(1);
        let told = revoke(&renewd, &json!({"subject": "viewer", "for": "1h"}));
        hook.answer(204, "");
        assert_eq!(asking.join().unwrap(), revoked());
        told
    });
    assert_eq!(told["outstanding"]["count"], 0);
    assert_eq!(renewd.whole("renewd_sessions{role=\"subscriber\"}"), 0);
}

#[test]
fn the_message_neither_says_suspended_nor_tells_the_operators_reason() {
    let renewd = start();
    revoke(
        &renewd,
        &json!({"subject": "viewer", "for": "1h", "reason": "suspended for spam"}),
    );
    let body = json!({"channelName": "live_show", "uid": 7}).to_string();
    let answer = renewd.post("/api/live/token", &login("viewer"), &body);
    let expected =
        json!({"success": false, "code": "revoked", "message": "Access has been revoked"});
    assert_eq!(answer.json(), expected);
}

#[test]
fn a_channel_a_subject_in_a_channel_and_a_uid_are_refused_and_nothing_else_is() {
    let renewd = start();
    let questions = [
        ("ann", "live_show", 7),
        ("ann", "live_other", 7),
        ("bob", "live_show", 7),
        ("cid", "live_show", 8),
        ("cid", "live_other", 8),
    ];
    for (body, refuses) in [
        (
            json!({"channel": "live_show"}),
            [true, false, true, true, false],
        ),
        (
            json!({"channel": "live_show", "subject": "ann"}),
            [true, false, false, false, false],
        ),
        (
            json!({"channelName": "live_show", "uid": 7}),
            [true, false, true, false, false],
        ),
        (
            json!({"channel": "live_show", "uid": "7"}),
            [true, false, true, false, false],
        ),
    ] {
        let mut body = body;
        body["for"] = json!("1h");
        let told = revoke(&renewd, &body);
        let codes = questions
            .map(|(subject, channel, uid)| ask(&renewd, subject, channel, uid).1 == "revoked");
        assert_eq!(codes, refuses, "{body}");
        assert_eq!(lift(&renewd, &told).status, 200);
    }
}

#[test]
fn the_holder_of_a_revoked_uid_gets_no_token_for_another_uid_of_that_channel() {
    let renewd = start();
    assert_eq!(ask(&renewd, "viewer", "live_show", 7), granted());
    let told = revoke(
        &renewd,
        &json!({"channel": "live_show", "uid": 7, "for": "1h"}),
    );
    assert_eq!(told["holders"], json!(["viewer"]));
    assert_eq!(told["outstanding"]["count"], 1);
    assert_eq!(ask(&renewd, "viewer", "live_show", 8), revoked());
    assert_eq!(ask(&renewd, "viewer", "live_show", 0), revoked());
    assert_eq!(ask(&renewd, "viewer", "live_other", 7), granted());
    assert_eq!(ask(&renewd, "stranger", "live_show", 7), revoked());
    assert_eq!(ask(&renewd, "stranger", "live_show", 9), granted());
}

#[test]
fn a_holder_of_uid_0_is_not_refused_under_other_uids() {
    let renewd = start();
    assert_eq!(ask(&renewd, "viewer", "live_show", 0), granted());
    let told = revoke(
        &renewd,
        &json!({"channel": "live_show", "uid": 0, "for": "1h"}),
    );
    assert_eq!(told["holders"], Value::Null);
    assert_eq!(ask(&renewd, "viewer", "live_show", 0), revoked());
    assert_eq!(ask(&renewd, "viewer", "live_show", 9), granted());
}

#[test]
fn the_answer_lists_the_tokens_that_cannot_be_recalled() {
    let renewd = start();
    for (subject, uid) in [("ann", 7), ("bob", 8)] {
        assert_eq!(ask(&renewd, subject, "live_show", uid), granted());
    }
    assert_eq!(ask(&renewd, "ann", "live_other", 7), granted());
    let sessions = renewd
        .ask_admin("GET", "/v1/sessions?subject=ann", "")
        .json();
    let told = revoke(&renewd, &json!({"subject": "ann", "for": "1h"}));
    let outstanding = &told["outstanding"];
    assert_eq!(outstanding["count"], 2);
    let mut tokens = outstanding["tokens"].as_array().unwrap().clone();
    tokens.sort_by_key(|token| token["channel"].to_string());
    for (token, channel) in tokens.iter().zip(["live_other", "live_show"]) {
        assert_eq!(token["subject"], "ann");
        assert_eq!(token["channel"], channel);
        assert_eq!(
            (&token["uid"], &token["role"]),
            (&json!(7), &json!("subscriber"))
        );
    }
    let expiries = sessions["sessions"].as_array().unwrap().iter();
    let last = expiries
        .filter_map(|session| session["expires"].as_str())
        .max();
    assert_eq!(outstanding["last_expires"].as_str(), last);
    let told = revoke(&renewd, &json!({"subject": "nobody-holds", "for": "1h"}));
    let nothing = json!({"count": 0, "last_expires": null, "tokens": []});
    assert_eq!(told["outstanding"], nothing);
}

#[test]
fn a_holders_renewal_rests_on_nothing_against_a_revocation() {
    let renewd = start();
    assert_eq!(ask(&renewd, "owner", "live_show", 1), granted());
    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    renewd.eventually("the source is down", |renewd| {
        renewd.whole("renewd_source_up{source=\"streams\"}") == 0
    });
    assert_eq!(ask(&renewd, "owner", "live_show", 1), granted());
    revoke(&renewd, &json!({"subject": "owner", "for": "1h"}));
    assert_eq!(ask(&renewd, "owner", "live_show", 1), revoked());
}

#[test]
fn a_revocation_ends_by_itself() {
    let renewd = start();
    revoke(&renewd, &json!({"subject": "viewer", "for": "1s"}));
    renewd.eventually("the revocation is over", |renewd| {
        ask(renewd, "viewer", "live_show", 7) == granted()
    });
    renewd.eventually("it is forgotten", |renewd| {
        renewd.whole("renewd_revocations") == 0
    });
    assert_eq!(
        list(&renewd, ""),
        json!({"revocations": [], "cursor": null})
    );
}

#[test]
fn while_observing_a_revocation_is_counted_and_the_backend_answers() {
    let backend = Express::start(Version::Five, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        tables: "[decision]\nmode = \"observe\"\n".to_owned(),
        ..Settings::default()
    });
    revoke(&renewd, &json!({"subject": "viewer", "for": "1h"}));
    let body = r#"{"channelName":"live_show","uid":7}"#;
    let answer = renewd.post("/api/live/token", &login("viewer"), body);
    let page = renewd.metrics();
    assert!(
        page.contains("renewd_shadow_decisions_total{outcome=\"revoked\""),
        "{}",
        answer.status
    );
}

#[test]
fn a_bad_request_says_what_is_wrong_and_stores_nothing() {
    let renewd = start();
    for (body, said) in [
        (
            json!({"subject": "", "for": "1h"}),
            "subject: must not be empty",
        ),
        (json!({"subject": "a"}), "for: required"),
        (
            json!({"subject": "a", "for": "1h", "until": "2100-01-01T00:00:00Z"}),
            "until: send either for or until",
        ),
        (
            json!({"subject": "a", "until": "2001-01-01T00:00:00Z"}),
            "until: lies in the past",
        ),
        (
            json!({"subject": "a", "for": "366days"}),
            "for: longer than a year",
        ),
        (
            json!({"subject": "a", "for": "1h", "who": "x"}),
            "who: unknown",
        ),
        (json!({"for": "1h"}), "name what to revoke"),
    ] {
        let answer = post(&renewd, &body);
        let told = answer.json();
        assert_eq!(
            (answer.status, &told["code"]),
            (400, &json!("invalid_request"))
        );
        let message = told["message"].as_str().unwrap();
        assert!(message.starts_with(said), "{body}: {message}");
    }
    let large = format!(r#"{{"subject":"{}"}}"#, "a".repeat(20_000));
    let answer = renewd.ask_admin("POST", "/v1/revocations", &large);
    assert_eq!(answer.status, 413);
    let answer = renewd.ask_admin_as("wrong", "POST", "/v1/revocations", "{}");
    assert_eq!(answer.status, 401);
    let answer = renewd.ask_admin("PUT", "/v1/revocations", "{}");
    assert_eq!(answer.status, 405);
    assert_eq!(list(&renewd, "")["revocations"], json!([]));
    for id in ["7", "", "../sessions", "01a3185c500100000000000000000000"] {
        let answer = renewd.ask_admin("DELETE", &format!("/v1/revocations/{id}"), "");
        assert_eq!(answer.status, 404, "{id}");
    }
}

#[test]
fn the_list_is_paged_and_filtered() {
    let renewd = start();
    let mut made: Vec<Value> = Vec::new();
    for number in 0..7 {
        let body = match number % 2 {
            0 => json!({"subject": "ann", "for": "1h"}),
            _ => json!({"channel": "live_show", "for": "1h", "reason": format!("{number}")}),
        };
        made.push(revoke(&renewd, &body)["id"].clone());
    }
    made.reverse();
    let ids = |page: &Value| -> Vec<Value> {
        let listed = page["revocations"].as_array().unwrap().iter();
        listed.map(|each| each["id"].clone()).collect()
    };
    let first = list(&renewd, "?limit=4");
    let cursor = first["cursor"].as_str().unwrap();
    let second = list(&renewd, &format!("?limit=4&cursor={cursor}"));
    assert_eq!(second["cursor"], Value::Null);
    assert_eq!([ids(&first), ids(&second)].concat(), made);
    assert_eq!(ids(&list(&renewd, "?subject=ann")).len(), 4);
    let of_channel = list(&renewd, "?channel=live_show");
    assert_eq!(of_channel["revocations"][0]["reason"], "5");
    assert_eq!(ids(&of_channel).len(), 3);
    for query in ["?chanel=x", "?limit=0", "?cursor=7"] {
        let answer = renewd.ask_admin("GET", &format!("/v1/revocations{query}"), "");
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[test]
fn every_change_is_audited_once_and_explained() {
    let renewd = start();
    let told = revoke(
        &renewd,
        &json!({"channel": "live_show", "uid": 7, "for": "1h", "reason": "a \"reason\""}),
    );
    let event = renewd.log().wait("an audit event", |line| {
        (line["event"] == "revocation" && line["outcome"] == "made").then(|| line.clone())
    });
    assert_eq!(event["id"], told["id"]);
    assert_eq!(
        (&event["channel"], &event["uid"]),
        (&json!("live_show"), &json!(7))
    );
    assert_eq!(event["until"], told["until"]);
    assert_eq!(event["reason"], "a \"reason\"");
    let path = "/v1/explain?subject=ann&channel=live_show&uid=7";
    let explained = renewd.ask_admin("GET", path, "").json();
    assert_eq!(
        (&explained["status"], &explained["code"]),
        (&json!(403), &json!("revoked"))
    );
    let mut steps = explained["steps"].as_array().unwrap().iter();
    let step = steps.find(|step| step["step"] == "revocations").unwrap();
    let detail = step["detail"].as_str().unwrap();
    assert!(detail.contains(told["id"].as_str().unwrap()), "{detail}");
    lift(&renewd, &told);
    renewd.log().wait("an audit event", |line| {
        (line["event"] == "revocation" && line["outcome"] == "lifted").then_some(())
    });
}

#[test]
fn a_reload_keeps_every_revocation() {
    let renewd = start();
    revoke(&renewd, &json!({"subject": "viewer", "for": "1h"}));
    let text = std::fs::read_to_string(renewd.file("config.toml")).unwrap();
    private_file(
        &renewd.file("config.toml"),
        &(text + "[policy]\nbind_uid = false\n"),
    );
    assert_eq!(renewd.reload().status, 200);
    assert_eq!(ask(&renewd, "viewer", "live_show", 7), revoked());
}

#[test]
fn the_commands_revoke_list_and_lift() {
    let renewd = start();
    assert_eq!(ask(&renewd, "viewer", "live_show", 7), granted());
    let (status, listed, _) = command(&renewd, &["revocations"]);
    assert_eq!((status, listed.as_str()), (0, "Nothing is revoked.\n"));
    let reason = "a\u{1b}[31mb";
    let revoke = "revoke --subject viewer --for 1h --reason";
    let revoke: Vec<&str> = revoke.split(' ').chain([reason]).collect();
    let (status, told, said) = command(&renewd, &revoke);
    assert_eq!((status, said.as_str()), (0, ""));
    assert!(told.starts_with("revoked "), "{told}");
    assert!(told.contains("  subject viewer  until "), "{told}");
    assert!(told.contains("(a\\u001b[31mb)"), "{told}");
    assert!(
        told.contains("1 outstanding token can't be recalled"),
        "{told}"
    );
    assert!(
        told.contains("  subscriber  viewer   live_show  7\n"),
        "{told}"
    );
    assert_eq!(ask(&renewd, "viewer", "live_show", 7), revoked());
    let (status, listed, _) = command(&renewd, &["revocations", "--subject", "viewer"]);
    assert_eq!((status, listed.lines().count()), (0, 2), "{listed}");
    assert!(listed.contains("a\\u001b[31mb"), "{listed}");
    let listed = listed.lines().nth(1).unwrap();
    let id = listed.split_whitespace().next().unwrap().to_owned();
    let (status, json, _) = command(&renewd, &["revocations", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &json["revocations"][0]["id"]), (0, &json!(id)));
    let (status, told, _) = command(&renewd, &["unrevoke", &id]);
    assert_eq!(status, 0, "{told}");
    assert_eq!(ask(&renewd, "viewer", "live_show", 7), granted());
    let (status, told, said) = command(&renewd, &["unrevoke", &id]);
    assert_eq!((status, told.as_str()), (1, ""));
    assert!(said.contains("no revocation in force of this id"), "{said}");
}

#[test]
fn the_commands_take_names_that_begin_with_a_hyphen() {
    let renewd = start();
    for (target, told) in [
        ("--subject -NfW3x", "subject -NfW3x"),
        ("--channel -a --uid -7", "channel -a  uid 4294967289"),
        ("--channel -a --account -b", "channel -a  account -b"),
    ] {
        let line = format!("revoke {target} --for 1h");
        let (status, said, error) = command(&renewd, &line.split(' ').collect::<Vec<_>>());
        assert_eq!((status, error.as_str()), (0, ""));
        assert!(said.contains(told), "{said}");
    }
    let (_, listed, _) = command(&renewd, &["revocations", "--subject", "-NfW3x"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn the_commands_refuse_wrong_arguments_and_pass_on_what_the_daemon_refuses() {
    let renewd = start();
    for wrong in [
        "revoke --for 1h",
        "revoke --subject a",
        "revoke --subject a --for 1h --until 2100-01-01T00:00:00Z",
        "revoke --uid 7 --for 1h",
        "revoke --subject a --channel b --uid 7 --for 1h",
        "unrevoke",
    ] {
        let arguments: Vec<&str> = wrong.split(' ').collect();
        assert_eq!(command(&renewd, &arguments).0, 64, "{wrong}");
    }
    let (status, _, said) = command(&renewd, &["revoke", "--subject", "a", "--for", "soon"]);
    assert_eq!(status, 1);
    assert!(said.contains("for: must be a duration"), "{said}");
}
