//! The bytes that reach the backend, and the bytes that come back.

use crate::support::plane::{get, ok};
use crate::support::raw_exchange::RawExchange;
use renewd::exchange::response_body::Ending;

#[tokio::test]
async fn a_request_and_its_response_pass_through_and_the_connections_are_kept() {
    let mut raw = RawExchange::begin(get("/one?a=%20b")).await;
    assert_eq!(
        raw.head,
        "GET /one?a=%20b HTTP/1.1\r\nhost: example.test\r\n\
         x-forwarded-proto: http\r\nx-request-id: id-1\r\n\r\n"
    );
    let head = "HTTP/1.1 203 Sure\r\nX-A: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(raw.answered([head, "abc"].concat()).await, head);
    assert_eq!(raw.client.exactly(3).await, b"abc");
    let second = raw.again(get("/two")).await;
    assert!(second.starts_with("GET /two "), "same backend connection");
    assert!(raw.finish("x").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let finished = raw.proxy.log.finished.lock().unwrap().clone();
    assert_eq!(finished.len(), 2);
    assert!(finished.iter().all(|one| one.ending == Ending::Complete));
    assert_eq!(finished[0].bytes, 3);
}

#[tokio::test]
async fn sized_and_chunked_bodies_arrive_as_they_were_sent() {
    let mut raw =
        RawExchange::begin("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(raw.head.contains("content-length: 5\r\n"));
    assert_eq!(raw.server.exactly(5).await, b"hello");
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let head = raw.answered(answer).await;
    assert!(head.contains("transfer-encoding: chunked\r\n"));
    assert!(raw.client.until("0\r\n\r\n").await.contains("abc"));

    let begun = "POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let head = raw.again(begun).await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"));
    assert_eq!(raw.server.until("abc\r\n").await, "3\r\nabc\r\n");
    let rest = "4\r\ndefg\r\n0\r\n\r\n";
    raw.client.send(rest).await;
    assert_eq!(raw.server.until("0\r\n\r\n").await, rest);
    let empty = "HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(raw.answered(empty).await, empty);
}

#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_its_body() {
    let body = "1\r\nz\r\n0\r\n\r\n";
    let head = "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut raw = RawExchange::begin([head, body].concat()).await;
    assert!(raw.head.contains("transfer-encoding: chunked\r\n"));
    assert_eq!(raw.server.until("0\r\n\r\n").await, body);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mut raw = RawExchange::begin(
        "POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\na\r\n0\r\nx-sum: 1\r\n\r\n",
    )
    .await;
    let sent = raw.server.until("\r\n\r\n").await;
    assert_eq!(sent, "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
    raw.answered(
        "HTTP/1.1 200 OK\r\nTrailer: x-end\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\nb\r\n0\r\nx-end: 2\r\n\r\n",
    )
    .await;
    let received = raw.client.until("\r\n\r\n").await;
    assert_eq!(received, "1\r\nb\r\n0\r\nx-end: 2\r\n\r\n");
}

#[tokio::test]
async fn bodiless_answers_keep_their_length_and_their_connection() {
    let mut raw = RawExchange::begin("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
    ] {
        assert_eq!(raw.answered(answer).await, answer);
        raw.again(get("/")).await;
    }
}

#[tokio::test]
async fn trailers_of_an_answer_pass_to_readers_who_ask_for_them_announced_or_not() {
    let assert_read = async |raw: &mut RawExchange, trailers: &str| {
        let answer =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n";
        let head = raw.answered(answer).await;
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let body = format!("1\r\na\r\n0\r\n{trailers}\r\n");
        assert_eq!(raw.client.exactly(body.len()).await, body.as_bytes());
    };
    let mut raw = RawExchange::begin("GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n").await;
    assert_read(&mut raw, "x-sum: 1\r\n").await;
    raw.again(get("/")).await;
    assert_read(&mut raw, "").await;
}

#[tokio::test]
async fn an_unchanged_answer_still_says_how_long_it_would_have_been() {
    let mut raw = RawExchange::begin(get("/")).await;
    let unchanged = "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n";
    assert_eq!(raw.answered(unchanged).await, unchanged);
    raw.again(get("/")).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut raw = RawExchange::begin([get("/1"), get("/2"), get("/3")].concat()).await;
    assert!(raw.head.starts_with("GET /1 "));
    raw.finish("/1").await;
    for path in ["/2", "/3"] {
        let head = raw.server.head().await;
        assert!(head.starts_with(&format!("GET {path} ")));
        raw.finish(path).await;
    }
}

#[tokio::test]
async fn an_old_client_gets_its_answer_delimited_by_the_end() {
    let mut raw = RawExchange::begin("GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
    assert!(raw.head.starts_with("GET / HTTP/1.1\r\n"));
    raw.server
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(
        raw.client.rest().await,
        "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc"
    );
}

#[tokio::test]
async fn an_old_client_may_keep_its_connection() {
    let request = "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";
    let mut raw = RawExchange::begin(request).await;
    let answer = raw.finish("a").await;
    assert!(answer.contains("connection: keep-alive\r\n"));
    raw.again("GET / HTTP/1.0\r\nHost: x\r\n\r\n").await;
    raw.server.send(ok("b")).await;
    assert!(raw.client.rest().await.ends_with("\r\n\r\nb"));
}

#[tokio::test]
async fn expect_continue_is_answered_here_when_the_body_is_wanted() {
    let mut raw = RawExchange::begin(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    assert!(!raw.head.contains("expect"));
    assert_eq!(raw.client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    raw.client.send("ok").await;
    assert_eq!(raw.server.exactly(2).await, b"ok");
}

#[tokio::test]
async fn an_event_stream_arrives_event_by_event_and_its_head_before_them() {
    let mut raw = RawExchange::begin(get("/events")).await;
    raw.answered(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    for _ in 0..3 {
        raw.server.send("9\r\ndata: 1\n\n\r\n").await;
        raw.client.until("data: 1\n\n\r\n").await;
    }
}

#[tokio::test]
async fn length_and_chunked_together_are_never_passed_on_either_way() {
    let mut raw = RawExchange::begin(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\na\r\n0\r\n\r\n",
    )
    .await;
    let head = &raw.head;
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"));
    raw.server.until("0\r\n\r\n").await;
    raw.server
        .send(
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nb\r\n0\r\n\r\n",
        )
        .await;
    let answer = raw.client.rest().await;
    assert!(answer.contains("transfer-encoding: chunked") && !answer.contains("content-length"));
    assert!(answer.contains("connection: close") && answer.ends_with("0\r\n\r\n"));
    assert_eq!(
        raw.server.rest().await,
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
        // Shown where the test fails.
        println!("{answer:?}");
        let mut raw = RawExchange::begin(get("/")).await;
        raw.server.send(answer).await;
        raw.client.assert_error(502, "BadResponse").await;
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    const LENGTH: usize = 16 * 1024 * 1024;
    let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    let mut raw = RawExchange::begin(request).await;
    // The backend answers while it is still being sent to: an echo.
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    raw.answered(head).await;
    let chunk: Vec<u8> = (0..64 * 1024_u32)
        .map(|byte| byte.to_le_bytes()[0])
        .collect();
    for _ in 0..LENGTH / chunk.len() {
        raw.client.send(&chunk).await;
        let received = raw.server.exactly(chunk.len()).await;
        assert!(received == chunk);
        raw.server.send(&received).await;
        assert!(raw.client.exactly(chunk.len()).await == chunk);
    }
}
