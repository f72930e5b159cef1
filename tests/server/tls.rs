//! TLS on the public port: handshakes, HTTP/1.1 inside, sleep, tunnels, the end of a connection, client certificates.

use crate::support;

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::plane::{Backend, Proxy, Setup, Wire, get, ok, within};
use crate::support::renewd::{Renewd, Settings};
use crate::support::tls::{Authority, NAME, Pair, chosen, connect};
use renewd::io::tls::{HTTP1, HTTP2};
use renewd::server::Event;
use renewd::server::stall::Cause;
use renewd::telemetry::traffic_labels::ParseErrorKind;

const SHORT: Duration = Duration::from_millis(200);

fn secured(pair: &Pair) -> Setup {
    Setup {
        tls: Some(pair.identity(None)),
        ..Setup::default()
    }
}

async fn cut(proxy: &Proxy, cause: Cause) {
    proxy
        .log
        .wait("the cut", |log| log.count(Event::TimedOut(cause)) == 1)
        .await;
}

async fn client(authority: &Authority, proxy: &Proxy) -> Wire {
    let connector = authority.connector(&[HTTP1], None);
    let connected = within("the handshake", connect(&connector, proxy.tcp())).await;
    Wire::over(connected.unwrap())
}

#[tokio::test]
async fn a_sleeping_connection_serves_its_next_request_and_closes_in_order() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let mut setup = secured(&authority.issue("a", 30));
    setup.timeouts.idle = Duration::from_secs(2);
    let proxy = Proxy::start(backend.address(), setup);
    let mut client = client(&authority, &proxy).await;
    let mut server = None;
    for round in 1..=3 {
        client.send(get("/")).await;
        backend.answer_on(&mut server, &mut client, "a").await;
        proxy
            .log
            .wait("sleep", |log| log.count(Event::Slept) >= round)
            .await;
    }
    assert!(client.ends_in_order().await, "no close_notify");
}

#[tokio::test]
async fn a_request_in_many_records_that_wakes_a_connection_is_not_lost() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let proxy = Proxy::start(backend.address(), secured(&authority.issue("a", 30)));
    let mut client = client(&authority, &proxy).await;
    client.send(get("/first")).await;
    let mut server = backend.answer(&mut client, "a").await;
    proxy
        .log
        .wait("sleep", |log| log.count(Event::Slept) == 1)
        .await;
    client.send("GET /second HT").await;
    let long = format!("TP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "y".repeat(9000));
    client.send(long).await;
    assert!(server.head().await.starts_with("GET /second "));
    server.finish(&mut client, "b").await;
}

#[tokio::test]
async fn the_protocol_is_chosen_by_alpn() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let proxy = Proxy::start(backend.address(), secured(&authority.issue("a", 30)));
    // The protocols that the client offers, and the one that the server chooses: none where none was offered.
    let table: [(&[&[u8]], &[u8]); 4] = [
        (&[HTTP1], HTTP1),
        (&[HTTP1, HTTP2], HTTP2),
        (&[HTTP2], HTTP2),
        (&[], b""),
    ];
    for (offered, expected) in table {
        let connector = authority.connector(offered, None);
        let stream = connect(&connector, proxy.tcp()).await.unwrap();
        assert_eq!(chosen(&stream).unwrap_or_default(), expected);
    }
    let connector = authority.connector(&[b"spdy/3"], None);
    assert!(connect(&connector, proxy.tcp()).await.is_err());
}

#[tokio::test]
async fn a_handshake_must_end_in_time_and_holds_nobody_up() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let mut setup = secured(&authority.issue("a", 30));
    setup.timeouts.tls_handshake = SHORT;
    let proxy = Proxy::start(backend.address(), setup);
    let mut silent = proxy.connect().await;
    let mut slow = proxy.connect().await;
    // These bytes begin a ClientHello.
    slow.send([22, 3, 1, 2, 0, 1]).await;
    let mut client = client(&authority, &proxy).await;
    client.send(get("/")).await;
    backend.accept().await.head().await;
    assert_eq!(silent.rest().await, "");
    slow.rest().await;
    proxy
        .log
        .wait("both being counted", |log| {
            log.count(Event::ParseFailed(ParseErrorKind::TlsHandshakeTimeout)) == 2
        })
        .await;
    drop(client);
    proxy
        .log
        .wait("all counted out", |log| log.count(Event::Closed) == 3)
        .await;
}

#[tokio::test]
async fn a_handshake_without_a_request_keeps_nobody_out() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    for shaken in [false, true] {
        let mut setup = secured(&authority.issue("a", 30));
        setup.max_connections = 10;
        let long = Duration::from_hours(1);
        setup.timeouts.header = long;
        setup.timeouts.tls_handshake = long;
        let proxy = Proxy::start(backend.address(), setup);
        let mut crowd = Vec::new();
        for _ in 0..10 {
            let one = if shaken {
                client(&authority, &proxy).await
            } else {
                let mut one = proxy.connect().await;
                // These bytes begin a ClientHello.
                one.send([22, 3, 1, 2, 0, 1]).await;
                one
            };
            crowd.push(one);
        }
        proxy
            .log
            .wait("the crowd", |log| log.count(Event::Opened) == 10)
            .await;
        let mut newcomers = Vec::new();
        for _ in 0..3 {
            let mut newcomer = client(&authority, &proxy).await;
            newcomer.send(get("/")).await;
            let server = backend.accept_request().await;
            newcomers.push((newcomer, server));
        }
        assert_eq!(crowd[0].rest().await, "");
        assert_eq!(
            proxy
                .log
                .count(Event::ParseFailed(ParseErrorKind::TlsHandshake)),
            0
        );
        assert_eq!(
            proxy
                .log
                .count(Event::ParseFailed(ParseErrorKind::TlsHandshakeTimeout)),
            0
        );
    }
}

#[tokio::test]
async fn what_is_not_tls_is_counted_and_who_just_leaves_is_not() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let proxy = Proxy::start(backend.address(), secured(&authority.issue("a", 30)));
    drop(proxy.connect().await);
    proxy
        .log
        .wait("the port scan's end", |log| log.count(Event::Closed) == 1)
        .await;
    assert_eq!(
        proxy
            .log
            .count(Event::ParseFailed(ParseErrorKind::TlsHandshake)),
        0
    );
    let mut clear = proxy.connect().await;
    clear.send(get("/")).await;
    clear.rest().await;
    // A client that doesn't trust this certificate says so.
    let stranger = Authority::new().connector(&[HTTP1], None);
    assert!(connect(&stranger, proxy.tcp()).await.is_err());
    proxy
        .log
        .wait("both failures", |log| {
            log.count(Event::ParseFailed(ParseErrorKind::TlsHandshake)) == 2
        })
        .await;
}

#[tokio::test]
async fn deadlines_hold_inside_tls() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let mut setup = secured(&authority.issue("a", 30));
    setup.timeouts.header = SHORT;
    setup.timeouts.body_stall = SHORT;
    let proxy = Proxy::start(backend.address(), setup);
    let mut slow = client(&authority, &proxy).await;
    slow.send("GET / HTTP/1.1\r\nHos").await;
    assert_eq!(slow.rest().await, "");
    cut(&proxy, Cause::Header).await;
    let mut stalled = client(&authority, &proxy).await;
    stalled
        .send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        .await;
    let _server = backend.accept_request().await;
    assert_eq!(stalled.rest().await, "");
    cut(&proxy, Cause::Body).await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    const LENGTH: usize = 8 << 20;
    let (backend, authority) = (Backend::start().await, Authority::new());
    let proxy = Proxy::start(backend.address(), secured(&authority.issue("a", 30)));
    let client = client(&authority, &proxy).await;
    let (read, mut write) = tokio::io::split(client.stream);
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&vec![b'u'; LENGTH]).await.unwrap();
        write.flush().await.unwrap();
        write
    });
    let mut server = backend.accept_request().await;
    assert_eq!(server.exactly(LENGTH).await, vec![b'u'; LENGTH]);
    let write = sending.await.unwrap();
    let answering = tokio::spawn(async move {
        server.send(ok(&"d".repeat(LENGTH))).await;
        server
    });
    let mut client = Wire::over(read.unsplit(write));
    client.head().await;
    assert_eq!(client.exactly(LENGTH).await, vec![b'd'; LENGTH]);
    answering.await.unwrap();
}

const UPGRADE: &str =
    "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test]
async fn a_tunnel_passes_bytes_and_half_closes_through_tls() {
    const LENGTH: usize = 8 << 20;
    let (backend, authority) = (Backend::start().await, Authority::new());
    let proxy = Proxy::start(backend.address(), secured(&authority.issue("a", 30)));
    let mut client = client(&authority, &proxy).await;
    client.send([UPGRADE, "early"].concat()).await;
    let mut server = backend.accept_request().await;
    server.send([SWITCHING, "first"].concat()).await;
    client.head().await;
    assert_eq!(client.exactly(5).await, b"first");
    assert_eq!(server.exactly(5).await, b"early");

    // This is more than sockets hold, so that encrypted bytes wait for room.
    let sending = tokio::spawn(async move {
        server.send(vec![b'd'; LENGTH]).await;
        server
    });
    assert_eq!(client.exactly(LENGTH).await, vec![b'd'; LENGTH]);
    let mut server = sending.await.unwrap();

    client.half_close().await;
    assert_eq!(server.rest().await, "");
    server.send("last words").await;
    assert_eq!(client.exactly(10).await, b"last words");
    drop(server);
    assert!(client.ends_in_order().await, "no close_notify");
    proxy
        .log
        .wait("its end", |log| log.count(Event::TunnelClosed) == 1)
        .await;
}

#[tokio::test]
async fn a_stop_lets_a_request_over_tls_finish_and_says_goodbye() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let proxy = Proxy::start(backend.address(), secured(&authority.issue("a", 30)));
    let mut busy = client(&authority, &proxy).await;
    busy.send(get("/busy")).await;
    let mut server = backend.accept_request().await;
    let mut handshaking = proxy.connect().await;
    proxy
        .log
        .wait("both being open", |log| log.count(Event::Opened) == 2)
        .await;
    proxy.workers.begin_drain();
    server.send(ok("done")).await;
    let answer = busy.until("done").await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(busy.ends_in_order().await, "no close_notify");
    // The handshake would have had ten seconds, and the stop leaves it one.
    assert_eq!(handshaking.rest().await, "");
    within("the drain", proxy.workers.drained()).await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_checked() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let server = authority.issue("server", 30);
    let setup = Setup {
        tls: Some(server.identity(Some(&authority.certificate()))),
        ..Setup::default()
    };
    let proxy = Proxy::start(backend.address(), setup);

    let known = authority.issue("client", 30);
    let connector = authority.connector(&[HTTP1], Some(&known));
    let mut client = Wire::over(connect(&connector, proxy.tcp()).await.unwrap());
    client.send(get("/")).await;
    let _server = backend.answer(&mut client, "a").await;

    let stranger = Authority::new();
    let foreign = stranger.issue("client", 30);
    for own in [None, Some(&foreign)] {
        let connector = authority.connector(&[HTTP1], own);
        // In TLS 1.3 the client learns of it when it first reads.
        if let Ok(stream) = connect(&connector, proxy.tcp()).await {
            let mut refused = Wire::over(stream);
            assert!(!refused.ends_in_order().await);
        }
    }
    proxy
        .log
        .wait("both refusals", |log| {
            log.count(Event::ParseFailed(ParseErrorKind::TlsHandshake)) == 2
        })
        .await;
    assert!(backend.is_untouched().await);
}

/// A daemon that speaks TLS on its first listener and clear text on its second.
fn daemon(authority: &Authority, backend: std::net::SocketAddr, server: &str) -> Renewd {
    let pair = authority.issue("daemon", 30);
    let tables = format!(
        "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
        pair.certificate.display(),
        pair.key.display()
    );
    Renewd::start(&Settings {
        backend: Some(backend),
        tables,
        server: server.to_owned(),
        ..Settings::default()
    })
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_both_protocols_and_the_backend_learns_of_https() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let renewd = daemon(&authority, backend.address(), "");
    let port = renewd.public.port();
    for (option, version, host) in [("--http1.1", "1.1", "1"), ("--http2", "2", "2")] {
        let url = format!("https://{NAME}:{port}/hello?{host}");
        let resolve = format!("{NAME}:{port}:127.0.0.1");
        let ca = authority.certificate().display().to_string();
        let asking = tokio::task::spawn_blocking(move || {
            let format = "\n%{http_version} %{response_code}";
            run(
                "curl",
                &[
                    "-sS",
                    option,
                    "--cacert",
                    &ca,
                    "--resolve",
                    &resolve,
                    "-w",
                    format,
                    &url,
                ],
            )
        });
        let mut server = backend.accept().await;
        let head = server.head().await;
        assert!(
            head.starts_with(&format!(
                "GET /hello?{host} HTTP/1.1\r\nhost: {NAME}:{port}\r\n"
            )),
            "{head}"
        );
        assert!(head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        server.send(answer).await;
        assert_eq!(asking.await.unwrap(), format!("hi\n{version} 200"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_gets_tls_1_2_and_1_3_and_resumes_but_nothing_older() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let renewd = daemon(&authority, backend.address(), "");
    let address = renewd.public.to_string();
    let directory = tempfile::tempdir().unwrap();
    let session = directory.path().join("session");
    let session = session.to_str().unwrap();
    let ca = authority.certificate();
    let ca = ca.to_str().unwrap();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let base = [
            "s_client",
            version,
            "-connect",
            &address,
            "-servername",
            NAME,
            "-CAfile",
            ca,
            "-verify_return_error",
            "-quiet",
            "-no_ign_eof",
        ];
        let verbose: Vec<&str> = base
            .iter()
            .copied()
            .filter(|option| *option != "-quiet")
            .collect();
        let first = run("openssl", &[&verbose[..], &["-sess_out", session]].concat());
        assert!(
            first.contains(&format!("New, {name}"))
                || first.contains(&format!("Protocol  : {name}")),
            "{first}"
        );
        assert!(first.contains("Verify return code: 0 (ok)"), "{first}");
        if version == "-tls1_2" {
            let again = run("openssl", &[&verbose[..], &["-sess_in", session]].concat());
            assert!(again.contains("Reused, TLSv1.2"), "{again}");
        }
    }
    let old = run(
        "openssl",
        &[
            "s_client",
            "-tls1_1",
            "-cipher",
            "ALL:@SECLEVEL=0",
            "-connect",
            &address,
        ],
    );
    assert!(
        old.contains("New, (NONE)") && old.contains(" alert "),
        "{old}"
    );
    assert!(renewd.metric("renewd_http_parse_errors_total{kind=\"tls_handshake\"}") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_marked_plain_is_not_tls_and_nor_is_a_unix_socket() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let socket = tempfile::tempdir().unwrap();
    let socket = socket.path().join("public.sock");
    let listen = format!(
        "listen = [\"plain:127.0.0.1:0\", \"127.0.0.1:0\", \"unix:{}\"]",
        socket.display()
    );
    let renewd = daemon(&authority, backend.address(), &listen);
    let clear = tokio::net::TcpStream::connect(renewd.public).await.unwrap();
    let unix = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let mut server = None;
    for mut client in [
        Wire::new(clear),
        Wire::over(renewd::io::transport::Transport::Unix(unix)),
    ] {
        client.send(get("/")).await;
        let mut wire = backend.accept().await;
        let head = wire.head().await;
        assert!(head.contains("\r\nx-forwarded-proto: http\r\n"), "{head}");
        // The connection is closed, or the next request would come on it where the same worker has both.
        wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na")
            .await;
        client.until("\r\n\r\na").await;
        server = Some((wire, client));
    }
    drop(server);
    let name = "renewd_connections{listener=\"plain:127.0.0.1:0\"}";
    assert!(renewd.metrics().contains(name), "{name}");
}

#[test]
fn a_key_that_everybody_may_read_stops_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = Authority::new();
    let pair = authority.issue("daemon", 30);
    std::fs::set_permissions(&pair.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        tables: format!(
            "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
            pair.certificate.display(),
            pair.key.display()
        ),
        ..Settings::default()
    };
    support::renewd::write_files(directory.path(), &settings);
    let config = directory.path().join("config.toml");
    let said = run(
        env!("CARGO_BIN_EXE_renewd"),
        &["check", "--config", config.to_str().unwrap()],
    );
    assert!(
        said.contains("server.tls.private_key_file") && said.contains("every user can read"),
        "{said}"
    );
}
