//! The real app behind every kind of client connection: the app and the client see what they see without renewd, but
//! for the documented differences. Those are named here once, in [`MADE_ANEW`] and [`ADDED`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::express::{Express, Version};
use crate::support::topology::{Client, Front, Gate, Upload, Whole};
use serde_json::Value;

/// The fields that every hop makes for itself; HTTP/2 has none of them.
const MADE_ANEW: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "te"];

/// The fields that renewd adds for the app.
const ADDED: [&str; 4] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
];

/// Method, target, fields, body.
type Asked = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

struct App {
    express: Express,
    gate: Gate,
}

impl App {
    fn start(version: Version) -> Self {
        let express = Express::start(version, &[("RATE_LIMIT", "0")]);
        let gate = Gate::start(&format!("http://{}", express.address));
        Self { express, gate }
    }

    /// The app's answer without renewd, and the one at each front.
    async fn ask(&self, asked: Asked) -> (Whole, Vec<(Front, Whole)>) {
        let mut direct = Client::of(self.express.address).await;
        let expected = answer(&mut direct, asked).await;
        let mut found = Vec::new();
        for front in Front::ALL {
            let mut client = self.gate.client(front).await;
            found.push((front, answer(&mut client, asked).await));
        }
        (expected, found)
    }
}

async fn answer(client: &mut Client, (method, target, fields, body): Asked) -> Whole {
    let mut fields = fields.to_vec();
    let length = body.len().to_string();
    let body = if body.is_empty() {
        Upload::Empty
    } else {
        fields.push(("content-length", &length));
        Upload::Whole(body.into())
    };
    let request = client.request(method, target, &fields, body);
    Whole::read(client.send(request).await.unwrap()).await
}

/// The request that the app's `/wire/seen` saw, without the fields that hops make and renewd adds.
fn seen(whole: &Whole) -> Value {
    let mut seen: Value = serde_json::from_slice(&whole.body).expect("what was seen");
    let raw: Vec<String> = serde_json::from_value(seen["headers"].take()).unwrap();
    let fields = raw
        .chunks_exact(2)
        .map(|pair| (pair[0].to_ascii_lowercase(), pair[1].clone()));
    // Over HTTP/2, hyper's client announces that a PROPFIND has no body (hyper 1.12,
    // `method_has_defined_payload_semantics` in `headers.rs`); over HTTP/1.1 it doesn't.
    let theirs: Vec<_> = fields
        .filter(|(name, value)| !(name == "content-length" && value == "0"))
        .filter(|(name, _)| !MADE_ANEW.contains(&&name[..]) && !ADDED.contains(&&name[..]))
        .collect();
    seen["headers"] = serde_json::json!(theirs);
    // This one follows from the proxy's own claims, which the app trusts.
    for claim in ["ip", "protocol", "hostname"] {
        seen[claim] = Value::Null;
    }
    seen
}

/// The answer that the client got, without the fields that hops make; the second in `Date` differs each time.
fn got(whole: &Whole) -> impl PartialEq + std::fmt::Debug + use<> {
    let fields = whole
        .fields
        .iter()
        .filter(|(name, _)| !MADE_ANEW.contains(&&name[..]));
    let fields = fields.map(|(name, value)| match &name[..] {
        "date" => (name.clone(), "a time".to_owned()),
        _ => (name.clone(), value.clone()),
    });
    let fields: Vec<_> = fields.collect();
    (
        whole.status,
        fields,
        whole.body.clone(),
        whole.trailers.clone(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_sees_the_same_request_whichever_way_it_comes() {
    let table: [Asked; 9] = [
        ("GET", "/wire/seen", &[], ""),
        (
            "GET",
            "/wire/seen/a//b/%2e%2e/c?q=%20+&&a=1&a=2",
            &[("accept", "*/*")],
            "",
        ),
        (
            "DELETE",
            "/wire/seen?",
            &[("x-b", "2"), ("x-a", "1"), ("x-c", "")],
            "",
        ),
        (
            "OPTIONS",
            "/wire/seen",
            &[
                ("origin", "https://app.example"),
                ("access-control-request-method", "PUT"),
            ],
            "",
        ),
        ("PROPFIND", "/wire/seen/x;v=1", &[("depth", "1")], ""),
        (
            "GET",
            "/wire/seen",
            &[
                ("cookie", "a=1; b=\"2\"; c="),
                ("authorization", "Bearer a.b.c"),
            ],
            "",
        ),
        (
            "GET",
            "/wire/seen",
            &[
                ("range", "bytes=0-1"),
                ("if-none-match", "\"a\""),
                ("accept-encoding", "gzip"),
            ],
            "",
        ),
        (
            "POST",
            "/wire/seen",
            &[("content-type", "application/json")],
            "{\"a\":[1,2]}",
        ),
        (
            "PUT",
            "/wire/seen",
            &[
                ("content-type", "text/plain; charset=utf-8"),
                ("x-utf-8", "caf\u{e9}"),
            ],
            "caf\u{e9}",
        ),
    ];
    for version in [Version::Four, Version::Five] {
        let app = App::start(version);
        for asked in table {
            let (expected, found) = app.ask(asked).await;
            assert_eq!(expected.status, 200);
            for (front, found) in found {
                assert_eq!(seen(&found), seen(&expected), "{front:?} {asked:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_gets_the_same_answer_whichever_way_it_asks() {
    let table: [Asked; 16] = [
        ("GET", "/health", &[], ""),
        ("HEAD", "/health", &[], ""),
        ("GET", "/nowhere", &[], ""),
        ("GET", "/wire/cookies", &[], ""),
        ("GET", "/wire/trailers", &[("te", "trailers")], ""),
        ("GET", "/wire/file", &[], ""),
        ("HEAD", "/wire/file", &[], ""),
        ("GET", "/wire/file", &[("range", "bytes=2-9")], ""),
        ("GET", "/wire/file", &[("range", "bytes=99999-")], ""),
        ("GET", "/wire/file", &[("range", "bytes=0-1,3-4")], ""),
        (
            "GET",
            "/wire/file",
            &[("if-modified-since", "Sat, 01 Jan 2050 00:00:00 GMT")],
            "",
        ),
        ("GET", "/wire/status?code=204", &[], ""),
        ("GET", "/wire/status?code=304", &[], ""),
        ("POST", "/wire/status?code=418", &[], ""),
        (
            "POST",
            "/wire/echo",
            &[("content-type", "text/plain")],
            "an echo",
        ),
        ("GET", "/wire/events?count=3&end=1", &[], ""),
    ];
    for version in [Version::Four, Version::Five] {
        let app = App::start(version);
        for asked in table {
            let (expected, found) = app.ask(asked).await;
            for (front, found) in found {
                assert_eq!(got(&found), got(&expected), "{front:?} {asked:?}");
            }
        }
    }
}
