//! `GET /v1/sessions`: the holders of live tokens, a page at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::collections::BTreeSet;
use std::time::Duration;

use humantime::parse_rfc3339;
use serde_json::{Value, json};

use crate::support::renewd::{Renewd, Settings, login};

fn settings() -> Settings {
    Settings {
        token: "zero_uid = \"allow\"".to_owned(),
        ..Settings::default()
    }
}

fn grant(renewd: &Renewd, subject: &str, body: &Value) {
    let answer = renewd.post("/api/live/token", &login(subject), &body.to_string());
    assert_eq!(answer.status, 200, "{:?}", answer.json());
}

fn list(renewd: &Renewd, query: &str) -> Value {
    let answer = renewd.ask_admin("GET", &format!("/v1/sessions{query}"), "");
    assert_eq!(answer.status, 200);
    answer.json()
}

/// Channel-wide, in the order of uids.
fn subjects(page: &Value) -> BTreeSet<String> {
    let sessions = page["sessions"].as_array().unwrap().iter();
    sessions
        .map(|session| session["subject"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_session_shows_its_holder_since_when_until_when_and_how_often_it_was_renewed() {
    let renewd = Renewd::start(&settings());
    assert_eq!(list(&renewd, ""), json!({"sessions": [], "cursor": null}));
    let channel = "live_show";
    grant(&renewd, "owner", &json!({"channelName": channel}));
    // The SDK has assigned a uid, which makes no other session.
    grant(
        &renewd,
        "owner",
        &json!({"channelName": channel, "uid": 4_000_000_000_u32}),
    );
    let page = list(&renewd, "");
    assert_eq!(page["cursor"], Value::Null);
    assert_eq!(page["sessions"].as_array().unwrap().len(), 1);
    let session = &page["sessions"][0];
    assert_eq!(session["subject"], "owner");
    assert_eq!(session["channel"], channel);
    assert_eq!(session["uid"], 4_000_000_000_u32);
    assert_eq!(session.get("account"), None);
    assert_eq!(session["role"], "publisher");
    assert_eq!(session["refreshes"], 1);
    let time = |key: &str| parse_rfc3339(session[key].as_str().unwrap()).unwrap();
    let lasts = time("expires")
        .duration_since(time("first_issued"))
        .unwrap();
    assert!(
        (Duration::from_hours(1)..Duration::from_mins(61)).contains(&lasts),
        "{lasts:?}"
    );

    grant(
        &renewd,
        "viewer",
        &json!({"channelName": channel, "account": "a phone"}),
    );
    let page = list(&renewd, "?subject=viewer");
    let session = &page["sessions"][0];
    assert_eq!(session["account"], "a phone");
    assert_eq!(session.get("uid"), None);
    assert_eq!(
        (&session["role"], &session["refreshes"]),
        (&json!("subscriber"), &json!(0))
    );
}

#[test]
fn pages_go_on_where_the_one_before_ended_and_filters_hold_on_each() {
    let streams = ["live_show", "live_other"]
        .map(|channel| format!("[[stream]]\nchannel = \"{channel}\"\nowner = \"owner\"\n"));
    let renewd = Renewd::start(&Settings {
        streams: Some(streams.concat()),
        ..settings()
    });
    for number in 1..=12 {
        let subject = format!("viewer-{number}");
        for channel in ["live_show", "live_other"] {
            let asked = json!({"channelName": channel, "uid": number});
            grant(&renewd, &subject, &asked);
        }
    }
    let mut seen = BTreeSet::new();
    let mut query = "?channel=live_show&limit=5".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = list(&renewd, &query);
        let here = subjects(&page);
        pages.push(here.len());
        seen.extend(here);
        let Some(cursor) = page["cursor"].as_str() else {
            break;
        };
        query = format!("?channel=live_show&limit=5&cursor={cursor}");
    }
    assert_eq!(pages, [5, 5, 2]);
    assert_eq!(seen.len(), 12);
    let both = list(&renewd, "?channel=live_other&subject=viewer-3");
    assert_eq!(both["sessions"].as_array().unwrap().len(), 1);
    let one = list(&renewd, "?subject=viewer-3");
    assert_eq!(one["sessions"].as_array().unwrap().len(), 2);

    for (query, named) in [
        ("limit=0", "limit"),
        ("who=viewer", "who"),
        ("cursor=0", "cursor"),
        (&format!("cursor={}", "0".repeat(36)), "cursor"),
    ] {
        let answer = renewd.ask_admin("GET", &format!("/v1/sessions?{query}"), "");
        assert_eq!(answer.status, 400, "{query}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(named), "{query}: {message}");
    }
}
