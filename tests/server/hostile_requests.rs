//! Thousands of token requests that no client would send: each gets a whole answer of renewd or a clean close, none
//! gets past renewd, and the process is none the worse.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::support::ask::{Ask, counted};
use crate::support::express::{Express, Version};
use crate::support::raw::Client;
use crate::support::renewd::{DEADLINE, Renewd, Settings, jwt, login, now};
use serde_json::{Value, json};

/// Change it to look further; a failure names the request.
const SEED: u64 = 0x5eed_0002;

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, turns: usize) -> bool {
        self.below(turns) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// How many of [`TARGETS`] are served.
const SERVED: usize = 6;

/// Targets that renewd answers, every one: those that are served, then those that the guard refuses.
const TARGETS: [&str; 12] = [
    "/api/live/token",
    "/api/live/agora-token",
    "/api/live/refresh-token",
    "/refresh-token",
    "/API/Live//TOKEN/?x=%00&y[]=1",
    "http://user@elsewhere.example/api/live/token",
    "/api/live/%74oken",
    "/api/live/x/../token",
    "/api/./live/token#f",
    "//api/live/token",
    "/api/live/token//",
    "/api/live/token%2f",
];

const HEADERS: [&str; 14] = [
    "Expect: 100-continue",
    "Accept-Encoding: gzip, br",
    "X-HTTP-Method-Override: PUT",
    "X-Forwarded-For: 127.0.0.1, \"[::1]\", unknown",
    "X-Request-Id: ../../etc",
    "Cookie: token=x; token=y",
    "Upgrade: h2c",
    "Connection: upgrade",
    "Connection: authorization, content-type",
    "Range: bytes=0-0",
    "If-None-Match: *",
    "Content-Encoding: identity",
    "Origin: null",
    "X-Long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

const MEDIA_TYPES: [&str; 7] = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json; charset=utf-16",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=--",
    "text/plain",
    "application/json, application/json",
];

const CREDENTIALS: [&str; 5] = [
    "Bearer",
    "Basic dXNlcjpwYXNz",
    "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJvd25lciJ9.",
    "Bearer ....",
    "Bearer \u{e9}.\u{e9}.\u{e9}",
];

/// The backend's own paths, which mint for every caller.
const TOKEN_HANDLERS: [&str; 3] = ["token", "agora-token", "refresh-token"];

/// A value where another belongs.
fn value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth < 6 { 12 } else { 9 }) {
        0 => json!(null),
        1 => json!(true),
        2 => json!(random.next()),
        3 => json!(-1),
        4 => json!(1e300),
        5 => json!("live_show"),
        6 => json!("*"),
        7 => json!("\u{0}\u{202e}\u{1f600}"),
        8 => json!("x".repeat(random.below(400))),
        9 => json!({"$ne": value(random, depth + 1), "__proto__": {}}),
        10 => json!([value(random, depth + 1)]),
        _ => json!({"a": {"b": value(random, depth + 1)}}),
    }
}

fn body(random: &mut Random) -> Vec<u8> {
    let mut body = json!({"channelName": "live_show", "uid": random.below(50)});
    for name in [
        "channelName",
        "channel",
        "channelId",
        "uid",
        "account",
        "role",
        "isBroadcaster",
        "isPublisher",
        "",
        "constructor",
    ] {
        if random.one_in(25) {
            body[name] = value(random, 0);
        }
    }
    let mut bytes = match random.below(12) {
        0 => b"channelName=live_show&uid=7&uid%5B%24gt%5D=&role=host&%=%zz&&=".to_vec(),
        1 => format!("[{}", "[".repeat(random.below(9000))).into_bytes(),
        _ => body.to_string().into_bytes(),
    };
    if random.one_in(3) {
        damage(random, &mut bytes, 3);
    }
    bytes
}

/// Up to `most` bytes changed, lost, doubled, or cut off.
fn damage(random: &mut Random, bytes: &mut Vec<u8>, most: usize) {
    for _ in 0..random.below(most + 1) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.byte(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, bytes[at]),
            _ if random.one_in(4) => bytes.truncate(at),
            _ => bytes.insert(at, random.byte()),
        }
    }
}

fn credentials(random: &mut Random, logins: &[String]) -> Vec<u8> {
    if random.one_in(6) {
        return random.pick(&CREDENTIALS).as_bytes().to_vec();
    }
    let mut token = format!("Bearer {}", logins[random.below(logins.len())]).into_bytes();
    if random.one_in(3) {
        damage(random, &mut token, 2);
        // A header's end is framing, which is another test's matter.
        token.retain(|byte| *byte >= b' ' && *byte != 0x7f);
    }
    token
}

/// A request whose framing is right, whatever else is wrong.
fn framed(random: &mut Random, logins: &[String]) -> Vec<u8> {
    let method = if random.one_in(10) {
        random.pick(&["GET", "PUT", "DELETE", "PATCH", "POSTS", "post"])
    } else {
        "POST"
    };
    let targets = if random.one_in(4) {
        &TARGETS[..]
    } else {
        &TARGETS[..SERVED]
    };
    let target = random.pick(targets);
    let body = body(random);
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: example.com\r\n").into_bytes();
    for _ in 0..=usize::from(random.one_in(12)) {
        request.extend_from_slice(b"Authorization: ");
        request.extend_from_slice(&credentials(random, logins));
        request.extend_from_slice(b"\r\n");
    }
    let media_type = if random.one_in(4) {
        random.pick(&MEDIA_TYPES)
    } else {
        "application/json"
    };
    for line in [
        format!("Content-Type: {media_type}"),
        random.pick(&HEADERS).to_owned(),
    ] {
        request.extend_from_slice(line.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    if random.one_in(4) {
        request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(random.below(500) + 1) {
            request.extend_from_slice(format!("{:X};x=y\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\nX-Trailer: x\r\n\r\n");
    } else {
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(&body);
    }
    request
}

/// Reads one final response strictly; `None` where the connection was closed instead.
fn read_answer(connection: &mut BufReader<TcpStream>) -> io::Result<Option<Answer>> {
    loop {
        let Some(status_line) = line(connection)? else {
            return Ok(None);
        };
        let bad = || io::Error::other(format!("not a status line: {status_line:?}"));
        let rest = status_line.strip_prefix("HTTP/1.").ok_or_else(bad)?;
        let status = rest.get(2..5).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(bad)?;
        let mut answer = Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let header = line(connection)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').ok_or_else(bad)?;
            answer
                .headers
                .push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if status < 200 {
            continue;
        }
        let length = answer.header("content-length").map(str::parse::<usize>);
        if let Some(length) = length {
            answer.body = vec![0; length.map_err(io::Error::other)?];
            connection.read_exact(&mut answer.body)?;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = read_chunks(connection)?;
        }
        return Ok(Some(answer));
    }
}

/// Whatever the backend answered in chunks.
fn read_chunks(connection: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(connection)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        connection.read_exact(&mut body[start..])?;
        if line(connection)? != Some(String::new()) {
            return Err(io::Error::other("a chunk without its end"));
        }
        if size == 0 {
            return Ok(body);
        }
    }
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if connection.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    let line = line.strip_suffix("\r\n").map(str::to_owned);
    line.ok_or_else(|| io::Error::other("a line without its end"))
        .map(Some)
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter();
        found
            .find(|(candidate, _)| candidate == name)
            .map(|(_, value)| value.as_str())
    }

    /// Holds it to the contract's shape.
    fn is_ours(&self) {
        let shown = String::from_utf8_lossy(&self.body);
        let json: Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?} {shown}"));
        let ok = self.status == 200;
        assert_eq!(json["success"], ok, "{shown}");
        assert_eq!(json["data"]["token"].is_string(), ok, "{shown}");
        assert_eq!(json["code"].is_string(), !ok, "{shown}");
        assert_eq!(json["message"].is_string(), !ok, "{shown}");
        assert!(self.header("x-reached").is_none(), "{self:?}");
        let known = [200, 400, 401, 403, 404, 405, 409, 413, 415];
        assert!(known.contains(&self.status), "{} {shown}", self.status);
    }
}

/// The beginning and the length of a request, for a failure's message.
fn shown(request: &[u8]) -> String {
    let beginning = String::from_utf8_lossy(request.get(..600).unwrap_or(request));
    format!("{} bytes: {beginning:?}", request.len())
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(connection)
}

fn serving(backend: &Express) -> Renewd {
    Renewd::start(&Settings {
        backend: Some(backend.address),
        token: "zero_uid = \"allow\"".to_owned(),
        tables: "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n".to_owned(),
        ..Settings::default()
    })
}

fn logins() -> Vec<String> {
    let mut logins: Vec<_> = ["owner", "cohost", "viewer", "troll", "\u{1f600}"]
        .map(login)
        .into();
    logins.push(jwt(&json!({"sub": "viewer"})));
    logins.push(jwt(&json!({"sub": 7.5, "exp": now() + 60})));
    logins
}

/// The process is as it was: nothing panicked, nothing piled up, and a decent request is served.
fn is_none_the_worse(renewd: &Renewd, backend: &Express, memory_before: f64) {
    let decent = Ask::viewer("somebody", 4_000_000).send(renewd);
    assert_eq!(decent.status, 200);
    for line in renewd.log().lines() {
        let line = line.to_string();
        assert!(!line.contains("panicked"), "{line}");
    }
    let hits = Client::new(backend.address)
        .send(b"GET /__control/hits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap()
        .json();
    for handler in TOKEN_HANDLERS {
        assert!(hits[handler].is_null(), "{hits}");
    }
    let grown = memory(renewd) - memory_before;
    assert!(grown < 48.0 * 1024.0 * 1024.0, "{grown} bytes more");
    renewd.eventually("all connections are closed", |renewd| {
        counted(renewd, r#"renewd_connections{listener="127.0.0.1:0"}"#) == 0
    });
}

fn memory(renewd: &Renewd) -> f64 {
    renewd.metric("process_resident_memory_bytes")
}

#[test]
fn a_wrong_request_in_a_right_frame_always_gets_our_answer() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = serving(&backend);
    let logins = logins();
    let mut random = Random(SEED);
    let memory_before = memory(&renewd);
    let mut connection = connect(renewd.public);
    let (mut granted, mut closed) = (0, 0);
    let mut last = String::new();
    for turn in 0..4000 {
        let request = framed(&mut random, &logins);
        let shown = shown(&request);
        connection.get_mut().write_all(&request).unwrap();
        let answer = read_answer(&mut connection)
            .unwrap_or_else(|error| panic!("{turn}: {error} after {last}\n{shown}"))
            .unwrap_or_else(|| panic!("{turn}: closed without an answer after {last}\n{shown}"));
        answer.is_ours();
        granted += usize::from(answer.status == 200);
        if answer.header("connection") == Some("close") {
            closed += 1;
            connection = connect(renewd.public);
        }
        last = shown;
    }
    drop(connection);
    // Most of what is refused costs no connection, and enough is right to be granted.
    assert!(granted > 200 && closed < 1200, "{granted} {closed}");
    // All of these requests are renewd's to answer: not one was forwarded.
    let forwarded = renewd.metrics();
    let forwarded = forwarded.lines().find(|line| {
        line.starts_with("renewd_http_requests_total{handler=\"forward\"") && !line.ends_with(" 0")
    });
    assert_eq!(forwarded, None);
    is_none_the_worse(&renewd, &backend, memory_before);
}

#[test]
fn whatever_bytes_come_the_answers_are_whole_and_no_handler_of_the_backends_is_reached() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = serving(&backend);
    let logins = logins();
    let mut random = Random(SEED ^ 1);
    let memory_before = memory(&renewd);
    for turn in 0..1500 {
        let mut bytes = framed(&mut random, &logins);
        if random.one_in(3) {
            bytes.extend(framed(&mut random, &logins));
        }
        damage(&mut random, &mut bytes, 6);
        let shown = shown(&bytes);
        let mut connection = connect(renewd.public);
        // The daemon may close before all bytes are written.
        let _ = connection.get_mut().write_all(&bytes);
        let _ = connection.get_mut().shutdown(Shutdown::Write);
        loop {
            match read_answer(&mut connection) {
                Ok(Some(answer)) => {
                    let json = serde_json::from_slice::<Value>(&answer.body);
                    assert!(
                        json.is_ok() || answer.body.is_empty(),
                        "{turn}: {answer:?} after {shown}"
                    );
                }
                Ok(None) => break,
                // A request that its client ends in the middle is taken back from the backend, a begun answer with it.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                    ) =>
                {
                    break;
                }
                Err(error) => panic!("{turn}: {error} after {shown}"),
            }
        }
    }
    is_none_the_worse(&renewd, &backend, memory_before);
}
