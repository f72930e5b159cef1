//! Token requests, and the traces that each must leave: an answer of the contract's shape, one count, one audit event.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::raw::{Client, Response};
use super::renewd::{ADMIN_TOKEN, Renewd, Settings, login, private_file, write_files};

/// A token request; change what a test is about.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The target.
    pub path: String,
    /// `Authorization`, whole; empty leaves it out.
    pub authorization: String,
    /// `Content-Type`; empty leaves it out.
    pub media_type: String,
    /// Further header lines, each with its line end.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Ask {
    /// Asks `/api/live/token` as `subject`, with a JSON body.
    pub fn new(subject: &str, body: &Value) -> Self {
        Self::text(subject, &body.to_string())
    }

    /// The same with the body as written.
    pub fn text(subject: &str, body: &str) -> Self {
        Self {
            path: "/api/live/token".to_owned(),
            authorization: format!("Bearer {}", login(subject)),
            media_type: "application/json".to_owned(),
            headers: String::new(),
            body: body.to_owned(),
        }
    }

    /// Asks as a viewer of `live_show` with this uid.
    pub fn viewer(subject: &str, uid: u32) -> Self {
        let body = json!({"channelName": "live_show", "uid": uid, "role": "subscriber"});
        Self::new(subject, &body)
    }

    /// The request with these credentials instead.
    pub fn bearer(self, token: &str) -> Self {
        Self {
            authorization: format!("Bearer {token}"),
            ..self
        }
    }

    /// The request at `routes.refresh`.
    pub fn refresh(self) -> Self {
        Self {
            path: "/api/live/refresh-token".to_owned(),
            ..self
        }
    }

    /// The request as bytes, with `Content-Length`.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\nHost: example.com\r\n", self.path);
        for (name, value) in [
            ("Authorization", &self.authorization),
            ("Content-Type", &self.media_type),
        ] {
            if !value.is_empty() {
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        let _ = write!(
            head,
            "{}Content-Length: {}\r\n\r\n",
            self.headers,
            self.body.len()
        );
        (head + &self.body).into_bytes()
    }

    /// Sends it on a connection of its own.
    pub fn send(&self, renewd: &Renewd) -> Response {
        self.send_on(&mut renewd.client())
    }

    /// Sends it on this connection.
    pub fn send_on(&self, client: &mut Client) -> Response {
        client.send(&self.bytes()).expect("an answer")
    }
}

/// How a token request must be counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// `endpoint`.
    pub endpoint: &'static str,
    /// `role`.
    pub role: &'static str,
    /// `class`.
    pub class: &'static str,
}

/// The form of a refusal or a grant.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// HTTP status.
    pub status: u16,
    /// `code`; `ok` for a grant.
    pub code: &'static str,
    /// How it is counted.
    pub counted: Counted,
}

impl Row {
    /// A row whose request was refused, or granted, at `token` before or after its role was known.
    pub fn new(status: u16, code: &'static str, role: &'static str, class: &'static str) -> Self {
        let endpoint = "token";
        Self {
            status,
            code,
            counted: Counted {
                endpoint,
                role,
                class,
            },
        }
    }

    /// The same at `refresh`.
    pub fn refreshing(mut self) -> Self {
        self.counted.endpoint = "refresh";
        self
    }

    /// Sends, and holds the answer, the counts and the audit event to this row. Gives the answer and the event.
    pub fn holds_for(self, renewd: &Renewd, ask: &Ask) -> (Response, Value) {
        let before = token_requests(renewd);
        let answer = ask.send(renewd);
        let after = token_requests(renewd);
        self.answers(&answer);
        let Counted {
            endpoint,
            role,
            class,
        } = self.counted;
        let series = format!(
            r#"renewd_token_requests_total{{endpoint="{endpoint}",role="{role}",outcome="{}",class="{class}"}}"#,
            self.code
        );
        let mut expected = before;
        *expected.entry(series).or_default() += 1;
        assert_eq!(after, expected, "{ask:?}");
        let event = event_of(renewd, &answer);
        for (name, value) in [
            ("outcome", self.code),
            ("endpoint", endpoint),
            ("client", "127.0.0.1"),
        ] {
            assert_eq!(event[name], value, "{event}");
        }
        assert_eq!(event["enforced"], true, "{event}");
        let role = (role != "unknown").then_some(role);
        assert_eq!(event["role"].as_str(), role, "{event}");
        assert_eq!(event["expires"].is_string(), self.code == "ok", "{event}");
        (answer, event)
    }

    /// Holds the answer to this row.
    pub fn answers(self, answer: &Response) {
        let shown = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, self.status, "{shown}");
        let json = answer.json();
        assert_eq!(json["success"], self.code == "ok", "{shown}");
        if self.code == "ok" {
            assert!(json["data"]["token"].is_string(), "{shown}");
        } else {
            assert_eq!(json["code"], self.code, "{shown}");
            let members: Vec<_> = json.as_object().unwrap().keys().collect();
            assert_eq!(members, ["code", "message", "success"], "{shown}");
            assert!(!json["message"].as_str().unwrap().is_empty(), "{shown}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(
            answer.header("content-type"),
            Some("application/json; charset=utf-8")
        );
        assert!(!answer.header("x-request-id").unwrap().is_empty());
        let retries = matches!(self.status, 429 | 503);
        let seconds = answer
            .header("retry-after")
            .map(|value| value.parse::<u64>().unwrap());
        assert_eq!(
            seconds.is_some_and(|seconds| seconds > 0),
            retries,
            "{shown}"
        );
        for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            let value = answer
                .header(name)
                .map(|value| value.parse::<u64>().unwrap());
            assert_eq!(value.is_some(), self.status == 429, "{name}");
        }
    }
}

/// The audit event of an answer; waits for it.
pub fn event_of(renewd: &Renewd, answer: &Response) -> Value {
    let id = answer.header("x-request-id").expect("a request id");
    renewd.log().wait("audit event", |line| {
        (line["target"] == "audit" && line["request_id"] == id).then(|| line.clone())
    })
}

/// Every audit event of a decision so far.
pub fn events(renewd: &Renewd) -> Vec<Value> {
    let mut lines = renewd.log().lines();
    lines.retain(|line| line["target"] == "audit" && line["event"] == "decision");
    lines
}

/// Holds that no request left two audit events behind.
pub fn each_was_audited_once(renewd: &Renewd, requests: usize) {
    // Lines are written in order: with this one all earlier ones are there.
    let last = Ask::text("last", "").send(renewd);
    event_of(renewd, &last);
    let mut ids: Vec<_> = events(renewd)
        .iter()
        .map(|event| event["request_id"].to_string())
        .collect();
    let events = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((events, ids.len()), (requests + 1, requests + 1));
}

/// The value of one series that counts things; 0 where it isn't there.
pub fn counted(renewd: &Renewd, series: &str) -> u64 {
    let page = renewd.metrics();
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a whole number"))
}

/// The series of `renewd_token_requests_total` that aren't 0.
pub fn token_requests(renewd: &Renewd) -> BTreeMap<String, u64> {
    let page = renewd.metrics();
    let series = page
        .lines()
        .filter(|line| line.starts_with("renewd_token_requests_total{"));
    series
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let value = value.parse().ok()?;
            (value > 0).then(|| (series.to_owned(), value))
        })
        .collect()
}

/// Replaces the streams file as an editor would, and waits until it counts.
pub fn change_streams(renewd: &Renewd, streams: &str) {
    let reloads = |renewd: &Renewd| {
        let lines = renewd.log().lines();
        lines
            .iter()
            .filter(|line| line["msg"] == "streams reloaded")
            .count()
    };
    let before = reloads(renewd);
    private_file(&renewd.file("next.toml"), streams);
    std::fs::rename(renewd.file("next.toml"), renewd.file("streams.toml")).unwrap();
    renewd.eventually("the streams are reloaded", |renewd| {
        reloads(renewd) > before
    });
}

/// Replaces the configuration and reloads it.
pub fn reconfigure(renewd: &Renewd, settings: &Settings) {
    write_files(renewd.directory.path(), settings);
    let answer = reload(renewd);
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
}

/// `POST /-/reload`.
pub fn reload(renewd: &Renewd) -> Response {
    let request = format!(
        "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    Client::new(renewd.admin)
        .send(request.as_bytes())
        .expect("an answer")
}
