//! Several backend servers: turns, failover, health, reload, and every way to reach one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::node::{Node, ask, nobody, servers};
use crate::support::raw::Client;
use crate::support::renewd::{Renewd, Settings, write_files};
use crate::support::tls::Authority;
use crate::support::wire::Wire;

fn settings<'u>(urls: impl IntoIterator<Item = &'u str>, lines: &str) -> Settings {
    Settings {
        upstream: servers(urls, lines),
        server: "health_path = \"/ready\"".to_owned(),
        ..Settings::default()
    }
}

pub(crate) fn up(renewd: &Renewd, url: &str) -> u64 {
    renewd.whole(&format!("renewd_upstream_up{{server=\"{url}\"}}"))
}

/// The readiness that the public port and the admin listener say. The server may come back between the two questions,
/// once.
fn ready(renewd: &Renewd) -> u16 {
    let both = || {
        let request = b"GET /ready HTTP/1.1\r\nHost: app.example\r\n\r\n";
        let public = renewd.client().send(request).unwrap().status;
        (public, renewd.ask_admin("GET", "/readyz", "").status)
    };
    let (public, private) = both();
    if public == private {
        return public;
    }
    let (public, private) = both();
    assert_eq!(public, private, "both say the same");
    public
}

/// The servers that answer so many requests on one connection, which one worker serves.
fn asked(renewd: &Renewd, requests: usize) -> BTreeMap<String, usize> {
    let mut client = renewd.client();
    let mut names = BTreeMap::new();
    for _ in 0..requests {
        let name = ask(&mut client, "/")["name"].as_str().unwrap().to_owned();
        *names.entry(name).or_default() += 1;
    }
    names
}

fn shares<const N: usize>(of: [(&str, usize); N]) -> BTreeMap<String, usize> {
    of.map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn servers_take_turns_and_each_is_counted() {
    let nodes = ["one", "two", "three"].map(Node::start);
    let urls = nodes.each_ref().map(Node::url);
    let renewd = Renewd::start(&settings(urls.iter().map(String::as_str), ""));
    let expected = shares([("one", 3), ("two", 3), ("three", 3)]);
    assert_eq!(asked(&renewd, 9), expected);
    for url in &urls {
        let series = format!("renewd_upstream_requests_total{{server=\"{url}\",outcome=\"ok\"}}");
        assert_eq!(renewd.whole(&series), 3, "{url}");
    }
}

#[test]
fn what_a_server_refuses_goes_to_the_next_whatever_it_is() {
    let dead = format!("http://{}", nobody());
    let node = Node::start("alive");
    let renewd = Renewd::start(&settings([dead.as_str(), &node.url()], ""));
    assert_eq!((up(&renewd, &dead), ready(&renewd)), (1, 200), "untried");
    // Each is the first request that the worker of a new connection forwards, and begins with the dead server until the
    // worker knows of its death.
    let answer = renewd.post("/upload", "", "0123456789");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["length"], 10);
    assert_eq!((up(&renewd, &dead), up(&renewd, &node.url())), (0, 1));
    let retries = format!("renewd_upstream_retries_total{{server=\"{dead}\"}}");
    assert_eq!(renewd.whole(&retries), 1);
    // No request tries the dead server again.
    assert_eq!(asked(&renewd, 20), shares([("alive", 20)]));
    assert_eq!(renewd.whole(&retries), 1);
    assert_eq!(ready(&renewd), 200);
    let status = &renewd.status()["upstreams"];
    assert_eq!(
        (&status[0]["up"], &status[1]["up"]),
        (&false.into(), &true.into())
    );
}

#[test]
fn a_server_that_dies_is_left_out_and_taken_back_without_any_request() {
    let mut one = Node::start("one");
    let two = Node::start("two");
    let renewd = Renewd::start(&settings([one.url().as_str(), &two.url()], ""));
    assert_eq!(asked(&renewd, 10), shares([("one", 5), ("two", 5)]));
    one.kill();
    assert_eq!(
        asked(&renewd, 10),
        shares([("two", 10)]),
        "no request is lost"
    );
    assert_eq!(up(&renewd, &one.url()), 0);
    let _one = one.start_again();
    renewd.eventually("it is back", |renewd| up(renewd, &one.url()) == 1);
    assert_eq!(asked(&renewd, 10), shares([("one", 5), ("two", 5)]));
    for said in [
        "the backend is not reachable",
        "the backend is reachable again",
    ] {
        let logged = |line: &serde_json::Value| {
            (line["msg"] == said && line["server"] == one.url()).then_some(())
        };
        renewd.log().wait(said, logged);
    }
}

#[test]
fn with_all_of_them_gone_every_one_is_tried() {
    let mut one = Node::start("one");
    let mut two = Node::start("two");
    let renewd = Renewd::start(&settings([one.url().as_str(), &two.url()], ""));
    one.kill();
    two.kill();
    assert_eq!(
        renewd.post("/", "", "").json()["code"],
        "upstream_unreachable"
    );
    assert_eq!(ready(&renewd), 503);
    // No check has found the server yet; the request finds it.
    let two = two.start_again();
    assert_eq!(asked(&renewd, 1), shares([("two", 1)]));
    assert_eq!((ready(&renewd), up(&renewd, &two.url())), (200, 1));
}

#[test]
fn a_server_that_fails_its_checks_rests_and_the_last_one_never_does() {
    let nodes = ["one", "two"].map(Node::start);
    let urls = nodes.each_ref().map(Node::url);
    let checks = "health = { path = \"/health\", interval = \"100ms\" }";
    let renewd = Renewd::start(&settings(urls.iter().map(String::as_str), checks));
    nodes[0].ask("/health?status=503");
    renewd.eventually("one fails", |renewd| up(renewd, &urls[0]) == 0);
    assert_eq!(asked(&renewd, 6), shares([("two", 6)]));
    nodes[1].ask("/health?status=500");
    renewd.eventually("two fails", |renewd| up(renewd, &urls[1]) == 0);
    assert_eq!(
        asked(&renewd, 6),
        shares([("one", 3), ("two", 3)]),
        "better than nothing"
    );
    assert_eq!(ready(&renewd), 200, "both can be reached");
    nodes[0].ask("/health?status=302");
    renewd.eventually("one is well", |renewd| up(renewd, &urls[0]) == 1);
    assert_eq!(asked(&renewd, 6), shares([("one", 6)]));
    let said = "the backend fails its health check";
    renewd.log().wait(said, |line| {
        let found = line["msg"] == said && line["server"] == urls[0];
        (found && line["error"] == "the answer is 503 Service Unavailable").then_some(())
    });

    // Without checks there is nothing to fail.
    renewd.reconfigure(&settings(urls.iter().map(String::as_str), ""));
    renewd.eventually("nothing is wrong", |renewd| up(renewd, &urls[1]) == 1);
}

#[test]
fn what_is_known_of_a_server_outlives_a_reload_and_its_series_go_with_it() {
    let dead = format!("http://{}", nobody());
    let [one, two] = ["one", "two"].map(Node::start);
    let renewd = Renewd::start(&settings([dead.as_str(), &one.url()], ""));
    assert_eq!(asked(&renewd, 2), shares([("one", 2)]));
    renewd.reconfigure(&settings([two.url().as_str(), &dead], ""));
    assert_eq!((up(&renewd, &dead), up(&renewd, &two.url())), (0, 1));
    assert_eq!(asked(&renewd, 4), shares([("two", 4)]));
    assert!(
        !renewd.metrics().contains(&one.url()),
        "series of removed servers go"
    );
}

/// Lets all clients ask at once, answers them when all of them wait, and says how many connections were opened so far.
fn wave(renewd: &Renewd, clients: &mut [Wire], control: &mut Client) -> u64 {
    for client in &mut *clients {
        client.send("GET /hold HTTP/1.1\r\nHost: app.example\r\n\r\n");
    }
    renewd.eventually("all of them wait", |_| {
        ask(control, "/")["held"] == clients.len()
    });
    let opened = ask(control, "/release")["opened"].as_u64().unwrap();
    for client in clients {
        client.until("}");
    }
    opened
}

#[test]
fn a_load_that_comes_again_opens_no_connection() {
    const BUSY: usize = 1024;
    let node = Node::start_at("one", "0", &[("KEEP_ALIVE", "600000")]);
    let renewd = Renewd::start(&Settings {
        upstream: servers(
            [node.url().as_str()],
            "idle_timeout = \"60s\"\nconnect_timeout = \"30s\"",
        ),
        ..Settings::default()
    });
    let mut control = Client::new(node.address);
    let mut clients: Vec<Wire> = (0..BUSY).map(|_| Wire::connect(renewd.public)).collect();
    let first = wave(&renewd, &mut clients, &mut control);
    // These are the clients' connections and the one that asks the server.
    assert_eq!(first, 1 + u64::try_from(BUSY).unwrap());
    for _ in 0..3 {
        assert_eq!(wave(&renewd, &mut clients, &mut control), first);
    }
    // Fewer clients at once need no more connections than are open.
    assert_eq!(wave(&renewd, &mut clients[..10], &mut control), first);
}

#[test]
fn a_unix_socket_is_a_server_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backend.sock");
    let place = path.to_str().unwrap();
    let mut node = Node::start_at("unix", place, &[]);
    let url = format!("unix:{place}");
    let renewd = Renewd::start(&settings([url.as_str()], ""));
    let answer = renewd.post("/upload?a=b", "", "0123456789").json();
    assert_eq!(
        (&answer["length"], &answer["url"]),
        (&10.into(), &"/upload?a=b".into())
    );
    assert_eq!(answer["host"], "example.com", "the client's");
    let old = Client::new(renewd.public)
        .send(b"GET / HTTP/1.0\r\n\r\n")
        .unwrap();
    assert_eq!(old.json()["host"], "localhost", "nobody named one");
    node.stop();
    assert_eq!(renewd.post("/", "", "").status, 502);
    assert_eq!((up(&renewd, &url), ready(&renewd)), (0, 503));
    let _node = Node::start_at("unix", place, &[]);
    renewd.eventually("it is back", |renewd| ready(renewd) == 200);
    assert_eq!(asked(&renewd, 2), shares([("unix", 2)]));
}

#[test]
fn an_https_server_is_believed_only_with_a_certificate_that_the_system_believes() {
    let [known, unknown] = [Authority::new(), Authority::new()];
    let start = |name: &str, authority: &Authority| {
        let pair = authority.issue(name, 30);
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (certificate, key) = (path(&pair.certificate), path(&pair.key));
        let environment = [("TLS_CERTIFICATE", &*certificate), ("TLS_KEY", &*key)];
        Node::start_at(name, "0", &environment)
    };
    let good = start("good", &known);
    let bad = start("bad", &unknown);
    let url = |node: &Node| format!("https://{}", node.address);
    let directory = tempfile::tempdir().unwrap();
    let checks = "health = { path = \"/health\", interval = \"100ms\" }";
    let urls = [url(&bad), url(&good)];
    let settings = settings(urls.iter().map(String::as_str), checks);
    write_files(directory.path(), &settings);
    let renewd = Renewd::start_in(directory, &[], |command| {
        command.env("SSL_CERT_FILE", known.certificate());
    });
    let answer = renewd.post("/upload", "", "0123456789").json();
    assert_eq!(
        (&answer["name"], &answer["length"]),
        (&"good".into(), &10.into())
    );
    assert_eq!(asked(&renewd, 4), shares([("good", 4)]));
    renewd.log().wait("the reason", |line| {
        let found = line["msg"] == "the backend is not reachable" && line["server"] == url(&bad);
        let why = line["error"].as_str()?;
        (found && why.contains("certificate")).then_some(())
    });
    assert_eq!((up(&renewd, &url(&bad)), up(&renewd, &url(&good))), (0, 1));
    // This is more than any buffer on the way can hold.
    let mut wire = Wire::connect(renewd.public);
    let body = vec![b'x'; 8 << 20];
    wire.send(format!(
        "POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    wire.send(&body);
    assert!(
        wire.until("}")
            .contains(&format!("\"length\":{}", body.len()))
    );
}
