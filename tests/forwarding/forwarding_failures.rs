//! Backends and clients that break off, are slow, or aren't there.

use std::time::Duration;

use crate::support::plane::{Backend, Proxy, Setup, get, ok, within};
use crate::support::raw_exchange::RawExchange;
use renewd::exchange::response_body::{Ending, Finished};
use renewd::io::transport::Transport;

const SHORT: Duration = Duration::from_millis(200);

/// A proxy with one idle connection to the backend, and both ends of it.
async fn warm(setup: Setup) -> RawExchange {
    let mut raw = RawExchange::begin_with(setup, get("/warm")).await;
    raw.finish("w").await;
    raw
}

#[tokio::test]
async fn a_refused_connection_is_an_error_of_its_own() {
    let backend = Backend::start().await;
    let address = backend.address();
    drop(backend);
    let proxy = Proxy::start(address, Setup::default());
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    client.assert_error(502, "ConnectFailed").await;
}

#[tokio::test]
async fn an_answer_to_a_body_that_nobody_reads_arrives_and_announces_the_close() {
    let backend = Backend::start().await;
    let address = backend.address();
    drop(backend);
    let proxy = Proxy::start(address, Setup::default());
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    client.send(vec![0; 200_000]).await;
    let answer = client.rest().await;
    assert!(answer.contains("connection: close\r\n"), "{answer:?}");
    assert!(answer.ends_with("ConnectFailed"), "{answer:?}");
}

#[tokio::test]
async fn an_idle_connection_closed_by_the_backend_costs_no_request() {
    for request in [
        get("/again"),
        "POST /again HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na".to_owned(),
    ] {
        let mut raw = warm(Setup::default()).await;
        // The connection closes while the next request is made: either may be seen first.
        drop(raw.server);
        raw.client.send(&request).await;
        let mut server = raw.backend.accept().await;
        assert!(server.head().await.contains(" /again "));
        server.finish(&mut raw.client, "b").await;
    }
}

#[tokio::test]
async fn a_bodiless_request_is_repeated_if_a_used_connection_dies_under_it() {
    let mut raw = warm(Setup::default()).await;
    raw.again(get("/raced")).await;
    drop(raw.server);
    let mut server = raw.backend.accept().await;
    assert!(server.head().await.starts_with("GET /raced "));
    server.finish(&mut raw.client, "b").await;
    assert_eq!(raw.proxy.retries(), 1);
}

#[tokio::test]
async fn it_is_not_repeated_twice() {
    let mut raw = warm(Setup::default()).await;
    raw.again(get("/raced")).await;
    drop(raw.server);
    drop(raw.backend.accept_request().await);
    raw.client.assert_error(502, "ConnectionLost").await;
    assert_eq!(raw.proxy.retries(), 1);
}

#[tokio::test]
async fn a_request_that_may_have_been_acted_on_is_never_repeated() {
    for request in [
        "POST /once HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "POST /once HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
        "PUT /once HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
    ] {
        // Shown where the test fails.
        println!("{request:?}");
        let mut raw = warm(Setup::default()).await;
        raw.again(request).await;
        drop(raw.server);
        raw.client.assert_error(502, "ConnectionLost").await;
        assert_eq!(raw.proxy.retries(), 0);
        assert!(raw.backend.is_untouched().await);
    }
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_repeated() {
    let mut raw = warm(Setup::default()).await;
    raw.again(get("/")).await;
    raw.server.send("HTTP/1.1 200 OK\r\nCont").await;
    drop(raw.server);
    raw.client.assert_error(502, "BadResponse").await;
    assert_eq!(raw.proxy.retries(), 0);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_given_up_and_its_connection_closed() {
    let setup = Setup {
        response_timeout: SHORT,
        ..Setup::default()
    };
    let mut raw = RawExchange::begin_with(setup, get("/")).await;
    raw.client.assert_error(504, "ResponseTimeout").await;
    assert_eq!(raw.server.rest().await, "");
    // The client's connection goes on.
    raw.client.send(get("/next")).await;
    let _server = raw.backend.answer(&mut raw.client, "b").await;
}

#[tokio::test]
async fn the_time_to_answer_starts_when_the_request_has_ended() {
    let setup = Setup {
        response_timeout: SHORT * 2,
        ..Setup::default()
    };
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
    let mut raw = RawExchange::begin_with(setup, head).await;
    let begun = renewd::terms::clock::timer_now();
    let mut ticks = tokio::time::interval(SHORT);
    for byte in ["h", "e", "l", "l", "o"] {
        ticks.tick().await;
        raw.client.send(byte).await;
        raw.server.exactly(1).await;
    }
    assert!(begun.elapsed() > SHORT * 2);
    assert!(raw.finish("late").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_backend_that_breaks_off_cuts_the_client_after_what_it_had_sent() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut raw = RawExchange::begin(get("/")).await;
        raw.server.send(head).await;
        drop(raw.server);
        let answer = raw.client.rest().await;
        assert!(answer.contains("abc"), "{answer:?}");
        assert!(!answer.ends_with("0\r\n\r\n"));
        let broken = Finished {
            bytes: 3,
            ending: Ending::Broken,
        };
        raw.proxy
            .log
            .wait("the end being reported", |log| {
                *log.finished.lock().unwrap() == [broken]
            })
            .await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_takes_the_backend_request_with_it() {
    let mut raw = RawExchange::begin(get("/")).await;
    drop(raw.client);
    assert_eq!(raw.server.rest().await, "");
}

#[tokio::test]
async fn a_client_that_resets_takes_the_backend_request_with_it() {
    let mut raw = RawExchange::begin(get("/")).await;
    let Transport::Tcp(socket) = &raw.client.stream else {
        unreachable!("connected by TCP");
    };
    socket2::SockRef::from(socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(raw.client);
    assert_eq!(raw.server.rest().await, "");
    // The client's connection is closed, not half-closed.
    raw.server.send("HTTP/1.1 200 OK\r\n").await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_it_at_the_backend() {
    let mut raw = RawExchange::begin(get("/events")).await;
    raw.server
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        .await;
    raw.client.until("data: 1\n\n").await;
    drop(raw.client);
    assert_eq!(raw.server.rest().await, "");
    drop(raw.server);
    raw.proxy
        .log
        .wait("the end being reported", |log| {
            log.finished.lock().unwrap().len() == 1
        })
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_closes_the_backend_connection() {
    let begun = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
    let mut raw = RawExchange::begin(begun).await;
    raw.server.exactly(3).await;
    drop(raw.client);
    assert_eq!(raw.server.rest().await, "");
}

#[tokio::test]
async fn a_request_that_breaks_off_at_once_reaches_the_backend_as_far_as_it_came() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    // The whole request, with its end, is there before the backend is.
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome of it")
        .await;
    drop(client);
    let mut server = backend.accept().await;
    assert!(server.head().await.contains("content-length: 1000\r\n"));
    assert_eq!(server.rest().await, "some of it");
}

#[tokio::test]
async fn a_client_that_only_stops_sending_still_gets_its_answer() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na")
        .await;
    client.half_close().await;
    let mut server = backend.accept_request().await;
    // The backend is told, as it would be without renewd.
    assert_eq!(server.rest().await, "a");
    server.send(ok("all the same")).await;
    assert!(client.rest().await.ends_with("\r\n\r\nall the same"));
}

#[tokio::test]
async fn an_early_answer_is_passed_on_and_both_connections_close() {
    let begun = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc";
    let mut raw = RawExchange::begin(begun).await;
    raw.server.exactly(3).await;
    raw.server
        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        .await;
    let answer = raw.client.rest().await;
    assert!(
        answer.contains("connection: close\r\n") && answer.ends_with("big"),
        "{answer:?}"
    );
    assert_eq!(raw.server.rest().await, "");
    // Bytes that the client goes on sending for a moment don't reset the answer away.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.client.stream, b"more").await;
}

#[tokio::test]
async fn idle_backend_connections_are_closed_in_time() {
    let setup = Setup {
        idle_timeout: SHORT,
        ..Setup::default()
    };
    let mut raw = warm(setup).await;
    assert_eq!(raw.server.rest().await, "");
}

#[tokio::test]
async fn a_backend_that_announces_one_second_is_not_asked_again_on_that_connection() {
    let mut raw = RawExchange::begin(get("/")).await;
    raw.server
        .send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 1\r\n\r\na")
        .await;
    raw.client.until("\r\n\r\na").await;
    assert_eq!(within("the close", raw.server.rest()).await, "");
}

#[tokio::test]
async fn a_slow_client_holds_the_backend_back() {
    let mut raw = RawExchange::begin(get("/")).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
    raw.answered(head).await;
    // The client doesn't read, so that the buffers on the way bound what the backend can send.
    let chunk = vec![0; 1024 * 1024];
    let mut sent = 0_usize;
    while let Ok(written) = tokio::time::timeout(
        SHORT * 2,
        tokio::io::AsyncWriteExt::write(&mut raw.server.stream, &chunk),
    )
    .await
    {
        sent += written.unwrap();
        assert!(sent < 64 * 1024 * 1024, "no back-pressure");
    }
}
