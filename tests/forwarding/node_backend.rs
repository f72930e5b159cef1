//! The data plane in front of a real Node server.

#![allow(clippy::unwrap_used, clippy::panic)] // what fails here fails a test

use std::process::Stdio;

use crate::support::plane::{Proxy, Setup, get, within};
use renewd::exchange::response_body::Ending;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A Node process that ends with its standard input.
struct Node {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Node {
    async fn start(keep_alive_millis: u32) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/backend.js");
        let mut child = Command::new("node")
            .arg(script)
            .arg(keep_alive_millis.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = within("Node's port", lines.next_line()).await;
        Self {
            _child: child,
            lines,
            port: port.unwrap().unwrap().parse().unwrap(),
        }
    }

    async fn says(&mut self, expected: &str) {
        within(expected, async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line == expected {
                    return;
                }
            }
            panic!("Node ended before it said {expected:?}");
        })
        .await;
    }

    fn proxy(&self) -> Proxy {
        Proxy::start(([127, 0, 0, 1], self.port).into(), Setup::default())
    }
}

#[tokio::test]
async fn an_echo_goes_both_ways_at_once() {
    let node = Node::start(5000).await;
    let proxy = node.proxy();
    let mut client = proxy.connect().await;
    client
        .send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for round in 0..3 {
        client.send(format!("5\r\nping{round}\r\n")).await;
        client.until(&format!("ping{round}\r\n")).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.until("0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn node_learns_that_a_client_has_left() {
    let mut node = Node::start(5000).await;
    let proxy = node.proxy();
    let mut client = proxy.connect().await;
    client.send(get("/forever")).await;
    client.until("data: hello\n\n").await;
    drop(client);
    node.says("cut /forever").await;

    let mut client = proxy.connect().await;
    client
        .send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        .await;
    client.until("abc").await;
    drop(client);
    node.says("aborted /echo").await;
}

#[tokio::test]
async fn a_server_that_dies_in_its_answer_cuts_the_client() {
    let node = Node::start(5000).await;
    let proxy = node.proxy();
    let mut client = proxy.connect().await;
    client.send(get("/crash")).await;
    assert!(client.rest().await.ends_with("\r\n\r\nbeginning"));
    proxy
        .log
        .wait("the break being reported", |log| {
            let finished = log.finished.lock().unwrap();
            finished.iter().any(|one| one.ending == Ending::Broken)
        })
        .await;
}

#[tokio::test]
async fn an_answer_to_an_unread_upload_arrives() {
    let node = Node::start(5000).await;
    let proxy = node.proxy();
    let mut client = proxy.connect().await;
    client
        .send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        .await;
    client.send(vec![0; 100_000]).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
    assert!(
        answer.contains("connection: close") && answer.contains("too long"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_quickly_loses_no_request() {
    // For a keep-alive time below a second Node 20 announces `timeout=0` (`lib/_http_outgoing.js`, `_storeHeader`):
    // such connections are never used twice.
    for keep_alive in [5, 1000] {
        let node = Node::start(keep_alive).await;
        let proxy = node.proxy();
        let mut client = proxy.connect().await;
        for round in 0..100 {
            let length = if round % 2 == 0 { 0 } else { 3 };
            let body = "abc".get(..length).unwrap();
            client
                .send(format!(
                    "POST /{round} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head:?}");
            client.until(&format!("POST /{round}")).await;
            if head.contains("chunked") {
                client.until("0\r\n\r\n").await;
            }
        }
    }
}

#[tokio::test]
async fn a_socket_is_upgraded_and_closed_in_order() {
    let node = Node::start(5000).await;
    let proxy = node.proxy();
    let mut client = proxy.connect().await;
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        .await;
    client.head().await;
    assert_eq!(client.exactly(5).await, b"early");
    client.send("later").await;
    assert_eq!(client.exactly(5).await, b"later");
    client.half_close().await;
    assert_eq!(client.rest().await, "bye");
}

#[tokio::test]
async fn the_connection_of_a_refused_upgrade_serves_nobody_else() {
    let mut node = Node::start(5000).await;
    let proxy = node.proxy();
    for (answer, body) in [
        (
            "HTTP/1.1%20401%20Unauthorized%0D%0AContent-Length:%200%0D%0A%0D%0A",
            "",
        ),
        (
            "HTTP/1.1%20426%20Later%0D%0AConnection:%20keep-alive%0D%0ATransfer-Encoding:%20chunked%0D%0A%0D%0A2%0D%0Ano%0D%0A0%0D%0A%0D%0A",
            "2\r\nno\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1%20204%20No%20Content%0D%0AKeep-Alive:%20timeout=60%0D%0A%0D%0A",
            "",
        ),
        (
            "HTTP/1.1%20200%20OK%0D%0AContent-Length:%204%0D%0A%0D%0Afine",
            "fine",
        ),
    ] {
        let mut client = proxy.connect().await;
        client
            .send(format!(
                "GET /refuse?answer={answer} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            ))
            .await;
        let head = client.head().await;
        assert!(!head.contains(" 101 "), "{head}");
        assert_eq!(client.exactly(body.len()).await, body.as_bytes());
        // The same client next, then another one.
        client.send(get("/next")).await;
        assert!(client.until("GET /next").await.starts_with("HTTP/1.1 200 "));
        let mut other = proxy.connect().await;
        other.send(get("/other")).await;
        assert!(other.until("GET /other").await.starts_with("HTTP/1.1 200 "));
        node.says("left alone").await;
    }
}
