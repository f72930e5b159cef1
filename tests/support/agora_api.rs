//! A stand-in for Agora's REST API, over TLS: it holds each request for a kicking-rule to what Agora documents, and
//! keeps the rules.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here fails a test

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use renewd::io::tls;
use renewd::terms::clock::Clock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Map, Value, json};

use super::renewd::{APP_ID, DEADLINE};
use super::tls::Authority;

/// The credentials that Agora accepts.
pub const CUSTOMER: &str = "customer-of-agora";
pub const CUSTOMER_SECRET: &str = "hunter2-the-customer-secret";

/// The requests that Agora allows in a second.
const A_SECOND: usize = 10;

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// As Agora does.
    Serve,
    /// With this status, and this header line if it isn't empty.
    Fail(u16, &'static str),
    /// Not at all, until the client gives up.
    Hang,
    /// As Agora does, after [`AgoraApi::release`].
    Hold,
}

/// One request.
#[derive(Clone, Debug)]
pub struct RuleRequest {
    /// `POST` or `DELETE`.
    pub method: String,
    /// When it had come, on the stand-in's own clock.
    pub at: Duration,
    pub body: Value,
    /// The answer; 0 while there is none.
    pub status: u16,
}

#[derive(Default)]
struct State {
    script: VecDeque<Reaction>,
    usual: Option<Reaction>,
    requests: Vec<RuleRequest>,
    /// The faults of a request by Agora's documents.
    faults: Vec<String>,
    rules: BTreeMap<u64, Value>,
    made: u64,
    released: bool,
    /// A rule that is asked for twice is one rule.
    merges: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    clock: Clock,
}

/// See the module.
pub struct AgoraApi {
    pub address: SocketAddr,
    authority: Authority,
    shared: Arc<Shared>,
}

impl AgoraApi {
    /// Listens, and answers as Agora does.
    pub fn start() -> Self {
        let authority = Authority::new();
        let pair = authority.issue("agora", 30);
        let chain = CertificateDer::pem_file_iter(&pair.certificate).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            clock: Clock::system(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&serving));
                thread::spawn(move || {
                    let connection = ServerConnection::new(config).unwrap();
                    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                    // A client that breaks off, or can't verify the certificate, is not this test's matter.
                    while shared.answer(&mut stream).is_some() {}
                });
            }
        });
        Self {
            address,
            authority,
            shared,
        }
    }

    /// `[agora.rest]` that leads here, with this secret.
    pub fn table_with(&self, secret: &str) -> String {
        format!(
            "[agora.rest]\ncustomer_id = \"{CUSTOMER}\"\ncustomer_secret = \"{secret}\"\nbase_url = \"https://{}\"\n",
            self.address
        )
    }

    /// `[agora.rest]` that leads here.
    pub fn table(&self) -> String {
        self.table_with(CUSTOMER_SECRET)
    }

    /// Lets a daemon that is to be started verify the certificate.
    pub fn is_trusted_by(&self, command: &mut Command) {
        command.env("SSL_CERT_FILE", self.authority.certificate());
    }

    /// Answers the next requests like this, one after another, and goes on as usual.
    pub fn next(&self, reactions: impl IntoIterator<Item = Reaction>) {
        self.shared.state().script.extend(reactions);
    }

    /// Answers every request like this from now on.
    pub fn usually(&self, reaction: Reaction) {
        self.shared.state().usual = Some(reaction);
    }

    /// Gives a rule for a user who has one already the same id.
    pub fn has_one_rule_for_each_user(&self) {
        self.shared.state().merges = true;
    }

    /// Answers the requests that are held.
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.changed.notify_all();
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<RuleRequest> {
        self.shared.state().requests.clone()
    }

    /// The rules that are in force.
    pub fn rules(&self) -> BTreeMap<u64, Value> {
        self.shared.state().rules.clone()
    }

    /// Waits until the requests are as `found` says, and gives them.
    pub fn wait(&self, what: &str, found: impl Fn(&[RuleRequest]) -> bool) -> Vec<RuleRequest> {
        let state = self.shared.state();
        let missing = |state: &mut State| !found(&state.requests);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, DEADLINE * 2, missing);
        let (state, _) = waited.unwrap();
        assert!(
            found(&state.requests),
            "never: {what}: {:#?}",
            state.requests
        );
        state.requests.clone()
    }
}

impl Drop for AgoraApi {
    /// Every test ends with the question whether Agora would have taken every request.
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let state = self.shared.state();
        assert!(state.faults.is_empty(), "{:#?}", state.faults);
        for window in state.requests.windows(A_SECOND + 1) {
            let time = window[A_SECOND].at.saturating_sub(window[0].at);
            let number = window.len();
            assert!(
                time >= Duration::from_secs(1),
                "{number} requests in {time:?}"
            );
        }
    }
}

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// A request as it came.
struct Received {
    line: String,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn receive(stream: &mut Stream) -> Option<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let fields: BTreeMap<_, _> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = fields.get("content-length").map_or("0", |length| length);
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some(Received {
        line: lines.swap_remove(0),
        fields,
        body,
    })
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Answers one request; `None` where the connection is over.
    fn answer(&self, stream: &mut Stream) -> Option<()> {
        let received = receive(stream)?;
        let (reaction, place) = {
            let mut state = self.state();
            let body = serde_json::from_slice(&received.body).unwrap_or_default();
            state.requests.push(RuleRequest {
                method: received.line.split(' ').next().unwrap().to_owned(),
                at: self.clock.elapsed(),
                body,
                status: 0,
            });
            state.faults.extend(fault(&received));
            let scripted = state.script.pop_front();
            let usual = || state.usual.clone().unwrap_or(Reaction::Serve);
            (scripted.unwrap_or_else(usual), state.requests.len() - 1)
        };
        self.changed.notify_all();
        let (status, field, body) = match reaction {
            Reaction::Hang => {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest);
                return None;
            }
            Reaction::Fail(status, field) => (status, field, json!({"message": "as scripted"})),
            Reaction::Serve => self.serve(&received),
            Reaction::Hold => {
                let state = self.state();
                let held = |state: &mut State| !state.released;
                let waited = self.changed.wait_timeout_while(state, DEADLINE, held);
                drop(waited);
                self.serve(&received)
            }
        };
        self.state().requests[place].status = status;
        self.changed.notify_all();
        let body = body.to_string();
        let field = if field.is_empty() {
            String::new()
        } else {
            format!("{field}\r\n")
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{field}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = stream.get_mut();
        stream.write_all(answer.as_bytes()).ok()?;
        stream.flush().ok()
    }

    fn serve(&self, received: &Received) -> (u16, &'static str, Value) {
        let credentials = STANDARD.encode(format!("{CUSTOMER}:{CUSTOMER_SECRET}"));
        if received.fields.get("authorization") != Some(&format!("Basic {credentials}")) {
            return (
                401,
                "",
                json!({"message": "Invalid authentication credentials"}),
            );
        }
        let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        let mut state = self.state();
        if received.line.starts_with("DELETE ") {
            let id = body["id"].as_u64().unwrap_or_default();
            return match state.rules.remove(&id) {
                Some(_) => (200, "", json!({"status": "success", "id": id})),
                None => (404, "", json!({"message": "no such rule"})),
            };
        }
        let same = |rule: &Value| rule["cname"] == body["cname"] && rule["uid"] == body["uid"];
        let known = state.rules.iter().find(|(_, rule)| same(rule));
        let known = known.map(|(id, _)| *id).filter(|_| state.merges);
        let id = known.unwrap_or_else(|| {
            state.made += 1;
            1952 + state.made
        });
        state.rules.insert(id, body);
        (200, "", json!({"status": "success", "id": id}))
    }
}

/// The parts of a request that Agora doesn't document.
fn fault(received: &Received) -> Option<String> {
    let wrong = |what: &str| Some(format!("{what}: {}", received.line));
    if received.fields.get("content-type").map(String::as_str) != Some("application/json") {
        return wrong("no application/json");
    }
    let basic = received.fields.get("authorization");
    if !basic.is_some_and(|value| value.starts_with("Basic ")) {
        return wrong("no Basic authentication");
    }
    let body: Map<String, Value> = match serde_json::from_slice(&received.body) {
        Ok(body) => body,
        Err(error) => return wrong(&error.to_string()),
    };
    let members: Vec<&str> = body.keys().map(String::as_str).collect();
    if body.get("appid") != Some(&json!(APP_ID)) {
        return wrong("another appid");
    }
    match &*received.line {
        "POST /dev/v1/kicking-rule HTTP/1.1" => {
            let mut expected = ["appid", "cname", "privileges", "time_in_seconds", "uid"];
            expected.sort_unstable();
            let mut members = members;
            members.sort_unstable();
            let uid = body.get("uid").and_then(Value::as_u64);
            let time = body.get("time_in_seconds").and_then(Value::as_u64);
            let right = members == expected
                && uid.is_some_and(|uid| (1..=u64::from(u32::MAX)).contains(&uid))
                && time.is_some_and(|time| (10..=86_430).contains(&time))
                && body["cname"].as_str().is_some_and(|name| !name.is_empty())
                && body["privileges"] == json!(["join_channel"]);
            if right {
                None
            } else {
                wrong(&format!("{body:?}"))
            }
        }
        "DELETE /dev/v1/kicking-rule HTTP/1.1" => {
            let right = members.len() == 2 && body.get("id").is_some_and(Value::is_u64);
            if right {
                None
            } else {
                wrong(&format!("{body:?}"))
            }
        }
        _ => wrong("no such endpoint"),
    }
}
