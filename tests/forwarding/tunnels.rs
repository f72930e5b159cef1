//! WebSocket upgrades: from HTTP to bytes both ways, and how that ends.

use crate::support::plane;

use std::time::Duration;

use crate::support::plane::{Proxy, Setup, Wire};
use crate::support::raw_exchange::RawExchange;
use renewd::exchange::response_body::{Ending, Finished};
use renewd::server::Event;

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async fn tunnel(setup: Setup) -> (Proxy, Wire, Wire) {
    let mut raw = RawExchange::begin_with(setup, UPGRADE).await;
    let head = &raw.head;
    assert!(head.contains("connection: Upgrade\r\n") && head.contains("upgrade: websocket\r\n"));
    let head = raw.answered(SWITCHING).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert!(head.contains("connection: Upgrade\r\n"));
    (raw.proxy, raw.client, raw.server)
}

async fn finished(proxy: &Proxy, expected: Finished) {
    proxy
        .log
        .wait("the tunnel's end being reported", |log| {
            let reported = log.finished.lock();
            reported.is_ok_and(|reported| *reported == [expected])
                && log.count(Event::TunnelClosed) == 1
        })
        .await;
}

#[tokio::test]
async fn bytes_pass_both_ways_until_both_sides_have_closed() {
    let (proxy, mut client, mut server) = tunnel(Setup::default()).await;
    client.send("ping").await;
    assert_eq!(server.exactly(4).await, b"ping");
    server.send("pong").await;
    assert_eq!(client.exactly(4).await, b"pong");
    drop(client);
    assert_eq!(server.rest().await, "");
    drop(server);
    finished(
        &proxy,
        Finished {
            bytes: 4,
            ending: Ending::Complete,
        },
    )
    .await;
}

#[tokio::test]
async fn what_was_sent_with_the_upgrade_and_with_the_101_is_not_lost() {
    let mut raw = RawExchange::begin([UPGRADE, "early"].concat()).await;
    raw.answered([SWITCHING, "first"].concat()).await;
    assert_eq!(raw.client.exactly(5).await, b"first");
    assert_eq!(raw.server.exactly(5).await, b"early");
}

#[tokio::test]
async fn a_side_that_has_closed_still_receives() {
    let (_proxy, mut client, mut server) = tunnel(Setup::default()).await;
    client.send("last words").await;
    client.half_close().await;
    assert_eq!(server.rest().await, "last words");
    server.send("heard").await;
    server.half_close().await;
    assert_eq!(client.rest().await, "heard");

    let (_proxy, mut client, mut server) = tunnel(Setup::default()).await;
    server.send("last words").await;
    server.half_close().await;
    assert_eq!(client.rest().await, "last words");
    client.send("heard").await;
    client.half_close().await;
    assert_eq!(server.rest().await, "heard");
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let (_proxy, mut client, mut server) = tunnel(Setup::default()).await;
    let sent: Vec<u8> = (0..LENGTH).map(|byte| byte.to_le_bytes()[1]).collect();
    let sending = async {
        server.send(&sent).await;
        server.half_close().await;
    };
    let receiving = async { client.exactly(LENGTH).await };
    let ((), received) = tokio::join!(sending, receiving);
    assert!(received == sent);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_silent_tunnel_ends_in_time_and_a_busy_one_does_not() {
    let mut setup = Setup::default();
    setup.timeouts.tunnel_idle = Duration::from_millis(300);
    let (proxy, mut client, mut server) = tunnel(setup).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..8 {
        ticks.tick().await;
        client.send("x").await;
        server.exactly(1).await;
    }
    assert_eq!(client.rest().await, "");
    assert_eq!(server.rest().await, "");
    finished(
        &proxy,
        Finished {
            bytes: 0,
            ending: Ending::Abandoned,
        },
    )
    .await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let mut raw = RawExchange::begin(UPGRADE).await;
    raw.finish("no").await;
    // The backend's next bytes on this connection might not be HTTP any more.
    raw.client.send(plane::get("/next")).await;
    let _server = raw.backend.answer(&mut raw.client, "b").await;
    assert_eq!(raw.proxy.log.count(Event::TunnelOpened), 0);
}

#[tokio::test]
async fn an_upgrade_gets_a_backend_connection_of_its_own() {
    let mut raw = RawExchange::begin(plane::get("/")).await;
    raw.finish("a").await;
    raw.client.send(UPGRADE).await;
    let mut fresh = raw.backend.accept_request().await;
    fresh.send(SWITCHING).await;
    raw.client.head().await;
    raw.client.send("ping").await;
    assert_eq!(fresh.exactly(4).await, b"ping");
}

#[tokio::test]
async fn a_stop_leaves_tunnels_alone_until_it_ends_them() {
    let (proxy, mut client, mut server) = tunnel(Setup::default()).await;
    proxy.workers.begin_drain();
    client.send("still").await;
    assert_eq!(server.exactly(5).await, b"still");
    proxy.workers.end_tunnels();
    assert_eq!(client.rest().await, "");
    assert_eq!(server.rest().await, "");
    plane::within("the drain", proxy.workers.drained()).await;
}

#[tokio::test]
async fn an_upgrade_that_is_being_decided_survives_the_beginning_of_a_stop() {
    let mut raw = RawExchange::begin(UPGRADE).await;
    raw.proxy.workers.begin_drain();
    let mut other = tokio::net::TcpStream::connect(raw.proxy.tcp()).await;
    // The listener is closed once the stop has reached the worker.
    while other.is_ok() {
        tokio::task::yield_now().await;
        other = tokio::net::TcpStream::connect(raw.proxy.tcp()).await;
    }
    let head = raw.answered(SWITCHING).await;
    assert!(
        head.contains("connection: Upgrade\r\n") && !head.contains("close"),
        "{head:?}"
    );
    raw.client.send("ping").await;
    assert_eq!(raw.server.exactly(4).await, b"ping");
}
