//! `upstream.affinity` with the real socket.io: a session lives on one server, and each of its requests has to get
//! there.

use std::collections::BTreeSet;

use crate::support::messages;
use crate::support::node::{Node, nobody, servers};
use crate::support::renewd::{Renewd, Settings};
use crate::support::wire::Wire;
use crate::upstreams::up;

/// A client of socket.io's polling transport that opens a new connection for each request, as a phone may.
struct Session {
    /// The client's address as a trusted proxy says it, or the client's cookies.
    fields: String,
    sid: String,
    home: String,
}

impl Session {
    fn open(renewd: &Renewd, fields: String) -> Self {
        let mut session = Self {
            fields,
            sid: String::new(),
            home: String::new(),
        };
        let (status, opened) = session.send(renewd, "GET", "");
        assert_eq!(status, 200, "{opened}");
        let opened: serde_json::Value = serde_json::from_str(&opened[1..]).unwrap();
        session.sid = format!("&sid={}", opened["sid"].as_str().unwrap());
        assert_eq!(session.send(renewd, "POST", "40"), (200, "ok".to_owned()));
        let (_, joined) = session.send(renewd, "GET", "");
        assert!(joined.starts_with("40{"), "{joined}");
        session.home = session.who(renewd).unwrap();
        session
    }

    fn head(&self, method: &str, transport: &str) -> String {
        format!(
            "{method} /socket.io/?EIO=4&transport={transport}{} HTTP/1.1\r\nHost: app.example\r\n{}",
            self.sid, self.fields
        )
    }

    fn send(&self, renewd: &Renewd, method: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            self.head(method, "polling"),
            body.len()
        );
        let mut wire = messages::Wire::open(renewd.public);
        wire.write(request.as_bytes());
        let answer = wire.read(false).unwrap();
        let cookies = answer.values("set-cookie");
        assert!(cookies.is_empty(), "a cookie of renewd's: {cookies:?}");
        (answer.status(), String::from_utf8(answer.body).unwrap())
    }

    /// The server that answers the client; the error holds any other answer.
    fn who(&self, renewd: &Renewd) -> Result<String, String> {
        let (status, said) = self.send(renewd, "POST", "420[\"who\"]");
        if status != 200 {
            return Err(said);
        }
        let (_, said) = self.send(renewd, "GET", "");
        let name = said.strip_prefix("430[\"");
        let name = name.and_then(|said| said.strip_suffix("\"]"));
        name.map(str::to_owned).ok_or(said)
    }

    fn is_at_home(&self, renewd: &Renewd, when: &str) {
        assert_eq!(self.who(renewd), Ok(self.home.clone()), "{when}");
    }

    /// Upgrades from polling to WebSocket, as socket.io's clients do.
    fn upgrade(&self, renewd: &Renewd) {
        let mut wire = Wire::connect(renewd.public);
        wire.send(format!(
            "{}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.head("GET", "websocket")
        ));
        let head = wire.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        wire.send_text_frame("2probe");
        wire.until("3probe");
        wire.send_text_frame("5");
        wire.send_text_frame("421[\"who\"]");
        wire.until(&format!("431[\"{}\"]", self.home));
    }
}

fn settings(urls: &[String], upstream: &str) -> Settings {
    Settings {
        upstream: servers(urls.iter().map(String::as_str), upstream),
        server: "trusted_proxies = [\"127.0.0.1\"]".to_owned(),
        ..Settings::default()
    }
}

fn address(number: usize) -> String {
    format!("X-Forwarded-For: 198.51.100.{number}\r\n")
}

/// At least six sessions, of which each server has one.
fn everywhere(renewd: &Renewd, servers: usize, fields: impl Fn(usize) -> String) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut homes = BTreeSet::new();
    for number in 1..=200 {
        let session = Session::open(renewd, fields(number));
        homes.insert(session.home.clone());
        sessions.push(session);
        if homes.len() == servers && number >= 6 {
            return sessions;
        }
    }
    panic!("200 clients are all on {homes:?}");
}

fn a_session_stays(affinity: &str, fields: impl Fn(usize) -> String) {
    let [one, lost, three] = ["one", "two", "three"].map(|name| Node::socket_io(name, 0));
    let urls = [one.url(), lost.url(), three.url()];
    let renewd = Renewd::start(&settings(&urls, affinity));
    let sessions = everywhere(&renewd, urls.len(), fields);
    for session in &sessions {
        session.is_at_home(&renewd, "at first");
    }
    let [one_url, lost_url, three_url] = urls;
    let turned = [three_url, lost_url.clone(), one_url];
    renewd.reconfigure(&settings(
        &turned,
        &format!("{affinity}\nidle_timeout = \"3s\""),
    ));
    for session in &sessions {
        session.is_at_home(&renewd, "after a reload that turns the servers round");
    }

    let (name, port) = (lost.name.clone(), lost.address.port());
    drop(lost);
    let (gone, others): (Vec<_>, Vec<_>) =
        sessions.iter().partition(|session| session.home == name);
    for session in &gone {
        // Another server takes its requests, and knows no such session.
        let said = session.who(&renewd).unwrap_err();
        assert!(said.contains("Session ID unknown"), "{said}");
    }
    assert_eq!(up(&renewd, &lost_url), 0);
    for session in &others {
        session.is_at_home(&renewd, "while another server is lost");
    }
    let _back = Node::socket_io(&name, port);
    renewd.eventually("it is back", |renewd| up(renewd, &lost_url) == 1);
    for session in &others {
        session.is_at_home(&renewd, "after another server's return");
        session.upgrade(&renewd);
    }
    let again = Session::open(&renewd, gone[0].fields.clone());
    assert_eq!(again.home, name, "its clients come back with it");
}

#[test]
fn a_session_of_socket_io_stays_on_its_server_by_address() {
    a_session_stays("affinity = \"address\"", address);
}

#[test]
fn a_session_of_socket_io_stays_on_its_server_by_cookie() {
    a_session_stays("affinity = \"cookie:login\"", |number| {
        format!("Cookie: a=b; login=user-{number}\r\n")
    });
}

#[test]
fn without_affinity_a_session_is_lost_at_its_second_request() {
    let nodes = ["one", "two"].map(|name| Node::socket_io(name, 0));
    let urls = nodes.each_ref().map(Node::url);
    let renewd = Renewd::start(&settings(&urls, "affinity = \"off\""));
    // One worker serves one connection, and the connection's requests take turns.
    let mut wire = messages::Wire::open(renewd.public);
    let mut get = |sid: &str| {
        let request = format!(
            "GET /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: app.example\r\n\r\n"
        );
        wire.write(request.as_bytes());
        wire.read(false).unwrap()
    };
    let opened = get("");
    let opened: serde_json::Value = serde_json::from_slice(&opened.body[1..]).unwrap();
    let lost = get(&format!("&sid={}", opened["sid"].as_str().unwrap()));
    assert_eq!(lost.status(), 400);
    assert_eq!(lost.json()["message"], "Session ID unknown");
}

#[test]
fn a_server_that_takes_no_connection_is_passed_by_for_all_of_its_clients() {
    let node = Node::start("alive");
    let [first, last] = [(); 2].map(|()| format!("http://{}", nobody()));
    let urls = [first, node.url(), last];
    let renewd = Renewd::start(&settings(&urls, "affinity = \"address\""));
    for number in 0..20 {
        let request = format!(
            "POST /upload HTTP/1.1\r\nHost: app.example\r\n{}Content-Length: 3\r\n\r\nabc",
            address(number)
        );
        let answer = renewd.client().send(request.as_bytes()).unwrap();
        assert_eq!((answer.status, &answer.json()["length"]), (200, &3.into()));
    }
}
