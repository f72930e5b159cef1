//! A server that speaks MongoDB's wire protocol as badly as a test wants, which no real one does.

// Each test program uses a part of this, and fails by panicking.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use mongodb::bson::{Document, doc};

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;

/// The answer to a `find`: the bytes, given the request's id; empty closes the connection.
pub type Answer = Arc<dyn Fn(i32) -> Vec<u8> + Send + Sync>;

/// See the module.
pub struct HostileMongo {
    pub address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

impl HostileMongo {
    /// Listens; every collection is empty.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(HashMap::new()));
        let shared = Arc::clone(&answers);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &answers));
            }
        });
        Self { address, answers }
    }

    /// Answers every `find` in this collection so from now on.
    pub fn answers(&self, collection: &str, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(collection.to_owned(), answer);
    }

    /// Puts this one document in place of a collection from now on.
    pub fn has(&self, collection: &str, document: &Document) {
        let body = found(vec![document.clone()]);
        self.answers(collection, Arc::new(move |id| message(id, &bytes(&body))));
    }
}

/// The answer to a `find` with these documents.
pub fn found(documents: Vec<Document>) -> Document {
    doc! { "cursor": { "firstBatch": documents, "id": 0_i64, "ns": "live.any" }, "ok": 1.0 }
}

/// A document as bytes.
pub fn bytes(document: &Document) -> Vec<u8> {
    document.to_vec().unwrap()
}

/// An `OP_MSG` with this body in answer to a request.
pub fn message(request: i32, body: &[u8]) -> Vec<u8> {
    let section = [&[0; 4][..], &[0], body].concat();
    framed(OP_MSG, request, &section)
}

/// A message whose header tells the truth.
pub fn framed(operation: i32, request: i32, content: &[u8]) -> Vec<u8> {
    let length = i32::try_from(16 + content.len()).unwrap();
    let header = [length, 7, request, operation].map(i32::to_le_bytes);
    [&header.concat(), content].concat()
}

fn serve(mut stream: TcpStream, answers: &Mutex<HashMap<String, Answer>>) {
    while let Some((id, operation, command)) = read(&mut stream) {
        let name = command.keys().next().cloned().unwrap_or_default();
        let answer = match name.as_str() {
            "hello" | "isMaster" | "ismaster" => {
                let hello = bytes(&hello());
                if operation == OP_QUERY {
                    // Flags, cursor, first, number of documents.
                    let head = [&[0; 16][..], &1_i32.to_le_bytes()].concat();
                    framed(OP_REPLY, id, &[head, hello].concat())
                } else {
                    message(id, &hello)
                }
            }
            "find" => {
                let collection = command.get_str("find").unwrap_or_default();
                let answer = answers.lock().unwrap().get(collection).cloned();
                answer.map_or_else(
                    || message(id, &bytes(&found(Vec::new()))),
                    |answer| answer(id),
                )
            }
            "aggregate" => {
                let failed = doc! { "ok": 0.0, "code": 40573, "errmsg": "no change streams" };
                message(id, &bytes(&failed))
            }
            _ => message(id, &bytes(&doc! { "ok": 1.0 })),
        };
        if answer.is_empty() || stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn hello() -> Document {
    doc! {
        "ismaster": true, "isWritablePrimary": true, "helloOk": true, "maxBsonObjectSize": 16_777_216,
        "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "minWireVersion": 0,
        "maxWireVersion": 21, "readOnly": false, "logicalSessionTimeoutMinutes": 30, "ok": 1.0,
    }
}

fn read(stream: &mut TcpStream) -> Option<(i32, i32, Document)> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    let field = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut content = vec![0; usize::try_from(field(0)).ok()?.checked_sub(16)?];
    stream.read_exact(&mut content).ok()?;
    let body = match field(12) {
        // Flags, and the kind of the first section.
        OP_MSG => content.get(5..)?,
        // Flags, the collection's name, two numbers.
        OP_QUERY => {
            let name = content.get(4..)?.iter().position(|byte| *byte == 0)?;
            content.get(4 + name + 1 + 8..)?
        }
        _ => return None,
    };
    Some((field(4), field(12), Document::from_reader(body).ok()?))
}
