//! The addresses on which the running binary listens, its health answer there, and the end of accepting.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use crate::support::express::{Express, Version};
use crate::support::raw::{Client, Response};
use crate::support::renewd::{DEADLINE, Renewd, Settings, spawn, write_files};
use rustix::process::Signal;

fn get(address: SocketAddr, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n");
    Client::new(address)
        .send(request.as_bytes())
        .expect("an answer")
}

#[test]
fn the_port_of_a_platform_serves_both_families() {
    let backend = Express::start(Version::Four, &[]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = Settings {
        backend: Some(backend.address),
        server: "listen = [\"env:PORT\"]".to_owned(),
        ..Settings::default()
    };
    write_files(directory.path(), &settings);
    let config = directory.path().join("config.toml");
    let arguments = ["run", "--config", config.to_str().expect("UTF-8")];
    let (child, log) = spawn(&arguments, |command| {
        command.env("PORT", "0");
    });
    let renewd = Renewd::ready(child, log, directory);
    assert_eq!(renewd.public.ip(), Ipv6Addr::UNSPECIFIED);
    let port = renewd.public.port();
    for (address, client) in [
        (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "127.0.0.1"),
        (SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "::1"),
    ] {
        // The address isn't written ::ffff:127.0.0.1, which no limiter or allow list would know again.
        assert_eq!(get(address, "/wire/seen").json()["ip"], client);
    }
}

#[test]
fn a_dual_stack_listener_and_one_of_each_family_serve_alike() {
    for listen in ["[\"[::]:0\"]", "[\"0.0.0.0:0\"]"] {
        let renewd = Renewd::start(&Settings {
            server: format!("listen = {listen}\nhealth_path = \"/up\""),
            ..Settings::default()
        });
        let port = renewd.public.port();
        let (four, six) = (
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        );
        assert_eq!(get(four, "/up").status, 200);
        if listen.contains("::") {
            assert_eq!(get(six, "/up").status, 200);
        } else {
            assert!(TcpStream::connect(six).is_err());
        }
    }
}

#[test]
fn a_unix_socket_stands_beside_a_port() {
    let renewd = Renewd::start(&Settings {
        server: "listen = [\"unix:public.sock\", \"127.0.0.1:0\"]\nhealth_path = \"/up\""
            .to_owned(),
        ..Settings::default()
    });
    assert_eq!(get(renewd.public, "/up").status, 200);
    let mut socket = UnixStream::connect(renewd.file("public.sock")).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let request = b"GET /up HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    socket.write_all(request).expect("a reader");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn the_health_path_is_ours_alone_and_only_as_written() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        server: "health_path = \"/health\"".to_owned(),
        ..Settings::default()
    });
    // The backend has a /health of its own, and says "ok" there.
    let answer = get(renewd.public, "/health");
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (200, &"ready".into())
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(get(renewd.public, "/Health").json()["status"], "ok");
    // The public answer has no details, which only the admin listener gives.
    assert_eq!(answer.json().as_object().map(serde_json::Map::len), Some(1));
}

#[test]
fn a_stop_goes_on_accepting_for_the_shutdown_delay_but_is_not_ready() {
    let backend = Express::start(Version::Four, &[]);
    let mut renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        server: "health_path = \"/up\"\nshutdown_delay = \"3s\"".to_owned(),
        ..Settings::default()
    });
    assert_eq!(get(renewd.public, "/up").status, 200);
    renewd.signal(Signal::TERM);
    // Each on a connection of its own: they are still accepted.
    renewd.eventually("not being ready", |renewd| {
        get(renewd.public, "/up").status == 503
    });
    assert_eq!(get(renewd.public, "/health").status, 200);
    assert!(renewd.wait().success());
    assert!(TcpStream::connect(renewd.public).is_err());
}
