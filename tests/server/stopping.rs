//! The stop of connections in each state, and the opening and closing of listeners.

use crate::support::plane;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use crate::support::plane::{Backend, Proxy, Setup, Wire, get, ok, within};
use crate::support::raw_exchange::RawExchange;
use renewd::config::model::Listen;
use renewd::server::Event;
use renewd::server::listen::{BoundListeners, ListenAddress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

async fn refused(address: SocketAddr) {
    within("the listener being closed", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_lets_a_request_finish() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut idle = proxy.connect().await;
    idle.send(get("/")).await;
    let mut server = backend.answer(&mut idle, "a").await;
    let mut asleep = proxy.connect().await;
    asleep.send(get("/")).await;
    server.answer(&mut asleep, "a").await;
    proxy
        .log
        .wait("sleep", |log| log.count(Event::Slept) == 2)
        .await;
    let mut awake = proxy.connect().await;
    awake.send(get("/")).await;
    server.answer(&mut awake, "a").await;
    let mut busy = proxy.connect().await;
    busy.send(get("/busy")).await;
    server.head().await;

    proxy.workers.begin_drain();
    for connection in [&mut idle, &mut asleep, &mut awake] {
        assert_eq!(connection.rest().await, "");
    }
    refused(proxy.tcp()).await;
    server.send(ok("done")).await;
    let answer = busy.rest().await;
    assert!(
        answer.contains("connection: close\r\n") && answer.ends_with("done"),
        "{answer:?}"
    );
    within("the drain", proxy.workers.drained()).await;
    assert_eq!(proxy.workers.connections(), 0);
    proxy.workers.stop();
}

#[tokio::test]
async fn a_request_that_crosses_the_beginning_of_a_stop_is_the_last_of_its_connection() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut clients = Vec::new();
    for asleep in [1, 0] {
        let mut client = proxy.connect().await;
        client.send(get("/")).await;
        let mut server = backend.accept_request().await;
        server
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na")
            .await;
        client.until("\r\n\r\na").await;
        if asleep == 1 {
            let slept = |log: &plane::Log| log.count(Event::Slept) == asleep;
            proxy.log.wait("sleep", slept).await;
        }
        clients.push(client);
    }
    proxy.workers.begin_drain();
    for client in &mut clients {
        client.send(get("/crossing")).await;
    }
    for _ in 0..2 {
        let mut server = backend.accept().await;
        assert!(server.head().await.starts_with("GET /crossing "));
        server.send(ok("b")).await;
    }
    for client in &mut clients {
        let answer = client.rest().await;
        assert!(
            answer.contains("connection: close\r\n") && answer.ends_with("\r\n\r\nb"),
            "{answer:?}"
        );
    }
    within("the drain", proxy.workers.drained()).await;
}

#[tokio::test]
async fn a_request_half_read_at_a_stop_is_still_served() {
    let mut raw = RawExchange::begin(get("/")).await;
    raw.finish("a").await;
    raw.client.send("GET /half HTTP/1.1\r\n").await;
    // Answered on another connection, so the first bytes above have been read by the only worker.
    let mut other = raw.proxy.connect().await;
    other.send("GET / HTTP/1.1\r\nHost : x\r\n\r\n").await;
    assert!(other.rest().await.starts_with("HTTP/1.1 400 "));
    raw.proxy.workers.begin_drain();
    refused(raw.proxy.tcp()).await;
    let head = raw.again("Host: x\r\n\r\n").await;
    assert!(head.starts_with("GET /half "));
    raw.server.send(ok("b")).await;
    let answer = raw.client.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("\r\n\r\nb"));
}

#[tokio::test]
async fn event_streams_are_cut_when_tunnels_end_and_other_responses_are_not() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let mut events = proxy.connect().await;
    events.send(get("/events")).await;
    let mut stream = backend.accept_request().await;
    stream
        .send(
            "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\ndata: 1\n\n",
        )
        .await;
    events.until("data: 1\n\n").await;
    let mut download = proxy.connect().await;
    download.send(get("/file")).await;
    let mut file = backend.accept_request().await;
    file.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        .await;
    download.until("\r\n\r\nab").await;
    proxy.workers.begin_drain();
    refused(proxy.tcp()).await;
    stream.send("data: 2\n\n").await;
    events.until("data: 2\n\n").await;
    proxy.workers.end_tunnels();
    events.rest().await;
    assert_eq!(stream.rest().await, "");
    file.send("cd").await;
    assert_eq!(download.rest().await, "cd");
    within("the drain", proxy.workers.drained()).await;
}

#[tokio::test]
async fn stopping_now_cuts_everything() {
    let mut raw = RawExchange::begin(get("/")).await;
    raw.proxy.workers.stop();
    assert_eq!(raw.client.rest().await, "");
    assert_eq!(raw.server.rest().await, "");
}

#[tokio::test]
async fn connections_waiting_in_the_queue_at_a_stop_are_served() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(
        backend.address(),
        Setup {
            max_connections: 1,
            ..Setup::default()
        },
    );
    // The first connection takes the only permit; the others wait, accepted or in the kernel's queue.
    let mut first = proxy.connect().await;
    first.send(get("/1")).await;
    let mut server = backend.accept_request().await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = proxy.connect().await;
        client.send(get("/2")).await;
        waiting.push(client);
    }
    assert_eq!(proxy.workers.connections(), 1);
    proxy.workers.begin_drain();
    for mut client in waiting {
        let mut server = backend.accept_request().await;
        server.send(ok("b")).await;
        let answer = client.rest().await;
        assert!(
            answer.contains("connection: close") && answer.ends_with("\r\n\r\nb"),
            "{answer:?}"
        );
        drop(server);
    }
    server.send(ok("a")).await;
    assert!(first.rest().await.ends_with("\r\n\r\na"));
    within("the drain", proxy.workers.drained()).await;
}

#[tokio::test]
async fn the_limit_on_connections_is_hot() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(
        backend.address(),
        Setup {
            max_connections: 1,
            ..Setup::default()
        },
    );
    let mut first = proxy.connect().await;
    first.send(get("/1")).await;
    backend.accept().await.head().await;
    let mut second = proxy.connect().await;
    second.send(get("/2")).await;
    proxy.workers.set_max_connections(2);
    let mut server = backend.accept().await;
    assert!(server.head().await.starts_with("GET /2 "));
}

#[tokio::test]
async fn port_0_is_one_port_for_all_workers_and_both_families() {
    let backend = Backend::start().await;
    let setup = Setup {
        listen: Listen::Tcp("[::]:0".parse().unwrap()),
        workers: 3,
        ..Setup::default()
    };
    let proxy = Proxy::start(backend.address(), setup);
    let port = proxy.tcp().port();
    assert_ne!(port, 0);
    for address in ["127.0.0.1", "::1"] {
        let stream = TcpStream::connect((address, port)).await.unwrap();
        let mut client = Wire::new(stream);
        client.send(get("/")).await;
        let _server = backend.answer(&mut client, "a").await;
    }
}

#[tokio::test]
async fn a_unix_socket_is_served_by_all_workers_and_removed_at_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("public.sock");
    // A daemon that died has left this socket behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let backend = Backend::start().await;
    let setup = Setup {
        listen: Listen::Unix(path.clone()),
        workers: 2,
        ..Setup::default()
    };
    let proxy = Proxy::start(backend.address(), setup);
    assert_eq!(proxy.address, ListenAddress::Unix(path.clone()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let mut clients = Vec::new();
    // Each of two clients goes to a worker of its own, and so each has its own connection to the backend.
    for _ in 0..2 {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(get("/").as_bytes()).await.unwrap();
        let mut server = backend.accept_request().await;
        server.send(ok("a")).await;
        let mut answer = [0; 38];
        within("the answer", client.read_exact(&mut answer))
            .await
            .unwrap();
        clients.push((client, server));
    }
    let second = BoundListeners::bind(&[Listen::Unix(path.clone())], 1, Vec::new());
    assert!(second.is_err(), "somebody listens there");
    proxy.workers.begin_drain();
    drop(clients);
    within("the drain", proxy.workers.drained()).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn an_inherited_socket_is_taken_by_name_and_lives_on() {
    let backend = Backend::start().await;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let kept = socket.try_clone().unwrap();
    let setup = Setup {
        listen: Listen::Systemd("public".to_owned()),
        workers: 2,
        ..Setup::default()
    };
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let inherited = vec![
        ("other".to_owned(), other.into()),
        ("public".to_owned(), socket.into()),
    ];
    let proxy = Proxy::start_inheriting(backend.address(), setup.clone(), inherited);
    assert_eq!(proxy.tcp(), kept.local_addr().unwrap());
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let _server = backend.answer(&mut client, "a").await;
    proxy.workers.begin_drain();
    assert_eq!(client.rest().await, "");
    within("the drain", proxy.workers.drained()).await;
    let address = proxy.tcp();
    proxy.workers.stop();
    // A client that comes now waits for the successor.
    let mut client = Wire::new(TcpStream::connect(address).await.unwrap());
    client.send(get("/next")).await;
    let successor = Proxy::start_inheriting(
        backend.address(),
        setup,
        vec![("public".to_owned(), kept.into())],
    );
    let mut server = backend.accept().await;
    assert!(server.head().await.starts_with("GET /next "));
    assert_eq!(successor.tcp(), address);
}

#[test]
fn an_inherited_socket_that_was_not_passed_is_an_error_that_names_it() {
    let error =
        BoundListeners::bind(&[Listen::Systemd("public".to_owned())], 1, Vec::new()).unwrap_err();
    assert!(error.to_string().contains("public"), "{error}");
}
