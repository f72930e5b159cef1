//! The order of the token endpoints' table: a request that breaks several rows gets the first row's answer.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support::ask::{Ask, Row, change_streams};
use crate::support::raw::{Client, Response};
use crate::support::renewd::{Renewd, Settings, jwt, now};
use serde_json::json;

/// The rules that a request may break, in the table's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Login,
    Body,
    Limit,
    NotLive,
    Banned,
    NotOwner,
    UidTaken,
    Policy,
}

const ROWS: [(Broken, u16, &str); 8] = [
    (Broken::Login, 401, "unauthenticated"),
    (Broken::Body, 400, "invalid_request"),
    (Broken::Limit, 429, "rate_limited"),
    (Broken::NotLive, 404, "stream_not_live"),
    (Broken::Banned, 403, "viewer_banned"),
    (Broken::NotOwner, 403, "not_owner"),
    (Broken::UidTaken, 409, "uid_taken"),
    (Broken::Policy, 403, "policy_denied"),
];

/// The uid that `holder` holds in both channels.
const TAKEN: u32 = 7;

fn streams(over_is_live: bool) -> String {
    let trolls: Vec<_> = (0..1 << ROWS.len())
        .map(|number| format!("troll-{number}"))
        .collect();
    [("live_show", true), ("over", over_is_live)]
        .map(|(channel, live)| {
            format!(
                "[[stream]]\nchannel = \"{channel}\"\nowner = \"owner\"\nlive = {live}\nbanned_viewers = {trolls:?}\n"
            )
        })
        .concat()
}

/// One request as a subject of its own.
fn ask(number: usize, broken: &[Broken]) -> Ask {
    let breaks = |row| broken.contains(&row);
    let pick = |row, yes, no| if breaks(row) { yes } else { no };
    let subject = format!("{}-{number}", pick(Broken::Banned, "troll", "viewer"));
    let mut claims = json!({"sub": subject});
    if !breaks(Broken::Policy) {
        claims["exp"] = json!(now() + 3600);
    }
    let mut body = json!({
        "channelName": pick(Broken::NotLive, "over", "live_show"),
        "role": pick(Broken::NotOwner, "publisher", "subscriber"),
        "uid": if breaks(Broken::UidTaken) { TAKEN } else { 1000 + u32::try_from(number).unwrap() },
    });
    if breaks(Broken::Body) {
        body["isBroadcaster"] = json!("perhaps");
    }
    let token = jwt(&claims) + pick(Broken::Login, "x", "");
    Ask::new(&subject, &body).bearer(&token)
}

fn first_broken(broken: &[Broken]) -> (u16, &'static str) {
    let first = ROWS.iter().find(|(row, ..)| broken.contains(row));
    first.map_or((200, "ok"), |(_, status, code)| (*status, code))
}

fn given(answer: &Response) -> (u16, String) {
    let json = answer.json();
    let code = json["code"].as_str().unwrap_or("ok");
    (answer.status, code.to_owned())
}

#[test]
fn whatever_a_request_breaks_the_first_row_answers() {
    let renewd = Renewd::start(&Settings {
        streams: Some(streams(true)),
        tables:
            "[rate_limit]\naddress = \"off\"\nsubject = { requests = 1, per = \"1h\", burst = 2 }\n"
                .to_owned(),
        ..Settings::default()
    });
    for channel in ["live_show", "over"] {
        let holder = json!({"channelName": channel, "uid": TAKEN, "role": "subscriber"});
        assert_eq!(Ask::new("holder", &holder).send(&renewd).status, 200);
    }
    change_streams(&renewd, &streams(false));
    let mut client = Client::new(renewd.public);
    for number in 0..1 << ROWS.len() {
        let broken: Vec<_> = ROWS
            .iter()
            .enumerate()
            .filter(|(index, _)| number >> index & 1 == 1)
            .map(|(_, (row, ..))| *row)
            .collect();
        if broken.contains(&Broken::Limit) {
            let spend = ask(number, &broken).bearer(&jwt(&json!({
                "sub": format!("{}-{number}", if broken.contains(&Broken::Banned) { "troll" } else { "viewer" }),
                "exp": now() + 3600,
            })));
            for _ in 0..2 {
                Ask {
                    body: r#"{"channelName":"nowhere","uid":1}"#.to_owned(),
                    ..spend.clone()
                }
                .send_on(&mut client);
            }
        }
        let answer = ask(number, &broken).send_on(&mut client);
        let (status, code) = first_broken(&broken);
        assert_eq!(given(&answer), (status, code.to_owned()), "{broken:?}");
    }
}

#[test]
fn a_debt_of_the_address_replaces_only_what_it_is_charged_for() {
    let renewd = Renewd::start(&Settings {
        tables: "[rate_limit]\naddress = { requests = 1, per = \"1h\", burst = 1 }\n".to_owned(),
        ..Settings::default()
    });
    let viewer = Ask::viewer("viewer", 7);
    let unknown = viewer.clone().bearer("no.such.token");
    assert_eq!(unknown.send(&renewd).status, 401);
    let row_1 = Row::new(429, "rate_limited", "unknown", "client");
    let body = |body: &str| Ask {
        body: body.to_owned(),
        ..viewer.clone()
    };
    let expired = jwt(&json!({"sub": "viewer", "exp": 1}));
    row_1.holds_for(&renewd, &unknown);
    row_1.holds_for(&renewd, &viewer.clone().bearer(&expired));
    row_1.holds_for(&renewd, &body("{"));
    row_1.holds_for(&renewd, &body(&" ".repeat(16 * 1024 + 1)));
    row_1.holds_for(
        &renewd,
        &Ask {
            media_type: "text/plain".to_owned(),
            ..viewer.clone()
        },
    );
    Row::new(404, "stream_not_live", "unknown", "denied")
        .holds_for(&renewd, &body(r#"{"channelName":"nowhere","uid":1}"#));
    Row::new(403, "viewer_banned", "subscriber", "denied")
        .holds_for(&renewd, &Ask::viewer("troll", 7));
    Row::new(200, "ok", "subscriber", "ok").holds_for(&renewd, &viewer);
}
