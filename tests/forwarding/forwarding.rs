//! What reaches the backend and what comes back, byte by byte.

use crate::support::plane::{Backend, Proxy, Setup, get, ok};
use renewd::exchange::response_body::Ending;

#[tokio::test]
async fn a_request_and_its_response_pass_through_and_the_connections_are_kept() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client.send(get("/one?a=%20b")).await;
    let mut server = backend.accept().await;
    assert_eq!(
        server.head().await,
        "GET /one?a=%20b HTTP/1.1\r\nhost: example.test\r\n\
         x-forwarded-proto: http\r\nx-request-id: id-1\r\n\r\n"
    );
    server
        .send("HTTP/1.1 203 Sure\r\nX-A: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(
        client.head().await,
        "HTTP/1.1 203 Sure\r\nX-A: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n"
    );
    assert_eq!(client.exactly(3).await, b"abc");
    client.send(get("/two")).await;
    assert!(
        server.head().await.starts_with("GET /two "),
        "same backend connection"
    );
    server.send(ok("x")).await;
    assert!(
        client
            .until("\r\n\r\nx")
            .await
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    let finished = proxy.log.finished.lock().unwrap().clone();
    assert_eq!(finished.len(), 2);
    assert!(finished.iter().all(|one| one.ending == Ending::Complete));
    assert_eq!(finished[0].bytes, 3);
}

#[tokio::test]
async fn sized_and_chunked_bodies_arrive_as_they_were_sent() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    let mut server = backend.accept().await;
    assert!(server.head().await.contains("content-length: 5\r\n"));
    assert_eq!(server.exactly(5).await, b"hello");
    server
        .send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )
        .await;
    assert!(
        client
            .head()
            .await
            .contains("transfer-encoding: chunked\r\n")
    );
    assert!(client.until("0\r\n\r\n").await.contains("abc"));

    client
        .send("POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let head = server.head().await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"));
    assert_eq!(server.until("abc\r\n").await, "3\r\nabc\r\n");
    client.send("4\r\ndefg\r\n0\r\n\r\n").await;
    assert_eq!(server.until("0\r\n\r\n").await, "4\r\ndefg\r\n0\r\n\r\n");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 204 No Content\r\n\r\n");
}

#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_its_body() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n")
        .await;
    let mut server = backend.accept().await;
    assert!(
        server
            .head()
            .await
            .contains("transfer-encoding: chunked\r\n")
    );
    assert_eq!(server.until("0\r\n\r\n").await, "1\r\nz\r\n0\r\n\r\n");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\na\r\n0\r\nx-sum: 1\r\n\r\n",
        )
        .await;
    let mut server = backend.accept_request().await;
    assert_eq!(
        server.until("\r\n\r\n").await,
        "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"
    );
    server
        .send(
            "HTTP/1.1 200 OK\r\nTrailer: x-end\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nb\r\n0\r\nx-end: 2\r\n\r\n",
        )
        .await;
    client.head().await;
    assert_eq!(
        client.until("\r\n\r\n").await,
        "1\r\nb\r\n0\r\nx-end: 2\r\n\r\n"
    );
}

#[tokio::test]
async fn bodiless_answers_keep_their_length_and_their_connection() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut server = backend.accept_request().await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
        .await;
    assert_eq!(
        client.head().await,
        "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
    );
    client.send(get("/")).await;
    server.head().await;
    server
        .send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n")
        .await;
    assert_eq!(
        client.head().await,
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"
    );
    client.send(get("/")).await;
    server.head().await;
}

#[tokio::test]
async fn trailers_of_an_answer_pass_to_readers_who_ask_for_them_announced_or_not() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    let mut server = None;
    for (te, expected) in [
        ("TE: trailers\r\n", "0\r\nx-sum: 1\r\n\r\n"),
        ("", "0\r\n\r\n"),
    ] {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: x\r\n{te}\r\n"))
            .await;
        let server = match &mut server {
            None => server.insert(backend.accept().await),
            Some(server) => server,
        };
        server.head().await;
        server
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")
            .await;
        let head = client.head().await;
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let body = format!("1\r\na\r\n{expected}");
        assert_eq!(client.exactly(body.len()).await, body.as_bytes());
    }
}

#[tokio::test]
async fn an_unchanged_answer_still_says_how_long_it_would_have_been() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut server = backend.accept_request().await;
    server
        .send("HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(
        head,
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n"
    );
    client.send(get("/")).await;
    server.head().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send([get("/1"), get("/2"), get("/3")].concat())
        .await;
    let mut server = backend.accept().await;
    for path in ["/1", "/2", "/3"] {
        assert!(server.head().await.starts_with(&format!("GET {path} ")));
        server.send(ok(path)).await;
        client.until(&format!("\r\n\r\n{path}")).await;
    }
}

#[tokio::test]
async fn an_old_client_gets_its_answer_delimited_by_the_end() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
    let mut server = backend.accept().await;
    assert!(server.head().await.starts_with("GET / HTTP/1.1\r\n"));
    server
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(
        client.rest().await,
        "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc"
    );
}

#[tokio::test]
async fn an_old_client_may_keep_its_connection() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send("GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let mut server = backend.accept_request().await;
    server.send(ok("a")).await;
    assert!(
        client
            .until("\r\n\r\na")
            .await
            .contains("connection: keep-alive\r\n")
    );
    client.send("GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
    server.head().await;
    server.send(ok("b")).await;
    assert!(client.rest().await.ends_with("\r\n\r\nb"));
}

#[tokio::test]
async fn expect_continue_is_answered_here_when_the_body_is_wanted() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let mut server = backend.accept().await;
    assert!(!server.head().await.contains("expect"));
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ok").await;
    assert_eq!(server.exactly(2).await, b"ok");
}

#[tokio::test]
async fn informational_answers_are_dropped() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut server = backend.accept_request().await;
    server
        .send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        .await;
    server.send(ok("a")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn an_event_stream_arrives_event_by_event_and_its_head_before_them() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client.send(get("/events")).await;
    let mut server = backend.accept_request().await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await;
    for _ in 0..3 {
        server.send("9\r\ndata: 1\n\n\r\n").await;
        client.until("data: 1\n\n\r\n").await;
    }
}

#[tokio::test]
async fn length_and_chunked_together_are_never_passed_on_either_way() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\na\r\n0\r\n\r\n",
        )
        .await;
    let mut server = backend.accept().await;
    let head = server.head().await;
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"));
    server.until("0\r\n\r\n").await;
    server
        .send(
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nb\r\n0\r\n\r\n",
        )
        .await;
    let answer = client.rest().await;
    assert!(answer.contains("transfer-encoding: chunked") && !answer.contains("content-length"));
    assert!(answer.contains("connection: close") && answer.ends_with("0\r\n\r\n"));
    assert_eq!(
        server.rest().await,
        "",
        "such a backend connection isn't used again"
    );
}

#[tokio::test]
async fn answers_that_cannot_be_framed_again_are_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "SMTP ready\r\n\r\n",
    ] {
        let backend = Backend::start().await;
        let proxy = Proxy::start(backend.address(), Setup::default());
        let mut client = proxy.connect().await;
        client.send(get("/")).await;
        let mut server = backend.accept_request().await;
        server.send(answer).await;
        assert!(
            client
                .until("BadResponse")
                .await
                .starts_with("HTTP/1.1 502 "),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    const LENGTH: usize = 16 * 1024 * 1024;
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))
        .await;
    let mut server = backend.accept_request().await;
    // The backend answers while it is still being sent to: an echo.
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))
        .await;
    client.head().await;
    let chunk: Vec<u8> = (0..64 * 1024_u32)
        .map(|byte| byte.to_le_bytes()[0])
        .collect();
    for _ in 0..LENGTH / chunk.len() {
        client.send(&chunk).await;
        let received = server.exactly(chunk.len()).await;
        assert!(received == chunk);
        server.send(&received).await;
        assert!(client.exactly(chunk.len()).await == chunk);
    }
}
