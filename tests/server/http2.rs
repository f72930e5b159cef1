//! HTTP/2 from clients, HTTP/1.1 to the backend: the messages on either side, the waits and ends of streams, and the
//! stop.

use crate::support;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::support::plane::{Backend, Wire, ok, within};
use crate::support::renewd::{Renewd, Settings, login};
use crate::support::tls::{Authority, connect};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use renewd::io::tls::HTTP2;
use renewd::io::transport::Transport;
use rustix::process::Signal;
use tokio::net::TcpStream;

fn settings(backend: &Backend, server: &str, tables: &str) -> Settings {
    Settings {
        backend: Some(backend.address()),
        server: format!("h2c = true\n{server}"),
        tables: tables.to_owned(),
        ..Settings::default()
    }
}

async fn start(server: &str, tables: &str) -> (Backend, Renewd) {
    let backend = Backend::start().await;
    let renewd = Renewd::start(&settings(&backend, server, tables));
    (backend, renewd)
}

/// A client by prior knowledge, with the window that RFC 9113 gives it.
async fn client(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    over(Transport::Tcp(stream)).await
}

async fn over(transport: Transport) -> SendRequest<Bytes> {
    let (client, connection) = within("SETTINGS", h2::client::handshake(transport))
        .await
        .unwrap();
    tokio::spawn(async move {
        // The streams show every error.
        let _ = connection.await;
    });
    client
}

fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://live.example:81{path}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

async fn send(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    poll_fn(|context| client.poll_ready(context)).await.unwrap();
    client.send_request(request, end).unwrap()
}

async fn answered(response: ResponseFuture) -> Response<RecvStream> {
    within("a response", response).await.unwrap()
}

/// The whole body and its trailers, giving the window back as it is read.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    within("the body", async {
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            bytes.extend_from_slice(&data);
            body.flow_control().release_capacity(data.len())?;
        }
        Ok((bytes, body.trailers().await?.unwrap_or_default()))
    })
    .await
}

/// Sends within the window that there is.
async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await;
        let piece = bytes.split_to(room.unwrap().unwrap().min(bytes.len()));
        stream.send_data(piece, end && bytes.is_empty()).unwrap();
    }
}

/// One request without a body, and what the backend saw and said.
async fn exchange(
    client: &mut SendRequest<Bytes>,
    backend: &Backend,
    request: Request<()>,
    answer: &str,
) -> (String, Response<RecvStream>, Wire) {
    let (response, _) = send(client, request, true).await;
    let mut server = backend.accept().await;
    let head = server.head().await;
    server.send(answer).await;
    (head, answered(response).await, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_reaches_the_backend_as_http_1_with_its_host_and_whole_cookie() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let mut asked = request("GET", "/a//b?c=%2F");
    for (name, value) in [
        ("accept", "x"),
        ("cookie", "a=1"),
        ("te", "trailers"),
        ("x-twice", "1"),
        ("cookie", "b=2"),
        ("x-twice", "2"),
        ("x-forwarded-for", "203.0.113.7"),
    ] {
        asked.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
        Set-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let (head, response, _server) = exchange(&mut client, &backend, asked, answer).await;
    let lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    let (id, before) = lines.split_last().unwrap();
    assert_eq!(
        before,
        [
            "GET /a//b?c=%2F HTTP/1.1",
            "host: live.example:81",
            "accept: x",
            "cookie: a=1; b=2",
            "x-twice: 1",
            "x-twice: 2",
            "te: trailers",
            "connection: TE",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: live.example:81",
        ]
    );
    assert!(id.starts_with("x-request-id: "), "{id}");
    let names: Vec<&str> = response
        .headers()
        .keys()
        .map(http::HeaderName::as_str)
        .collect();
    assert_eq!(names, ["set-cookie", "x-request-id"]);
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(read(response.into_body()).await.unwrap().0, b"hi");
}

/// A method, the backend's answer, and what the client gets of it: status, `content-length`, body.
const ANSWERED: [(&str, &str, u16, Option<&str>, &str); 8] = [
    (
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        200,
        Some("2"),
        "hi",
    ),
    (
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        200,
        Some("9"),
        "",
    ),
    ("DELETE", "HTTP/1.1 204 No Content\r\n\r\n", 204, None, ""),
    // curl and Node reset a 204 with a length.
    (
        "PUT",
        "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
        204,
        None,
        "",
    ),
    (
        "GET",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        304,
        None,
        "",
    ),
    (
        "GET",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        200,
        Some("1"),
        "a",
    ),
    (
        "PATCH",
        "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        500,
        Some("0"),
        "",
    ),
    (
        "BREW",
        "HTTP/1.0 418 Teapot\r\n\r\nto the end",
        418,
        None,
        "to the end",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_and_status_passes_with_the_body_it_has() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    for (method, answer, status, length, body) in ANSWERED {
        let asked = request(method, "/");
        let (head, response, server) = exchange(&mut client, &backend, asked, answer).await;
        drop(server);
        assert!(head.starts_with(&format!("{method} / HTTP/1.1\r\n")));
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert_eq!(response.status(), status, "{answer}");
        let found = response.headers().get("content-length");
        assert_eq!(
            found.map(|value| value.to_str().unwrap()),
            length,
            "{answer}"
        );
        let read = read(response.into_body()).await.unwrap().0;
        assert_eq!(read, body.as_bytes(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_framed_as_the_client_announced_them_and_trailers_pass_both_ways() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let mut sized = request("PUT", "/sized");
    sized.headers_mut().insert("content-length", 5.into());
    let (response, mut body) = send(&mut client, sized, false).await;
    let mut server = backend.accept().await;
    let head = server.head().await;
    assert!(head.contains("\r\ncontent-length: 5\r\n") && !head.contains("chunked"));
    // Streams: the first bytes arrive before the last are sent.
    body.send_data("he".into(), false).unwrap();
    assert_eq!(server.exactly(2).await, b"he");
    body.send_data("llo".into(), true).unwrap();
    assert_eq!(server.exactly(3).await, b"llo");
    server.send(ok("a")).await;
    assert_eq!(answered(response).await.status(), 200);

    for method in ["POST", "GET"] {
        let mut chunked = request(method, "/chunked");
        chunked
            .headers_mut()
            .insert("te", "trailers".parse().unwrap());
        chunked
            .headers_mut()
            .insert("trailer", "x-sum".parse().unwrap());
        let (response, mut body) = send(&mut client, chunked, false).await;
        let head = server.head().await;
        assert!(
            head.contains("\r\ntransfer-encoding: chunked\r\n"),
            "{head}"
        );
        body.send_data("hello".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        server.until("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n").await;
        server
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n1\r\na\r\n0\r\nSet-Cookie: a=1\r\nX-End: 9\r\n\r\n")
            .await;
        let (bytes, trailers) = read(answered(response).await.into_body()).await.unwrap();
        assert_eq!(
            (&bytes[..], &trailers["x-end"]),
            (&b"a"[..], &"9".parse().unwrap())
        );
        // As over HTTP/1.1, what is no trailer stays behind.
        assert_eq!(trailers.len(), 1, "{trailers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spaces_around_a_value_are_no_part_of_it_here_or_at_the_backend() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let mut asked = request("POST", "/");
    for (name, value) in [
        ("authorization", " \tBearer a b\t "),
        ("cookie", "a=1 "),
        ("cookie", "\tb=2"),
        ("host", " live.example:81 "),
        ("trailer", "x-sum\t"),
        ("x-empty", " \t"),
    ] {
        asked.headers_mut().append(name, value.parse().unwrap());
    }
    let (response, mut body) = send(&mut client, asked, false).await;
    let mut server = backend.accept().await;
    let head = server.head().await;
    let expected = "POST / HTTP/1.1\r\nauthorization: Bearer a b\r\ncookie: a=1; b=2\r\n\
                    host: live.example:81\r\ntrailer: x-sum\r\nx-empty: \r\n";
    assert!(head.starts_with(expected), "{head}");
    body.send_data("hello".into(), false).unwrap();
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), " 7\t".parse().unwrap())]);
    body.send_trailers(trailers).unwrap();
    server.until("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n").await;
    server.send(ok("a")).await;
    assert_eq!(answered(response).await.status(), StatusCode::OK);

    // A decision is made on the same value.
    let mut asked = request("POST", "/api/live/token");
    for (name, value) in [
        ("authorization", format!("\tBearer {} ", login("owner"))),
        ("content-type", " application/json ".to_owned()),
    ] {
        asked.headers_mut().append(name, value.parse().unwrap());
    }
    let (response, mut body) = send(&mut client, asked, false).await;
    let wanted = r#"{"channelName":"live_show","uid":7}"#;
    body.send_data(wanted.into(), true).unwrap();
    assert_eq!(answered(response).await.status(), StatusCode::OK);
    assert!(backend.is_untouched().await);
}

/// The next interim response.
async fn interim(response: &mut ResponseFuture) -> Response<()> {
    let interim = poll_fn(|context| response.poll_informational(context));
    within("an interim response", interim)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_with_its_body_is_told_to_go_on() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let expecting = |path: &str| {
        let mut asked = request("POST", path);
        let expectation = "100-Continue".parse().unwrap();
        asked.headers_mut().insert("expect", expectation);
        asked
    };
    let (mut response, mut body) = send(&mut client, expecting("/"), false).await;
    let first = interim(&mut response).await;
    assert_eq!(first.status(), StatusCode::CONTINUE);
    assert!(first.headers().is_empty(), "{first:?}");
    let mut server = backend.accept().await;
    let head = server.head().await;
    assert!(!head.contains("expect"), "{head}");
    body.send_data("abc".into(), true).unwrap();
    server.until("3\r\nabc\r\n0\r\n\r\n").await;
    server
        .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(answered(response).await.status(), StatusCode::OK);

    // renewd reads the body of a token request itself.
    let (mut response, mut body) = send(&mut client, expecting("/api/live/token"), false).await;
    assert_eq!(interim(&mut response).await.status(), StatusCode::CONTINUE);
    body.send_data("{}".into(), true).unwrap();
    let refused = answered(response).await.status();
    assert_eq!(refused, StatusCode::UNAUTHORIZED);

    // There is no body, or nobody will read it.
    let mut unread = expecting("/");
    unread
        .headers_mut()
        .insert("host", "other.example".parse().unwrap());
    for (asked, ends, status) in [(expecting("/"), true, 200), (unread, false, 400)] {
        let (mut response, _body) = send(&mut client, asked, ends).await;
        if ends {
            let mut server = backend.accept_request().await;
            server.send(ok("a")).await;
        }
        let none = poll_fn(|context| response.poll_informational(context));
        assert!(within("the response", none).await.is_none());
        assert_eq!(answered(response).await.status(), status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interim_response_says_what_it_says_over_http_1() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let (mut response, _) = send(&mut client, request("GET", "/"), true).await;
    let mut server = backend.accept_request().await;
    // curl and Node reset an interim response with a length.
    server
        .send(
            "HTTP/1.1 103 Early Hints\r\nConnection: close, x-gone\r\nX-Gone: 1\r\nContent-Length: 5\r\n\
             Link: </a>\r\nX-Request-Id: theirs\r\nLink: </b>\r\n\r\n",
        )
        .await;
    let hints = interim(&mut response).await;
    assert_eq!(hints.status(), 103);
    let links: Vec<_> = hints.headers().get_all("link").iter().collect();
    assert_eq!(links, ["</a>", "</b>"]);
    assert_eq!(hints.headers().len(), 2, "{hints:?}");
    server.send(ok("a")).await;
    assert_eq!(answered(response).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_a_token_request_that_the_backend_answers_reach_it() {
    let (backend, renewd) = start("", "[decision]\nmode = \"observe\"\n").await;
    let path = "/api/live/token";
    let seen = async |end: &str| {
        let mut server = backend.accept().await;
        let head = server.head().await;
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"));
        assert!(head.contains("\r\ntrailer: x-sum\r\n"), "{head}");
        assert!(!head.contains("content-length"), "{head}");
        server.until(end).await;
        let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na";
        server.send(answer).await;
    };
    // The bodies are as large as a token request's may be, larger, and empty.
    let long = "x".repeat(20_000);
    for body in ["hello", &long, ""] {
        let chunk = match body.len() {
            0 => String::new(),
            length => format!("{length:x}\r\n{body}\r\n"),
        };
        let end = match body.len() {
            0 => "0\r\nx-sum: 7\r\n\r\n",
            20_000 => "x\r\n0\r\nx-sum: 7\r\n\r\n",
            _ => "5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n",
        };
        let mut old = Wire::new(TcpStream::connect(renewd.public).await.unwrap());
        old.send(format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n{chunk}0\r\nX-Sum: 7\r\n\r\n"
        ))
        .await;
        seen(end).await;
        old.until("\r\n\r\na").await;
        let mut new = client(renewd.public).await;
        for length in [None, Some(body.len())] {
            let mut asked = request("POST", path);
            let trailer = "x-sum".parse().unwrap();
            asked.headers_mut().insert("trailer", trailer);
            if let Some(length) = length {
                asked.headers_mut().insert("content-length", length.into());
            }
            let (response, mut sending) = send(&mut new, asked, false).await;
            if !body.is_empty() {
                sending.send_data(body.to_owned().into(), false).unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            sending.send_trailers(trailers).unwrap();
            seen(end).await;
            assert_eq!(answered(response).await.status(), 200, "{length:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_is_delivered_event_by_event_and_never_cut_for_silence() {
    let timeouts = "[server.timeouts]\nbody_stall = \"200ms\"\nwrite_stall = \"200ms\"\nidle = \"200ms\"\nheader = \"200ms\"\n";
    let (backend, renewd) = start("", timeouts).await;
    let mut client = client(renewd.public).await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let (_, response, mut server) =
        exchange(&mut client, &backend, request("GET", "/events"), answer).await;
    let mut body = response.into_body();
    let mut silence = tokio::time::interval(Duration::from_millis(300));
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        silence.tick().await;
        server.send(event).await;
        assert_eq!(body.data().await.unwrap().unwrap(), event.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_proper_request_is_refused_here() {
    let (backend, renewd) = start("health_path = \"/health\"", "").await;
    let mut client = client(renewd.public).await;
    let with = |method: &str, path: &str, fields: &[(&'static str, String)]| {
        let mut request = request(method, path);
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    };
    let connect = Request::builder()
        .method(Method::CONNECT)
        .uri("live.example:443")
        .body(())
        .unwrap();
    let many = Request::builder().uri("http://live.example/");
    let many = (0..101).fold(many, |many, index| many.header(format!("x-{index}"), "1"));
    let large = |length| with("GET", "/", &[("x-large", "y".repeat(length))]);
    let table = [
        (
            with("GET", "/", &[("host", "other.example".to_owned())]),
            400,
        ),
        (with("TRACE", "/", &[]), 405),
        (connect, 405),
        (many.body(()).unwrap(), 431),
        (large(16_400), 431),
        (large(40_000), 431),
        (with("GET", &format!("/{}", "y".repeat(9000)), &[]), 414),
        (with("GET", "/api/live/%74oken", &[]), 404),
        (with("GET", "/health", &[]), 200),
    ];
    for (request, status) in table {
        let shown = format!("{} {}", request.method(), request.uri().path());
        let (response, _) = send(&mut client, request, true).await;
        assert_eq!(answered(response).await.status(), status, "{shown:.40}");
    }
    assert!(backend.is_untouched().await);

    // The field says the same as the pseudo-header, and `*` is a target of OPTIONS.
    let same = with("GET", "/same", &[("host", "live.example:81".to_owned())]);
    let (head, _, _server) = exchange(&mut client, &backend, same, &ok("a")).await;
    assert_eq!(head.matches("live.example:81").count(), 2, "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_gives_a_request_up_takes_it_from_the_backend() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    // The client leaves before the answer, with the body half sent, and in the middle of the answer.
    let (response, mut stream) = send(&mut client, request("GET", "/"), true).await;
    let mut server = backend.accept_request().await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    assert_eq!(server.rest().await, "");

    // However it says so: the backend must not take half a body for a whole one.
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let (response, mut stream) = send(&mut client, request("POST", "/"), false).await;
        let mut server = backend.accept_request().await;
        stream.send_data("abc".into(), false).unwrap();
        server.until("3\r\nabc\r\n").await;
        stream.send_reset(reason);
        drop(response);
        assert_eq!(server.rest().await, "", "{reason:?}");
    }

    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    let (_, response, mut server) =
        exchange(&mut client, &backend, request("GET", "/"), begun).await;
    drop(response);
    assert_eq!(server.rest().await, "");

    // The connection is as good as before.
    let (_, response, _server) =
        exchange(&mut client, &backend, request("GET", "/"), &ok("a")).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_breaks_off_resets_the_stream_alone() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    let (_, response, server) = exchange(&mut client, &backend, request("GET", "/"), begun).await;
    drop(server);
    let error = read(response.into_body()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));

    let (response, _) = send(&mut client, request("POST", "/"), true).await;
    let server = backend.accept_request().await;
    drop(server);
    assert_eq!(answered(response).await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_ends_the_upload_and_not_the_connection() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let (response, mut stream) = send(&mut client, request("POST", "/"), false).await;
    let mut server = backend.accept_request().await;
    server
        .send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    drop(server);
    let response = answered(response).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!response.headers().contains_key("connection"));
    let reset = within("the reset", poll_fn(|context| stream.poll_reset(context))).await;
    assert_eq!(reset.unwrap(), Reason::NO_ERROR);
    let (_, response, _server) =
        exchange(&mut client, &backend, request("GET", "/"), &ok("a")).await;
    assert_eq!(response.status(), StatusCode::OK);
}

fn resident(renewd: &Renewd) -> f64 {
    renewd.metric("process_resident_memory_bytes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_pass_each_way_and_wait_for_whoever_is_slow() {
    const LENGTH: usize = 64 << 20;
    const ROOM: f64 = 16_777_216.0;
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let mut asked = request("POST", "/");
    asked.headers_mut().insert("content-length", LENGTH.into());
    let (response, mut stream) = send(&mut client, asked, false).await;
    let mut server = backend.accept_request().await;
    let before = resident(&renewd);
    let sending = tokio::spawn(async move {
        write(&mut stream, vec![b'u'; LENGTH].into(), true).await;
    });
    // The backend reads nothing, so that soon no side can send.
    let mut quiet = tokio::time::interval(Duration::from_millis(300));
    quiet.tick().await;
    quiet.tick().await;
    assert!(!sending.is_finished());
    assert!(resident(&renewd) < before + ROOM);
    let mut left = LENGTH;
    while left > 0 {
        let length = left.min(1 << 20);
        assert!(
            server
                .exactly(length)
                .await
                .iter()
                .all(|byte| *byte == b'u')
        );
        left -= length;
    }
    sending.await.unwrap();

    let answering = tokio::spawn(async move {
        server
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
            ))
            .await;
        for _ in 0..64 {
            server.send(vec![b'd'; 1 << 20]).await;
        }
    });
    let response = answered(response).await;
    quiet.tick().await;
    quiet.tick().await;
    assert!(!answering.is_finished());
    assert!(resident(&renewd) < before + ROOM);
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(data) = within("data", body.data()).await {
        let data = data.unwrap();
        assert!(data.iter().all(|byte| *byte == b'd'));
        received += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(received, LENGTH);
    answering.await.unwrap();
    assert!(resident(&renewd) < before + ROOM);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_are_answered_in_any_order() {
    let (backend, renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let mut pending = Vec::new();
    for index in 0..100 {
        let path = format!("/{index}");
        let (response, _) = send(&mut client, request("GET", &path), true).await;
        let mut server = backend.accept().await;
        assert!(server.head().await.starts_with(&format!("GET {path} ")));
        pending.push((response, server, index));
    }
    while let Some((response, mut server, index)) = pending.pop() {
        server.send(ok(&format!("answer {index}"))).await;
        let (body, _) = read(answered(response).await.into_body()).await.unwrap();
        assert_eq!(body, format!("answer {index}").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stream_has_its_own_deadlines() {
    let timeouts = "[server.timeouts]\nbody_stall = \"300ms\"\nwrite_stall = \"300ms\"\n";
    let (backend, renewd) = start("", timeouts).await;
    let mut client = client(renewd.public).await;
    // The first stream is an upload that stops.
    let (stalled, mut upload) = send(&mut client, request("POST", "/stalled"), false).await;
    let mut stalled_at = backend.accept_request().await;
    upload.send_data("abc".into(), false).unwrap();
    // The second stream is a download that the client doesn't read.
    let length = 1 << 20;
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let (_, untaken, mut untaken_from) =
        exchange(&mut client, &backend, request("GET", "/untaken"), &begun).await;
    let filling = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let _ = untaken_from.stream.write_all(&vec![0; length]).await;
        untaken_from.rest().await
    });
    // The third stream waits for the backend, which is no fault of the client's.
    let (patient, _) = send(&mut client, request("GET", "/patient"), true).await;
    let mut patient_at = backend.accept_request().await;

    let error = within("the stalled upload's reset", stalled)
        .await
        .unwrap_err();
    assert!(error.is_reset(), "{error}");
    stalled_at.until("abc").await;
    stalled_at.rest().await;
    filling.await.unwrap();
    let mut body = untaken.into_body();
    let cut = within("the untaken download's reset", async {
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("complete"),
            }
        }
    });
    assert!(cut.await.is_reset());
    patient_at.send(ok("a")).await;
    assert_eq!(answered(patient).await.status(), StatusCode::OK);
}

/// The frames that a client which speaks by hand needs.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_begun_or_idle_has_its_deadlines_too() {
    let timeouts = "[server.timeouts]\nheader = \"300ms\"\nidle = \"700ms\"\n";
    let (_backend, renewd) = start("", timeouts).await;
    let settings = frame(4, 0, 0, b"");
    let section = frame(1, 1, 1, b"\x82");
    let table: [(&str, Vec<u8>); 6] = [
        ("nothing at all", Vec::new()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("no SETTINGS", PREFACE.to_vec()),
        ("half a frame", [PREFACE, &settings, &section[..4]].concat()),
        (
            "half a header section",
            [PREFACE, &settings, &section].concat(),
        ),
        ("nothing more", [PREFACE, &settings].concat()),
    ];
    for (what, bytes) in table {
        let mut wire = Wire::new(TcpStream::connect(renewd.public).await.unwrap());
        wire.send(bytes).await;
        let said = wire.rest().await;
        if what == "nothing more" {
            // GOAWAY, type 7, without an error.
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0].map(char::from);
            assert!(said.contains(&goaway.iter().collect::<String>()), "{what}");
        }
    }
    let late = "renewd_http_parse_errors_total{kind=\"header_timeout\"}";
    renewd.eventually("four being late", |renewd| renewd.metric(late) >= 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_says_goaway_and_lets_requests_finish() {
    let (backend, mut renewd) = start("", "").await;
    let mut client = client(renewd.public).await;
    let stream = TcpStream::connect(renewd.public).await.unwrap();
    let (_idle, idle_connection) = h2::client::handshake(stream).await.unwrap();
    let idle_connection = tokio::spawn(idle_connection);
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc";
    let (_, response, mut server) =
        exchange(&mut client, &backend, request("GET", "/"), begun).await;
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let (_, endless, _events) =
        exchange(&mut client, &backend, request("GET", "/events"), events).await;
    renewd.signal(Signal::TERM);
    within("the idle connection's end", idle_connection)
        .await
        .unwrap()
        .unwrap();
    within("GOAWAY", async {
        loop {
            if poll_fn(|context| client.poll_ready(context)).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The stream ends after `tunnel_drain_timeout`, 2 s.
    let cut = read(endless.into_body()).await.unwrap_err();
    assert!(cut.is_reset(), "{cut}");
    server.send("def").await;
    let (body, _) = read(response.into_body()).await.unwrap();
    assert_eq!(body, b"abcdef");
    drop(client);
    assert!(renewd.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_h2c_the_preface_is_refused_and_with_it_http_1_is_still_served() {
    let backend = Backend::start().await;
    let off = Renewd::start(&Settings {
        backend: Some(backend.address()),
        ..Settings::default()
    });
    let mut wire = Wire::new(TcpStream::connect(off.public).await.unwrap());
    wire.send([PREFACE, &frame(4, 0, 0, b"")].concat()).await;
    wire.rest().await;
    let version = "renewd_http_parse_errors_total{kind=\"version\"}";
    off.eventually("the refusal", |off| off.metric(version) >= 1.0);

    let on = Renewd::start(&settings(&backend, "", ""));
    let mut wire = Wire::new(TcpStream::connect(on.public).await.unwrap());
    let mut bytes =
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".split_inclusive(|_| true);
    // The first letter is that of the preface.
    wire.send(bytes.next().unwrap()).await;
    wire.send(bytes.collect::<String>()).await;
    let mut server = backend.accept().await;
    assert!(server.head().await.starts_with("PUT / HTTP/1.1\r\n"));
    server.finish(&mut wire, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_works_inside_tls() {
    const LENGTH: usize = 4 << 20;
    let (backend, authority) = (Backend::start().await, Authority::new());
    let pair = authority.issue("daemon", 30);
    let tables = format!(
        "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
        pair.certificate.display(),
        pair.key.display()
    );
    let renewd = Renewd::start(&settings(&backend, "", &tables));
    let connector = authority.connector(&[HTTP2], None);
    let mut client = over(connect(&connector, renewd.public).await.unwrap()).await;
    let mut asked = request("POST", "/");
    asked.headers_mut().insert("content-length", LENGTH.into());
    let (response, mut stream) = send(&mut client, asked, false).await;
    let mut server = backend.accept().await;
    assert!(
        server
            .head()
            .await
            .contains("\r\nx-forwarded-proto: https\r\n")
    );
    let sending = tokio::spawn(async move {
        write(&mut stream, vec![b'u'; LENGTH].into(), true).await;
    });
    assert_eq!(server.exactly(LENGTH).await, vec![b'u'; LENGTH]);
    sending.await.unwrap();
    let answering = tokio::spawn(async move {
        server.send(ok(&"d".repeat(LENGTH))).await;
        server
    });
    let (body, _) = read(answered(response).await.into_body()).await.unwrap();
    assert_eq!(body.len(), LENGTH);
    answering.await.unwrap();
}

#[test]
fn nghttp_and_h2load_are_content() {
    let express =
        support::express::Express::start(support::express::Version::Four, &[("RATE_LIMIT", "0")]);
    let renewd = Renewd::start(&Settings {
        backend: Some(express.address),
        server: "h2c = true".to_owned(),
        ..Settings::default()
    });
    let url = format!("http://{}/health", renewd.public);
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .arg(&url)
            .output()
            .expect("Debian's nghttp2-client is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = run("nghttp", &["-nv", "-m", "3"]);
    assert!(
        !said.contains("recv RST_STREAM") && said.contains(":status: "),
        "{said}"
    );
    let said = run("h2load", &["-n", "2000", "-c", "4", "-m", "50"]);
    assert!(
        said.contains("2000 done") && said.contains(" 0 failed, 0 errored, 0 timeout"),
        "{said}"
    );
}
