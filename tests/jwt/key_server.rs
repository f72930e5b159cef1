//! A server of one document whose answer a test sets, and which counts what is asked.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::panic)] // what fails here fails a test

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;

use super::support::{Backend, Wire, ok, within};

/// See the module.
pub struct KeyServer {
    pub address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: watch::Receiver<usize>,
}

/// What it does with a request.
#[derive(Clone)]
enum Answer {
    Bytes(String),
    Hangs,
}

impl KeyServer {
    pub async fn start() -> Self {
        let server = Backend::start().await;
        let address = server.address();
        let answer = Arc::new(Mutex::new(Answer::Hangs));
        let (count, asked) = watch::channel(0);
        let answers = Arc::clone(&answer);
        tokio::spawn(async move {
            loop {
                let wire = server.accept().await;
                tokio::spawn(serve(wire, Arc::clone(&answers), count.clone()));
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

    /// Answers with these bytes.
    pub fn answer(&self, bytes: &str) {
        *self.answer.lock().unwrap() = Answer::Bytes(bytes.to_owned());
    }

    /// Leaves every request without an answer.
    pub fn hang(&self) {
        *self.answer.lock().unwrap() = Answer::Hangs;
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

async fn serve(mut wire: Wire, answer: Arc<Mutex<Answer>>, count: watch::Sender<usize>) {
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
        let now = answer.lock().unwrap().clone();
        count.send_modify(|count| *count += 1);
        match now {
            Answer::Hangs => {}
            Answer::Bytes(bytes) => {
                if wire.stream.write_all(bytes.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}
