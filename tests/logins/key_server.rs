//! A server of one document, whose answer a test sets and which counts its requests.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::panic)] // what fails here fails a test

use std::net::SocketAddr;

use serde_json::Value;
use tokio::sync::watch;

use crate::support::plane::{Backend, Wire, ok, within};

/// See the module.
pub struct KeyServer {
    pub address: SocketAddr,
    answer: watch::Sender<Answer>,
    asked: watch::Receiver<usize>,
}

/// The server's reaction to a request.
#[derive(Clone)]
enum Answer {
    /// One after the other, the last for good.
    Bytes(Vec<String>),
    /// The server waits until there is another answer.
    Hangs,
}

impl KeyServer {
    pub async fn start() -> Self {
        let server = Backend::start().await;
        let address = server.address();
        let answer = watch::Sender::new(Answer::Hangs);
        let (count, asked) = watch::channel(0);
        let answers = answer.clone();
        tokio::spawn(async move {
            loop {
                let wire = server.accept().await;
                tokio::spawn(serve(wire, answers.clone(), count.clone()));
            }
        });
        Self {
            address,
            answer,
            asked,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// Answers 200 with these keys.
    pub fn serve(&self, keys: &[Value]) {
        self.answer(&ok(&serde_json::json!({ "keys": keys }).to_string()));
    }

    /// Answers 200 with the first keys, waiting requests included, then with the second, and so on.
    pub fn serve_in_turn(&self, sets: &[&[Value]]) {
        let set = |keys: &&[Value]| ok(&serde_json::json!({ "keys": keys }).to_string());
        self.set(Answer::Bytes(sets.iter().map(set).collect()));
    }

    /// Answers with these bytes.
    pub fn answer(&self, bytes: &str) {
        self.set(Answer::Bytes(vec![bytes.to_owned()]));
    }

    fn set(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until it was asked so often.
    pub async fn asked_times(&self, times: usize) {
        let mut asked = self.asked.clone();
        within("being asked", asked.wait_for(|asked| *asked >= times))
            .await
            .unwrap();
    }
}

async fn serve(mut wire: Wire, answer: watch::Sender<Answer>, count: watch::Sender<usize>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut read = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match wire.stream.read(&mut chunk).await {
            Ok(length @ 1..) => read.extend_from_slice(&chunk[..length]),
            _ => return,
        }
        if !read.ends_with(b"\r\n\r\n") {
            continue;
        }
        read.clear();
        count.send_modify(|count| *count += 1);
        let mut changes = answer.subscribe();
        let there = |answer: &Answer| !matches!(answer, Answer::Hangs);
        if changes.wait_for(there).await.is_err() {
            return;
        }
        let mut now = String::new();
        answer.send_if_modified(|answer| {
            if let Answer::Bytes(answers) = answer {
                now.clone_from(&answers[0]);
                if answers.len() > 1 {
                    answers.remove(0);
                }
            }
            false
        });
        if wire.stream.write_all(now.as_bytes()).await.is_err() {
            return;
        }
    }
}
