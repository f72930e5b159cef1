//! Tokens inside a backend's answers: whatever the framing, the cuts and the clock, only the tokens change.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail
#![allow(clippy::float_cmp)] // counters hold whole numbers

use crate::support;
use crate::support::plane;

use std::fmt::Write as _;
use std::future::poll_fn;

use crate::support::conversation::chunked;
use crate::support::plane::{Backend, Wire, get, within};
use crate::support::renewd::{
    APP_CERTIFICATE, APP_ID, Renewd, Settings, login, now, private_file, write_files,
};
use crate::support::scripted::Scripted;
use bytes::Bytes;
use renewd::agora::TokenFormat;
use renewd::agora::parse::{self, Parsed, Parsed007};
use renewd::agora::{RtcGrant, Signer, User, rtc_token};
use renewd::config::secret::Secret;
use renewd::terms::role::Role;
use tokio::net::TcpStream;

const RULE: &str = "[[reissue.rule]]\npath = \"/answer/*\"\n";
const CHANNEL: &str = "live_show";
const DAY: u32 = 24 * 3600;
const STRANGER: &str = "0123456789abcdef0123456789abcdef";

async fn start() -> (Backend, Renewd) {
    start_with(RULE).await
}

async fn start_with(tables: &str) -> (Backend, Renewd) {
    let backend = Backend::start().await;
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address()),
        server: "h2c = true".to_owned(),
        tables: tables.to_owned(),
        ..Settings::default()
    });
    (backend, renewd)
}

async fn connect(renewd: &Renewd) -> Wire {
    Wire::new(TcpStream::connect(renewd.public).await.unwrap())
}

/// A token signed with this certificate, issued so many seconds ago.
fn token(format: TokenFormat, certificate: &str, age: u32, lifetime: u32) -> String {
    token_for(Role::Subscriber, format, certificate, age, lifetime)
}

fn token_for(
    role: Role,
    format: TokenFormat,
    certificate: &str,
    age: u32,
    lifetime: u32,
) -> String {
    let signer = Signer::new(APP_ID, &Secret::new(certificate.into())).unwrap();
    let grant = RtcGrant {
        channel: CHANNEL,
        user: User::Uid(77),
        role,
        lifetime,
        issued_at: u32::try_from(now()).unwrap() - age,
        salt: 9,
    };
    rtc_token(format, &signer, &grant).unwrap()
}

/// The rest of an answer where the end is missing.
fn cut_off(token: &str) -> String {
    token[..token.len() - 9].to_owned()
}

fn long() -> String {
    token(TokenFormat::V007, APP_CERTIFICATE, 0, DAY)
}

fn read(token: &str) -> Parsed007 {
    match parse::parse(token) {
        Ok(Parsed::V007(parsed)) => parsed,
        other => panic!("{token}: {other:?}"),
    }
}

/// The body with its one token replaced by `@`, and that token.
fn taken_out(body: &str) -> (String, String) {
    let (before, rest) = body.split_once("\"007").unwrap_or_else(|| panic!("{body}"));
    let (token, after) = rest.split_once('"').unwrap();
    (format!("{before}\"@\"{after}"), format!("007{token}"))
}

fn is_short(token: &str) {
    let parsed = read(token);
    assert!(parsed.verify(&Secret::new(APP_CERTIFICATE.into())));
    assert_eq!(parsed.token.expire, 3600);
    assert!(now() - u64::from(parsed.token.issued_at) < 30);
}

/// The answer to one request on a connection of its own, as it is read.
async fn asked(
    backend: &Backend,
    renewd: &Renewd,
    request: &str,
    answer: &[u8],
) -> (String, String) {
    let mut client = connect(renewd).await;
    client.send(request).await;
    let mut server = backend.accept().await;
    let head = server.head().await;
    server.send(answer).await;
    (head, client.rest().await)
}

fn closing(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
}

fn sized(body: &str) -> Vec<u8> {
    plane::ok(body).into_bytes()
}

fn content(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !head.to_ascii_lowercase().contains("transfer-encoding") {
        return body.to_owned();
    }
    let mut content = String::new();
    let mut rest = body;
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        match usize::from_str_radix(size, 16).unwrap() {
            0 => return content,
            size => {
                content += &after[..size];
                rest = &after[size + 2..];
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_found_wherever_the_backend_cuts_its_answer() {
    let (backend, renewd) = start().await;
    let long = long();
    let escaped = long.replace('/', "\\/").replace('+', "\\u002B");
    for written in [&long, &escaped] {
        let body = format!("{{\"a\":\"e\\\"\",\"token\":\"{written}\",\"b\":[1,2]}}");
        for size in [1, 2, 5, 64, 10_000] {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let answer = [head.to_vec(), chunked(body.as_bytes(), size)].concat();
            let (_, answer) = asked(&backend, &renewd, &closing("/answer/1"), &answer).await;
            let (rest, token) = taken_out(&content(&answer));
            assert_eq!(rest, body.replace(written.as_str(), "@"), "{size}");
            is_short(&token);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_answer_is_asked_for_unencoded_and_no_field_describes_other_bytes() {
    let (backend, renewd) = start().await;
    let request = "GET /answer/1 HTTP/1.1\r\nHost: app.test\r\nAccept-Encoding: gzip\r\nRange: bytes=1-2\r\n\
        If-Modified-Since: x\r\nIf-None-Match: x\r\nConnection: close\r\n\r\n";
    let body = format!("\"{}\"", long());
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"a\"\r\nLast-Modified: x\r\nAccept-Ranges: bytes\r\n\
         Content-MD5: x\r\nDigest: x\r\nContent-Digest: x\r\nRepr-Digest: x\r\nCache-Control: public\r\n\
         Content-Type: text/plain\r\n\r\n{body}",
        body.len()
    );
    let (asked, answer) = asked(&backend, &renewd, request, answer.as_bytes()).await;
    let asked = asked.to_ascii_lowercase();
    assert!(
        asked.contains("\r\naccept-encoding: identity\r\n"),
        "{asked}"
    );
    for gone in ["range", "if-", "gzip"] {
        assert!(!asked.contains(gone), "{asked}");
    }
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    for gone in [
        "etag",
        "last-modified",
        "accept-ranges",
        "md5",
        "digest",
        "content-length",
        "public",
    ] {
        assert!(!head.contains(gone), "{head}");
    }
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    is_short(&taken_out(&content(&answer)).1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_gets_its_answer_until_the_connection_ends() {
    let (backend, renewd) = start().await;
    let request = "GET /answer/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let body = format!("[\"{}\"]", long());
    let (_, answer) = asked(&backend, &renewd, request, &sized(&body)).await;
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "{head}"
    );
    let (rest, token) = taken_out(rest);
    assert_eq!(rest, "[\"@\"]");
    is_short(&token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_gets_its_answer_with_trailers_that_still_hold() {
    let (backend, renewd) = start().await;
    let stream = TcpStream::connect(renewd.public).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://app.test/answer/1").header("te", "trailers");
    poll_fn(|context| client.poll_ready(context)).await.unwrap();
    let (response, _) = client
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    let mut server = backend.accept_request().await;
    let body = format!("{{\"token\":\"{}\"}}", long());
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-timing, digest\r\n\r\n";
    let mut answer = [head.as_bytes().to_vec(), chunked(body.as_bytes(), 40)].concat();
    answer.truncate(answer.len() - 2);
    answer.extend_from_slice(b"x-timing: 5\r\ndigest: x\r\n\r\n");
    server.send(answer).await;
    let response = within("a response", response).await.unwrap();
    assert_eq!(response.headers().get("content-length"), None);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut stream = response.into_body();
    let mut read = Vec::new();
    while let Some(data) = within("the body", stream.data()).await {
        let data: Bytes = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        read.extend_from_slice(&data);
    }
    let (rest, token) = taken_out(std::str::from_utf8(&read).unwrap());
    assert_eq!(rest, "{\"token\":\"@\"}");
    is_short(&token);
    let trailers = within("trailers", stream.trailers())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(trailers["x-timing"], "5");
    assert_eq!(trailers.get("digest"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_cannot_be_read_is_not_passed_on() {
    let (backend, renewd) = start().await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let (_, answer) = asked(&backend, &renewd, &closing("/answer/1"), answer.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains("\"upstream_invalid\""), "{answer}");
    }
    let other = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc";
    let (_, other) = asked(&backend, &renewd, &closing("/other"), other.as_bytes()).await;
    assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    let empty = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n";
    let (_, empty) = asked(&backend, &renewd, &closing("/answer/1"), empty.as_bytes()).await;
    assert!(empty.starts_with("HTTP/1.1 200 "), "{empty}");
    let errors = "renewd_reissue_total{route=\"/answer/*\",outcome=\"error\"}";
    assert_eq!(renewd.metric(errors), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_request_gets_the_head_that_get_would() {
    let (backend, renewd) = start().await;
    let statuses = async |answer: &str| {
        let mut heads = Vec::new();
        for (method, body) in [("GET", "abc"), ("HEAD", "")] {
            let request = closing("/answer/1").replacen("GET", method, 1);
            let has_body = answer.contains("Length: 3") || answer.contains("chunked");
            let body = match (has_body, answer.contains("chunked")) {
                (true, true) if method == "GET" => "3\r\nabc\r\n0\r\n\r\n",
                (true, false) => body,
                _ => "",
            };
            let answer = format!("{answer}\r\n{body}");
            let (_, told) = asked(&backend, &renewd, &request, answer.as_bytes()).await;
            let (head, content) = told.split_once("\r\n\r\n").unwrap();
            assert!(method == "GET" || content.is_empty(), "{told}");
            let without_id = head.lines().filter(|line| {
                let line = line.to_ascii_lowercase();
                // These fields differ with the request and the second.
                !line.starts_with("x-request-id:") && !line.starts_with("date:")
            });
            heads.push(without_id.map(str::to_owned).collect::<Vec<_>>());
        }
        let status = heads[0][0][9..12].to_owned();
        assert_eq!(heads[0][0], heads[1][0], "{answer}");
        if status == "502" {
            assert_eq!(heads[0], heads[1], "{answer}");
        }
        status
    };
    for (status, answer) in [
        (
            "502",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n",
        ),
        (
            "502",
            "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "502",
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n",
        ),
        (
            "200",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n",
        ),
        ("200", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"),
        (
            "204",
            "HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n",
        ),
        (
            "304",
            "HTTP/1.1 304 Not Modified\r\nContent-Encoding: gzip\r\n",
        ),
    ] {
        assert_eq!(statuses(answer).await, status, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_stay_without_one() {
    let (backend, renewd) = start().await;
    for (method, answer, status) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 500\r\nETag: x\r\n\r\n",
            "200",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "304"),
    ] {
        let request = closing("/answer/1").replacen("GET", method, 1);
        let (_, answer) = asked(&backend, &renewd, &request, answer.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert_eq!(body, "");
        assert!(!head.to_ascii_lowercase().contains("etag"), "{head}");
        // The test looks for the field and not for the number, because a request's id may have any digits.
        assert!(!head.to_ascii_lowercase().contains("length: 500"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_or_short_or_over_stays_byte_for_byte() {
    let (backend, renewd) = start().await;
    let (v7, v6) = (TokenFormat::V007, TokenFormat::V006);
    let mut body = format!("{{\"channel\":\"{CHANNEL}\",\"tokens\":[");
    for stays in [
        token(v7, STRANGER, 0, DAY),
        token(v6, STRANGER, 0, DAY),
        token(v7, APP_CERTIFICATE, 0, 3600),
        token(v6, APP_CERTIFICATE, 0, 3600),
        token(v7, APP_CERTIFICATE, 7200, 3600),
        token(v6, APP_CERTIFICATE, 7200, 3600),
        cut_off(&long()),
        cut_off(&token(v6, APP_CERTIFICATE, 0, DAY)),
        "007".to_owned(),
        "007eJxTYEh4".to_owned(),
        format!("006{APP_ID}"),
    ] {
        write!(body, "\"{stays}\",").unwrap();
    }
    body.push_str("1]}");
    let (_, answer) = asked(&backend, &renewd, &closing("/answer/1"), &sized(&body)).await;
    assert_eq!(content(&answer), body);
    let counted = |outcome: &str| {
        renewd.metric(&format!(
            "renewd_reissue_total{{route=\"/answer/*\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(counted("short"), 4.0);
    assert_eq!(counted("replaced"), 0.0);
    // Two tokens are a stranger's with this App ID, and two aren't whole.
    assert_eq!(counted("error"), 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_006_token_is_named_by_what_stands_around_it_or_was_asked_for() {
    let (backend, renewd) = start().await;
    let old = token(TokenFormat::V006, APP_CERTIFICATE, 0, DAY);
    let far = "x".repeat(20_000);
    for (path, body, named) in [
        (
            "/answer/1",
            format!("{{\"channelName\":\"{CHANNEL}\",\"token\":\"{old}\"}}"),
            true,
        ),
        (
            "/answer/1",
            format!("{{\"token\":\"{old}\",\"channelName\":\"{CHANNEL}\"}}"),
            true,
        ),
        ("/answer/live%5Fshow/token", format!("\"{old}\""), true),
        ("/answer/1?channel=live_show", format!("\"{old}\""), true),
        (
            "/answer/1",
            format!("{{\"token\":\"{old}\",\"a\":\"{far}\",\"b\":\"{CHANNEL}\"}}"),
            false,
        ),
        ("/answer/1", format!("{{\"token\":\"{old}\"}}"), false),
    ] {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = [head.to_vec(), chunked(body.as_bytes(), 100)].concat();
        let (_, answer) = asked(&backend, &renewd, &closing(path), &answer).await;
        let answered = content(&answer);
        if !named {
            assert_eq!(answered, body);
            continue;
        }
        let (_, rest) = answered.split_once("\"006").unwrap();
        let new = format!("006{}", rest.split_once('"').unwrap().0);
        assert_eq!(answered.replace(&new, &old), body);
        let Ok(Parsed::V006(parsed)) = parse::parse(&new) else {
            panic!("{new}");
        };
        let certificate = Secret::new(APP_CERTIFICATE.into());
        assert!(parsed.verify(&certificate, CHANNEL, "77"));
        let left = u64::from(parsed.expires_at) - now();
        assert!((3570..=3600).contains(&left), "{left}");
        assert!(
            parsed
                .privileges
                .values()
                .all(|end| *end == parsed.expires_at)
        );
    }
    let errors = "renewd_reissue_total{route=\"/answer/*\",outcome=\"error\"}";
    assert_eq!(renewd.metric(errors), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_leaves_at_once_with_its_token_replaced() {
    let (backend, renewd) = start().await;
    let mut client = connect(&renewd).await;
    client.send(get("/answer/events")).await;
    let mut server = backend.accept_request().await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await;
    for number in 0..3 {
        let event = format!("data: {{\"n\":{number},\"token\":\"{}\"}}\n\n", long());
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        server.send(chunk).await;
        let received = client.until("}\n\n").await;
        let (_, token) = taken_out(&received);
        is_short(&token);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_the_backend_breaks_off_is_cut_and_gives_no_half_token() {
    let (backend, renewd) = start().await;
    let mut client = connect(&renewd).await;
    client.send(get("/answer/1")).await;
    let mut server = backend.accept_request().await;
    let long = long();
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n[1,\"{}",
            &long[..60]
        ))
        .await;
    client.until("[1,").await;
    drop(server);
    let rest = client.rest().await;
    assert!(
        !rest.contains("007") && !rest.contains("0\r\n\r\n"),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_pass_in_bounded_memory() {
    const MEGABYTE: usize = 1024 * 1024;
    let (backend, renewd) = start().await;
    let filling = format!("[\"{}\",", "0123 \\\"006x\\\" ".repeat(1000));
    let mut block = filling.repeat(MEGABYTE / filling.len());
    write!(block, "\"{}\",", long()).unwrap();
    let mut client = connect(&renewd).await;
    client.send(closing("/answer/1")).await;
    let mut server = backend.accept_request().await;
    let total = 100 * block.len();
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"
        ))
        .await;
    let sent = block.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..100 {
            server.send(&sent).await;
        }
        server
    });
    client.head().await;
    // A token's length says nothing of its times, so that blocks stay where they were.
    let expected = taken_out(&block).0;
    let (mut received, mut blocks, mut most) = (Vec::new(), 0, 0);
    loop {
        let line = client.until("\r\n").await;
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        received.append(&mut client.exactly(size).await);
        client.until("\r\n").await;
        if size == 0 {
            break;
        }
        while received.len() >= block.len() {
            let rest = received.split_off(block.len());
            let text = String::from_utf8(std::mem::replace(&mut received, rest)).unwrap();
            let (around, token) = taken_out(&text);
            assert!(around == expected);
            is_short(&token);
            blocks += 1;
            most = most.max(resident_kib(&renewd));
        }
    }
    within("sending", sending).await.unwrap();
    assert_eq!((blocks, received.len()), (100, 0));
    assert!(most < 60 * 1024, "{most} KiB");
}

fn resident_kib(renewd: &Renewd) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", renewd.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_before_a_token_leaves_while_the_account_is_looked_up() {
    let (backend, accounts) = (Backend::start().await, Backend::start().await);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        backend: Some(backend.address()),
        tables: RULE.to_owned(),
        ..Settings::default()
    };
    write_files(directory.path(), &settings);
    let asked = format!(
        "source = \"http\"\nurl = \"http://{}/me\"\n",
        accounts.address()
    );
    let text = support::renewd::configuration(&settings).replace(
        "[accounts]\nsource = \"none\"",
        &format!("[accounts]\n{asked}"),
    );
    private_file(&directory.path().join("config.toml"), &text);
    let renewd = Renewd::start_in(directory, &[], |_| {});
    for (subject, verdict, given) in [
        (
            "good",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            true,
        ),
        (
            "bad",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 35\r\n\r\n{\"message\":\"Your account suspended\"}",
            false,
        ),
    ] {
        let mut client = connect(&renewd).await;
        let bearer = login(subject);
        client
            .send(format!(
                "GET /answer/1 HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        let mut server = backend.accept_request().await;
        server
            .send(sized(&format!(
                "{{\"a\":1,\"token\":\"{}\",\"b\":2}}",
                long()
            )))
            .await;
        // The source has not even been connected to.
        client.until("{\"a\":1,\"token\":").await;
        let mut source = accounts.accept().await;
        let question = source.head().await;
        assert!(question.contains(&bearer), "{question}");
        source.send(verdict).await;
        let rest = client.rest().await;
        assert_eq!(rest.contains("\"007"), given, "{rest}");
        assert_eq!(rest.contains("\"\""), !given, "{rest}");
        assert!(rest.contains(",\"b\":2}"), "{rest}");
    }
    let suspended = "renewd_token_requests_total{endpoint=\"reissue\",role=\"subscriber\",outcome=\"account_suspended\",class=\"denied\"}";
    assert_eq!(renewd.metric(suspended), 1.0);
    let looked_up = "renewd_source_lookups_total{source=\"accounts\",outcome=\"miss\"}";
    assert_eq!(renewd.metric(looked_up), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_says_nothing_costs_no_more_than_its_time_and_a_token_only_where_a_name_is_wanted()
 {
    let (backend, accounts) = (Backend::start().await, Backend::start().await);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        backend: Some(backend.address()),
        tables: format!(
            "[[reissue.rule]]\npath = \"/answer/named\"\nrequire_auth = true\n{RULE}[decision]\ntimeout = \"300ms\"\n"
        ),
        ..Settings::default()
    };
    write_files(directory.path(), &settings);
    let asked = format!(
        "source = \"http\"\nurl = \"http://{}/me\"\n",
        accounts.address()
    );
    let text = support::renewd::configuration(&settings).replace(
        "[accounts]\nsource = \"none\"",
        &format!("[accounts]\n{asked}"),
    );
    private_file(&directory.path().join("config.toml"), &text);
    let renewd = Renewd::start_in(directory, &[], |_| {});
    let body = format!("[\"{}\",3]", long());
    for (path, given) in [("/answer/1", true), ("/answer/named", false)] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            login("anyone")
        );
        let (_, answer) = within(
            "an answer without the source",
            self::asked(&backend, &renewd, &request, &sized(&body)),
        )
        .await;
        let answered = content(&answer);
        if given {
            let (rest, token) = taken_out(&answered);
            assert_eq!(rest, "[\"@\",3]");
            is_short(&token);
        } else {
            assert_eq!(answered, "[\"\",3]");
        }
        let outcome = if given { "replaced" } else { "error" };
        let route = if given { "/answer/*" } else { "/answer/named" };
        let counted = format!("renewd_reissue_total{{route=\"{route}\",outcome=\"{outcome}\"}}");
        assert_eq!(renewd.metric(&counted), 1.0);
    }
    drop(accounts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_series_of_a_rule_come_and_go_with_it() {
    let (_backend, renewd) = start().await;
    let has = |page: &str, route: &str| {
        page.contains(&format!("{{route=\"{route}\",outcome=\"short\"}} 0"))
    };
    assert!(has(&renewd.metrics(), "/answer/*"));
    let file = renewd.file("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    private_file(&file, &text.replace("/answer/*", "/other/{id}"));
    renewd.signal(rustix::process::Signal::HUP);
    renewd.eventually("the new rule's series", |renewd| {
        has(&renewd.metrics(), "/other/{id}")
    });
    renewd.eventually("the end of the old one's", |renewd| {
        !has(&renewd.metrics(), "/answer/*")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoys_token_becomes_one_that_agora_takes_and_a_former_certificates_counts_as_ours() {
    const DECOY: &str = "00000000000000000000000000000002";
    const FORMER: &str = "00000000000000000000000000000001";
    let backend = Backend::start().await;
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        backend: Some(backend.address()),
        tables: RULE.to_owned(),
        ..Settings::default()
    };
    write_files(directory.path(), &settings);
    let certificates = format!(
        "[agora]\nprevious_certificate = \"{FORMER}\"\nbackend_certificate = \"{DECOY}\"\n"
    );
    let text = support::renewd::configuration(&settings).replace("[agora]\n", &certificates);
    private_file(&directory.path().join("config.toml"), &text);
    let renewd = Renewd::start_in(directory, &[], |_| {});
    let v7 = TokenFormat::V007;
    for (token, expire) in [
        (token(v7, DECOY, 0, DAY), Some(3600)),
        (token(v7, DECOY, 0, 900), Some(900)),
        (token(v7, DECOY, 7200, 3600), None),
        (token(v7, FORMER, 0, DAY), Some(3600)),
        (token(v7, FORMER, 0, 900), None),
    ] {
        let body = format!("[\"{token}\"]");
        let (_, answer) = asked(&backend, &renewd, &closing("/answer/1"), &sized(&body)).await;
        let answered = content(&answer);
        let Some(expire) = expire else {
            assert_eq!(answered, body);
            continue;
        };
        let new = read(&taken_out(&answered).1);
        assert!(new.verify(&Secret::new(APP_CERTIFICATE.into())));
        // The clock may have gone on since the old one was minted.
        assert!(
            (expire - 30..=expire).contains(&new.token.expire),
            "{new:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_in_a_cookie_names_the_banned_viewer() {
    let (backend, renewd) = start_with(&format!("{RULE}[auth]\ncookie = \"session\"\n")).await;
    for (subject, given) in [("troll", false), ("viewer", true)] {
        let request = format!(
            "GET /answer/1 HTTP/1.1\r\nHost: app.test\r\nCookie: a=b; session={}\r\nConnection: close\r\n\r\n",
            login(subject)
        );
        let body = format!("[\"{}\"]", long());
        let (_, answer) = asked(&backend, &renewd, &request, &sized(&body)).await;
        assert_eq!(content(&answer) != "[\"\"]", given, "{subject}");
    }
}

/// An answer of this type, in pieces of so many bytes.
fn typed(media_type: &str, body: &str, size: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    [head.into_bytes(), chunked(body.as_bytes(), size)].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withheld_token_is_null_where_json_may_have_one_and_else_an_empty_string() {
    let rules = "[[reissue.rule]]\npath = \"/answer/typed\"\nrequire_auth = true\nwithheld = \"empty\"\n\
        [[reissue.rule]]\npath = \"/answer/*\"\nrequire_auth = true\n";
    let (backend, renewd) = start_with(rules).await;
    let json = "application/json; charset=utf-8";
    let far = " ".repeat(300);
    let cases = [
        (
            "/answer/1",
            json,
            "{\"a\":\"@\",\"b\":[\"@\"]}",
            "{\"a\":null,\"b\":[null]}",
        ),
        ("/answer/1", json, "\"@\"", "null"),
        (
            "/answer/1",
            json,
            "{\"a\" : \"@\"\r\n\t }",
            "{\"a\" : null\r\n\t }",
        ),
        (
            "/answer/1",
            json,
            "{\"@\":1,\"@\" \n : \"@\"}",
            "{\"\":1,\"\" \n : null}",
        ),
        // Bytes so far behind the token may be anything.
        (
            "/answer/1",
            json,
            &format!("{{\"@\"{far}:1}}"),
            &format!("{{\"\"{far}:1}}"),
        ),
        // Inside a longer string there is no place for null.
        (
            "/answer/1",
            json,
            "{\"a\":\"Bearer @\",\"b\":\"https://x.example/?token=@&uid=1\",\"c\":\"@\"}",
            "{\"a\":\"Bearer \",\"b\":\"https://x.example/?token=&uid=1\",\"c\":null}",
        ),
        (
            "/answer/1",
            json,
            r#"{"a":"{\"token\":\"@\"}"}"#,
            r#"{"a":"{\"token\":\"\"}"}"#,
        ),
        ("/answer/1", "application/problem+json", "[\"@\"]", "[null]"),
        ("/answer/1", "text/html", "<a b=\"@\">", "<a b=\"\">"),
        ("/answer/1", "text/javascript", "x=\"@\"", "x=\"\""),
        (
            "/answer/1",
            "text/event-stream",
            "data: {\"a\":\"@\"}\n\n",
            "data: {\"a\":\"\"}\n\n",
        ),
        ("/answer/typed", json, "{\"a\":\"@\"}", "{\"a\":\"\"}"),
    ];
    for (path, media_type, body, expected) in cases {
        for size in [1, 7, 10_000] {
            let body = body.replace('@', &long());
            let answer = typed(media_type, &body, size);
            let (_, answer) = asked(&backend, &renewd, &closing(path), &answer).await;
            assert_eq!(content(&answer), expected, "{media_type} {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_every_channel_is_withheld_however_short_it_is() {
    let (backend, renewd) = start().await;
    let signer = Signer::new(APP_ID, &Secret::new(APP_CERTIFICATE.into())).unwrap();
    for (channel, account, lifetime, given) in [
        ("*", "77", DAY, false),
        ("*", "77", 600, false),
        ("live_*", "77", DAY, false),
        ("", "77", DAY, false),
        (CHANNEL, "*", DAY, false),
        (CHANNEL, "", DAY, true),
    ] {
        for format in [TokenFormat::V007, TokenFormat::V006] {
            let grant = RtcGrant {
                channel,
                user: if account.is_empty() {
                    User::Uid(0)
                } else {
                    User::Account(account)
                },
                role: Role::Subscriber,
                lifetime,
                issued_at: u32::try_from(now()).unwrap(),
                salt: 9,
            };
            let token = rtc_token(format, &signer, &grant).unwrap();
            // A 006 token's names stand beside it.
            let body = format!("[\"{channel}\",\"{account}\",\"{token}\"]");
            let answer = typed("application/json", &body, 10_000);
            let (_, answer) = asked(&backend, &renewd, &closing("/answer/1"), &answer).await;
            let withheld = body.replace(&format!("\"{token}\""), "null");
            assert_eq!(
                content(&answer) != withheld,
                given,
                "{format:?} {channel} {account}"
            );
        }
    }
}

/// The text between these in an answer.
fn between<'a>(answer: &'a str, before: &str, behind: &str) -> &'a str {
    let inner = answer.strip_prefix(before);
    let inner = inner.and_then(|rest| rest.strip_suffix(behind));
    inner.unwrap_or_else(|| panic!("{answer}"))
}

/// How a token is written inside something longer.
type Spell = fn(&str) -> String;

/// The token is JSON in JSON, this many times.
fn deeply(token: &str, deep: u8) -> String {
    let mut written = format!("{{\"agoraToken\":\"{token}\"}}");
    for _ in 0..deep {
        written = format!(
            "{{\"payload\":{}}}",
            serde_json::to_string(&written).unwrap()
        );
    }
    written
}

fn encoded(token: &str) -> String {
    form_urlencoded::byte_serialize(token.as_bytes()).collect()
}

fn twice_encoded(token: &str) -> String {
    encoded(&encoded(token))
}

fn plain(token: &str) -> String {
    token.to_owned()
}

/// The text around a token that more base64 follows, and how the token is written there.
const FOLLOWED: [(&str, &str, Spell); 5] = [
    ("{\"url\":\"https://a.example/join/", "/live_a\"}", plain),
    (
        "{\"url\":\"https://a.example/join/",
        "%2Flive_a\"}",
        encoded,
    ),
    ("{\"agoraToken\":\"", "7\"}", plain),
    ("{\"form\":\"t=", "+live\"}", plain),
    ("<a href=\"/join/", "&#x2F;live_a\">join</a>", plain),
];

/// The text before a token, the text behind it, and how it is spelled in between.
const SHAPES: [(&str, &str, Spell); 13] = [
    ("{\"agoraToken\":\"", "=\"}", plain),
    (
        "{\"agoraToken\":\"007eJx007eJx007eJx007eJx007eJx007eJx",
        "\"}",
        plain,
    ),
    (
        "{\"joinUrl\":\"https://app.example.com/join?token=",
        "&channel=live_a\"}",
        encoded,
    ),
    (
        "{\"joinUrl\":\"https://app.example.com/join?channel=live_a&token=",
        "\"}",
        plain,
    ),
    (
        "{\"to\":\"/login?to=%2Fjoin%3Ftoken%3D",
        "%26a\"}",
        twice_encoded,
    ),
    ("{\"header\":\"Bearer ", "\"}", plain),
    ("{\"agoraToken\":\" ", " \"}", plain),
    ("{\"agoraToken\":\"", "\\n\"}", plain),
    ("{\"agoraToken\":\"\\r\\n", "\"}", plain),
    ("<script>join('", "')</script>", plain),
    ("<a data-token=", ">join</a>", plain),
    ("token: ", "\n", plain),
    ("", "", plain),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_inside_something_longer_is_replaced_as_it_is_written_there() {
    let (backend, renewd) = start().await;
    let ask = async |body: &str, size: usize| {
        let answer = typed("application/json", body, size);
        let (_, answer) = asked(&backend, &renewd, &closing("/answer/1"), &answer).await;
        content(&answer)
    };
    for size in [1, 2, 7, 64, 10_000] {
        for (before, behind, spell) in SHAPES {
            let body = format!("{before}{}{behind}", spell(&long()));
            let answered = ask(&body, size).await;
            let written = between(&answered, before, behind);
            let decoded = written.replace("%25", "%").replace("%2B", "+");
            let token = decoded.replace("%2F", "/").replace("%3D", "=");
            is_short(&token);
            assert_eq!(written, spell(&token), "{before} {size}");
        }
        for deep in 1..4 {
            let body = deeply(&long(), deep);
            let answered = ask(&body, size).await;
            let start = answered.find("007").unwrap();
            let token = answered[start..].split(['\\', '"']).next().unwrap();
            is_short(token);
            assert_eq!(answered, deeply(token, deep));
        }
        let body = format!("\"{} {}\"", long(), long());
        let answered = ask(&body, size).await;
        let (first, second) = between(&answered, "\"", "\"").split_once(' ').unwrap();
        is_short(first);
        is_short(second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_more_base64_follows_stays_and_counts_as_an_error() {
    let (backend, renewd) = start().await;
    let mut errors = 0.0;
    for size in [1, 7, 10_000] {
        for (before, behind, spell) in FOLLOWED {
            let body = format!("{before}{}{behind}", spell(&long()));
            let answer = typed("application/json", &body, size);
            let (_, answer) = asked(&backend, &renewd, &closing("/answer/1"), &answer).await;
            assert_eq!(content(&answer), body, "{size}");
            errors += 1.0;
            let series = "renewd_reissue_total{route=\"/answer/*\",outcome=\"error\"}";
            assert_eq!(renewd.metric(series), errors, "{before}{behind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replaced_or_seen_is_counted_and_told_once_a_route() {
    let rules = format!("[[reissue.rule]]\npath = \"/other\"\n{RULE}");
    let (backend, renewd) = start_with(&rules).await;
    let long = long();
    let body = format!("{{\"agoraToken\":\"{long}\"}}");
    let marked = format!("\u{feff}{body}");
    let utf_16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let cut = format!("{{\"agoraToken\":\"{}\"}}", cut_off(&long));
    let errors = |route: &str| {
        renewd.metric(&format!(
            "renewd_reissue_total{{route=\"{route}\",outcome=\"error\"}}"
        ))
    };
    let mut count = 0.0;
    for unseen in [utf_16, utf_16_without_a_mark(&body), gzip, cut.into_bytes()] {
        for size in [1, 10_000] {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            let answer = [head.to_vec(), chunked(&unseen, size)].concat();
            let mut client = connect(&renewd).await;
            client.send(closing("/answer/1")).await;
            let mut server = backend.accept_request().await;
            server.send(&answer).await;
            client.head().await;
            let mut received = Vec::new();
            loop {
                let line = client.until("\r\n").await;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                received.append(&mut client.exactly(size).await);
                client.until("\r\n").await;
                if size == 0 {
                    break;
                }
            }
            assert_eq!(received, unseen);
            count += 1.0;
            assert_eq!(errors("/answer/*"), count);
        }
    }
    assert_eq!(errors("/other"), 0.0);
    let is_complaint =
        |line: &serde_json::Value| line["route"] == "/answer/*" && line["why"].is_string();
    let first = renewd.log().wait("a complaint", |line| {
        is_complaint(line).then(|| line.clone())
    });
    assert!(first["why"].as_str().unwrap().contains("UTF-16"), "{first}");
    assert!(!first.to_string().contains(&long[..12]), "{first}");
    // Another route has a line of its own.
    asked(
        &backend,
        &renewd,
        &closing("/other"),
        &sized(&format!("\"{}\"", cut_off(&long))),
    )
    .await;
    renewd.log().wait("the other route's", |line| {
        (line["route"] == "/other").then_some(())
    });
    let lines = renewd.log().lines();
    assert_eq!(lines.iter().filter(|line| is_complaint(line)).count(), 1);
}

fn utf_16_without_a_mark(body: &str) -> Vec<u8> {
    body.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A request for a list with this login.
fn closing_as(login: &str) -> String {
    let close = "Connection: close\r\n\r\n";
    format!(
        "GET /answer/list HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {login}\r\n{close}"
    )
}

#[tokio::test]
async fn a_subject_that_was_handed_a_list_is_a_holder_of_each_channel_in_it() {
    let limit =
        "[rate_limit]\nsubject = \"off\"\nchannel = { requests = 1, per = \"1h\", burst = 1 }\n";
    let (backend, renewd) = start_with(&format!("{RULE}{limit}")).await;
    let asks = |subject: &str, uid: u32| {
        let body = format!(r#"{{"channelName":"{CHANNEL}","uid":{uid},"role":"subscriber"}}"#);
        renewd
            .post("/api/live/token", &login(subject), &body)
            .status
    };
    assert_eq!((asks("first", 1), asks("second", 2)), (200, 429));
    let list = sized(&format!("[\"{}\"]", long()));
    for subject in ["viewer", "watcher", "troll"] {
        let (_, answer) = asked(&backend, &renewd, &closing_as(&login(subject)), &list).await;
        assert_eq!(answer.contains("\"007"), subject != "troll", "{answer}");
    }
    asked(&backend, &renewd, &closing("/answer/list"), &list).await;
    assert_eq!((asks("viewer", 3), asks("troll", 4)), (200, 429));
    // No session is opened by a list.
    let sessions = renewd.ask_admin("GET", "/v1/sessions?subject=watcher", "");
    assert_eq!(sessions.json()["sessions"].as_array().unwrap().len(), 0);
    // The streams source said yes to them when the list was handed out, and says nothing now.
    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    renewd.eventually("the source is down", |renewd| {
        renewd.whole(r#"renewd_source_up{source="streams"}"#) == 0
    });
    assert_eq!((asks("watcher", 5), asks("second", 6)), (200, 429));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_phone_that_is_trusted_while_accounts_are_silent_takes_nothing_from_the_new_one() {
    let accounts = Scripted::start();
    accounts.answer(200, "{}");
    let backend = Backend::start().await;
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address()),
        jwt: "session_claim = \"sid\"".to_owned(),
        tables: format!("{RULE}trust_publisher = true\n"),
        sources: Some(format!(
            "[accounts]\nsource = \"http\"\nurl = \"{}\"\n\n[streams]\nsource = \"file\"\nfile = \"streams.toml\"\n",
            accounts.url("/me")
        )),
        ..Settings::default()
    });
    let phone = |session: &str| {
        let claims = serde_json::json!({"sub": "owner", "sid": session, "exp": now() + 3600});
        support::renewd::jwt(&claims)
    };
    let asks = |session: &str| {
        let body = format!(r#"{{"channelName":"{CHANNEL}","uid":77,"role":"publisher"}}"#);
        renewd
            .post("/api/live/token", &phone(session), &body)
            .status
    };
    assert_eq!(asks("new"), 200);
    accounts.close();
    let publishers = token_for(Role::Publisher, TokenFormat::V007, APP_CERTIFICATE, 0, DAY);
    let list = sized(&format!("[\"{publishers}\"]"));
    let (_, answer) = asked(&backend, &renewd, &closing_as(&phone("old")), &list).await;
    is_short(&taken_out(&content(&answer)).1);
    assert_eq!((asks("old"), asks("new")), (503, 200));
}

/// Asks for an answer with this token in it, with a login or without; the token that comes back, or `null`.
async fn token_in_answer(
    backend: &Backend,
    renewd: &Renewd,
    login: Option<&str>,
    token: &str,
) -> String {
    let field = login.map_or_else(String::new, |login| {
        format!("Authorization: Bearer {login}\r\n")
    });
    let request =
        format!("GET /answer/1 HTTP/1.1\r\nHost: app.test\r\n{field}Connection: close\r\n\r\n");
    let body = format!("{{\"token\":\"{token}\"}}");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (_, answer) = asked(backend, renewd, &request, answer.as_bytes()).await;
    let content = content(&answer);
    let token = content.strip_prefix("{\"token\":").unwrap();
    token.trim_end_matches('}').to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_channel_user_or_caller_gets_no_token_in_an_answer_however_short_it_is() {
    let (backend, renewd) = start().await;
    let short = token(TokenFormat::V007, APP_CERTIFICATE, 0, 600);
    let (ann, bob) = (login("ann"), login("bob"));
    for (target, refuses) in [
        ("\"subject\":\"ann\"", [true, false, false]),
        ("\"channel\":\"live_show\"", [true, true, true]),
        ("\"channel\":\"live_show\",\"uid\":77", [true, true, true]),
        (
            "\"channel\":\"live_show\",\"uid\":78",
            [false, false, false],
        ),
        (
            "\"channel\":\"live_show\",\"subject\":\"bob\"",
            [false, true, false],
        ),
        ("\"channel\":\"another\"", [false, false, false]),
    ] {
        let body = format!("{{{target},\"for\":\"1h\"}}");
        let told = renewd.ask_admin("POST", "/v1/revocations", &body);
        assert_eq!(told.status, 201, "{target}");
        for token in [&short, &long()] {
            let callers = [Some(&*ann), Some(&*bob), None];
            for (caller, refused) in callers.into_iter().zip(refuses) {
                let given = token_in_answer(&backend, &renewd, caller, token).await;
                assert_eq!(given == "null", refused, "{target}: {given}");
            }
        }
        let id = told.json()["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/revocations/{id}");
        assert_eq!(renewd.ask_admin("DELETE", &path, "").status, 200);
    }
    let withheld = "renewd_token_requests_total{endpoint=\"reissue\",role=\"subscriber\",outcome=\"revoked\",class=\"denied\"}";
    assert_eq!(renewd.metric(withheld), 16.0);
}
