//! Interim answers of the backend (102 Processing, 103 Early Hints): who gets them, when, and what of them.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::express::{Express, Version};
use crate::support::plane::{Setup, get, ok};
use crate::support::raw_exchange::RawExchange;
use crate::support::renewd::{Renewd, Settings};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";

#[tokio::test]
async fn interim_answers_pass_before_the_final_one_is_there() {
    let mut raw = RawExchange::begin(get("/")).await;
    // An odd order and spelling, and what concerns the backend's connection alone.
    raw.server
        .send(
            "HTTP/1.1 103 Soon\r\nlink: </b>\r\nX-First: 1\r\nLink: </a>\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\r\n",
        )
        .await;
    assert_eq!(
        raw.client.head().await,
        "HTTP/1.1 103 Soon\r\nlink: </b>\r\nX-First: 1\r\nLink: </a>\r\n\r\n"
    );
    raw.server
        .send(
            "HTTP/1.1 102 Processing\r\nConnection: close, x-gone\r\nX-Gone: 1\r\nContent-Length: 5\r\nX-Stays: 2\r\n\r\n",
        )
        .await;
    assert_eq!(
        raw.client.head().await,
        "HTTP/1.1 102 Processing\r\nx-stays: 2\r\n\r\n"
    );
    let head = raw.answered(ok("a")).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    raw.client.until("a").await;
    // Both connections go on.
    let head = raw.again(get("/again")).await;
    assert!(head.starts_with("GET /again "), "{head}");
    raw.server.send([HINTS, &ok("b")].concat()).await;
    assert_eq!(raw.client.head().await, HINTS);
    assert!(raw.client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_none_and_nobody_a_second_100() {
    let mut old = RawExchange::begin("GET / HTTP/1.0\r\n\r\n").await;
    let head = old.answered([HINTS, &ok("a")].concat()).await;
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    let mut new = RawExchange::begin(get("/")).await;
    let continues = "HTTP/1.1 100 Continue\r\n\r\n";
    let head = new
        .answered([continues, HINTS, continues, &ok("a")].concat())
        .await;
    assert_eq!(head, HINTS);
    assert!(new.client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn an_expectation_and_hints_are_both_answered() {
    let mut raw = RawExchange::begin(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(raw.client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(raw.answered(HINTS).await, HINTS);
    raw.client.send("ok").await;
    assert_eq!(raw.server.exactly(2).await, b"ok");
    let head = raw.answered(ok("a")).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
}

#[tokio::test]
async fn a_flood_of_them_is_bounded_and_harms_nothing() {
    let mut raw = RawExchange::begin(get("/")).await;
    let flood = HINTS.repeat(5000);
    raw.server.send(flood + &ok("a")).await;
    let mut passed = 0;
    let last = loop {
        let head = raw.client.head().await;
        if head != HINTS {
            break head;
        }
        passed += 1;
    };
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
    assert!((1..=1000).contains(&passed), "{passed}");
    raw.client.until("a").await;
    raw.again(get("/again")).await;
    raw.finish("b").await;
}

#[tokio::test]
async fn an_answer_that_is_announced_again_and_again_is_waited_for() {
    let setup = Setup {
        response_timeout: Duration::from_secs(8),
        ..Setup::default()
    };
    let mut raw = RawExchange::begin_with(setup, get("/")).await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..10 {
        ticks.tick().await;
        assert_eq!(raw.answered(HINTS).await, HINTS);
    }
    let head = raw.answered(ok("a")).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
}

#[tokio::test]
async fn after_hints_the_request_is_not_sent_again() {
    let mut raw = RawExchange::begin(get("/")).await;
    assert_eq!(raw.answered(HINTS).await, HINTS);
    drop(raw.server);
    raw.client.assert_error(502, "BadResponse").await;
    assert_eq!(raw.proxy.retries(), 0);
    assert!(raw.backend.is_untouched().await);
}

/// Asks for `/wire/hints`, lets the app go on when both interim answers are there, and prints what came.
const NODE_CLIENT: &str = "
const http = require('node:http');
const base = process.argv[1];
const came = [];
http.get(`${base}/wire/hints`)
  .on('information', ({ statusCode, headers }) => {
    came.push({ statusCode, link: headers.link });
    if (came.length === 2) http.get(`${base}/wire/released`).on('response', (other) => other.resume());
  })
  .on('response', (response) => {
    came.push({ statusCode: response.statusCode, link: response.headers.link });
    response.resume().on('end', () => { console.log(JSON.stringify(came)); process.exit(); });
  });
";

#[test]
fn node_gets_the_apps_hints_while_the_app_still_works() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        ..Settings::default()
    });
    for address in [backend.address, renewd.public] {
        let output = Command::new("node")
            .args(["-e", NODE_CLIENT, &format!("http://{address}")])
            .output()
            .expect("node: `tests/run --install` installs it");
        let came: Value = serde_json::from_slice(&output.stdout).expect("what came");
        let hint = "</style.css>; rel=preload; as=style";
        assert_eq!(
            came,
            json!([{"statusCode": 102}, {"statusCode": 103, "link": hint}, {"statusCode": 200}]),
            "{address}"
        );
    }
}

#[test]
fn curl_gets_the_apps_hints_over_either_protocol() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        server: "h2c = true".to_owned(),
        ..Settings::default()
    });
    for (protocol, interim) in [
        ("--http1.1", "HTTP/1.1 103 "),
        ("--http2-prior-knowledge", "HTTP/2 103 "),
    ] {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--include",
                "--max-time",
                "30",
                protocol,
            ])
            .arg(format!("http://{}/wire/hints?at=once", renewd.public))
            .output()
            .expect("curl is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.ends_with("hinted"), "{said}");
        let lines = said.to_lowercase();
        assert!(lines.contains("link: </style.css>"), "{said}");
        assert!(said.contains(interim), "{said}");
    }
}
