//! The current app's database, the app in front of it, and renewd in front of both.

use std::time::Duration;

use serde_json::{Value, json};

use super::app::{ASTROLOGER, CHANNEL};
use super::ask::Ask;
use super::express::Express;
use super::mongo::Mongo;
use super::raw::{Client, Response};
use super::renewd::{ADMIN_TOKEN, Renewd, Settings};

/// The database that the app and renewd share.
pub const DATABASE: &str = "live";

/// The three, ready.
pub struct Site {
    pub mongo: Mongo,
    pub express: Express,
    pub renewd: Renewd,
}

impl Site {
    /// A site over this database; `lines` are added to both `[accounts]` and `[streams]`.
    pub fn new(mongo: Mongo, lines: &str) -> Self {
        let express = Express::with_database(&mongo.uri(DATABASE));
        let renewd = Renewd::start(&settings(&mongo.uri(DATABASE), &express, lines));
        Self {
            mongo,
            express,
            renewd,
        }
    }

    /// Signs a user in, with further fields of the account; the login token.
    pub fn login(&self, user: &str, fields: &Value) -> String {
        let answer = self
            .express
            .control("/login", &merged(fields, "astrologerId", user));
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Changes fields of an account.
    pub fn account(&self, user: &str, fields: &Value) {
        self.express
            .control("/accounts", &merged(fields, "astrologerId", user));
    }

    /// Changes fields of all documents of the astrologer's channel.
    pub fn channel(&self, fields: &Value) {
        let change = merged(fields, "agoraChannelName", CHANNEL);
        self.express.control("/streams/change", &change);
    }

    /// Adds a stream of the astrologer's.
    pub fn stream(&self, fields: &Value) {
        self.express
            .control("/streams", &merged(fields, "astrologerId", ASTROLOGER));
    }

    /// Asks for a token for the astrologer's channel.
    pub fn ask(&self, login: &str, uid: u32, role: &str) -> (u16, Value) {
        ask(&self.renewd, login, uid, role)
    }

    /// The answer to a forwarded request, which must be the app's.
    pub fn forwarded(&self) -> Response {
        let request = b"GET /__control/hits HTTP/1.1\r\nHost: app.example\r\n\r\n";
        self.renewd.client().send(request).expect("an answer")
    }
}

/// Asks for a token for the astrologer's channel.
pub fn ask(renewd: &Renewd, login: &str, uid: u32, role: &str) -> (u16, Value) {
    let body = json!({"channelName": CHANNEL, "uid": uid, "role": role});
    let answer = Ask::new("nobody", &body).bearer(login).send(renewd);
    if answer.status == 503 {
        assert!(answer.header("retry-after").is_some());
    }
    (answer.status, answer.json())
}

/// renewd's configuration for the app and its database.
pub fn settings(uri: &str, express: &Express, lines: &str) -> Settings {
    Settings {
        backend: Some(express.address),
        jwt: "subject_claim = \"astrologerId\"\nsession_claim = \"sessionId\"".to_owned(),
        sources: Some(format!(
            "[mongodb]\nuri = \"{uri}\"\n\n[accounts]\nsource = \"mongodb\"\ncollection = \"astrologers\"\n\
             deny_when = [{{ field = \"isSuspended\", equals = true, code = \"account_suspended\", reason_field = \"suspensionReason\" }}]\n\
             session_field = \"activeSession.sessionId\"\n{lines}\n\n[streams]\nsource = \"mongodb\"\n{lines}\n\n"
        )),
        tables: "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n".to_owned(),
        ..Settings::default()
    }
}

/// The status page's data, and `/readyz`'s.
pub fn status(renewd: &Renewd) -> (Value, Value) {
    let get = |path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
        );
        let answer = Client::new(renewd.admin).send(request.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        answer.json()
    };
    (get("/v1/status"), get("/readyz"))
}

/// How long something took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let clock = renewd::terms::clock::Clock::system();
    let before = clock.elapsed();
    let result = work();
    (result, clock.elapsed().saturating_sub(before))
}

fn merged(fields: &Value, name: &str, value: &str) -> Value {
    let mut fields = fields.clone();
    fields[name] = value.into();
    fields
}
