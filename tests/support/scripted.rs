//! An HTTP server that answers every request alike, as a test says, and remembers the requests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use serde_json::Value;

use super::renewd::DEADLINE;

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Request line and header lines, in lower case.
    pub head: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

#[derive(Clone)]
enum Answer {
    Bytes(String),
    Silence,
    Close,
    /// None before the next one is said.
    Held,
}

struct State {
    answer: Answer,
    asked: Vec<Asked>,
}

/// See the module.
pub struct Scripted {
    pub address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Scripted {
    /// Listens; says nothing yet.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().unwrap();
        let state = State {
            answer: Answer::Silence,
            asked: Vec::new(),
        };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// A URL on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers with this status and body from now on.
    pub fn answer(&self, status: u16, body: &str) {
        let length = body.len();
        self.set(Answer::Bytes(format!(
            "HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\n\r\n{body}"
        )));
    }

    /// Answers with these bytes from now on.
    pub fn bytes(&self, bytes: &str) {
        self.set(Answer::Bytes(bytes.to_owned()));
    }

    /// Reads requests and says nothing from now on.
    pub fn silence(&self) {
        self.set(Answer::Silence);
    }

    /// Keeps requests waiting until another answer is set, and gives them that one.
    pub fn hold(&self) {
        self.set(Answer::Held);
    }

    /// Waits until there have been so many requests.
    pub fn wait(&self, count: usize) {
        let (state, changed) = &*self.state;
        let few = |state: &mut State| state.asked.len() < count;
        let waited = changed.wait_timeout_while(state.lock().unwrap(), DEADLINE, few);
        let (state, _) = waited.unwrap();
        assert!(state.asked.len() >= count, "{} requests", state.asked.len());
    }

    /// Closes on every request from now on.
    pub fn close(&self) {
        self.set(Answer::Close);
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.0.lock().unwrap().asked.clone()
    }

    fn set(&self, answer: Answer) {
        self.state.0.lock().unwrap().answer = answer;
        self.state.1.notify_all();
    }
}

fn serve(stream: TcpStream, (state, changed): &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        let answer = {
            let mut state = state.lock().unwrap();
            state.asked.push(asked);
            changed.notify_all();
            let held = |state: &mut State| matches!(state.answer, Answer::Held);
            let state = changed.wait_while(state, held).unwrap();
            state.answer.clone()
        };
        match answer {
            Answer::Silence | Answer::Held => {}
            Answer::Close => return,
            Answer::Bytes(bytes) => {
                if reader.get_mut().write_all(bytes.as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { head, body })
}
