//! Answers that no MongoDB gives: cut, overlong, of the wrong shape, damaged in the middle. None lets a stranger in,
//! ends a stream, or takes the process down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use std::sync::Arc;
use std::time::Duration;

use crate::support::ask::Ask;
use crate::support::database::timed;
use crate::support::hostile_mongo::{Answer, HostileMongo, bytes, found, framed, message};
use crate::support::renewd::{Renewd, Settings};
use mongodb::bson::{Bson, DateTime, Document, RawDocumentBuf, doc, rawdoc};
use serde_json::json;

const STREAMS: &str = "livestreams";
const ACCOUNTS: &str = "astrologers";

/// renewd before a database that says what the test wants; the owner is live and holds a token.
struct Site {
    mongo: HostileMongo,
    renewd: Renewd,
}

impl Site {
    fn new() -> Self {
        let mongo = HostileMongo::start();
        let sources = format!(
            "[mongodb]\nuri = \"mongodb://{}/live\"\ntimeout = \"1s\"\n\n[accounts]\nsource = \"mongodb\"\n\
             collection = \"{ACCOUNTS}\"\ncache_ttl = \"0s\"\n\
             deny_when = [{{ field = \"isSuspended\", equals = true, code = \"account_suspended\" }}]\n\n\
             [streams]\nsource = \"mongodb\"\ncache_ttl = \"0s\"\n\n",
            mongo.address
        );
        let site = Self {
            renewd: Renewd::start(&Settings {
                sources: Some(sources),
                tables: "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n".to_owned(),
                ..Settings::default()
            }),
            mongo,
        };
        site.all_is_well();
        assert_eq!(site.as_holder(), 200);
        site
    }

    fn all_is_well(&self) {
        self.mongo.has(STREAMS, &stream());
        self.mongo.has(ACCOUNTS, &account());
    }

    fn ask(&self, subject: &str, uid: u32, role: &str) -> u16 {
        let body = json!({"channelName": "live_show", "uid": uid, "role": role});
        Ask::new(subject, &body).send(&self.renewd).status
    }

    fn as_holder(&self) -> u16 {
        self.ask("owner", 1, "publisher")
    }

    /// Holds that no stranger gets in and no holder is refused while one collection answers so, and that renewd
    /// recovers then.
    fn withstands(&self, collection: &str, what: &str, answer: Answer) {
        self.mongo.answers(collection, answer);
        let (stranger, took) = timed(|| self.ask("stranger", 2, "subscriber"));
        assert_eq!(stranger, 503, "{collection}: {what}");
        assert!(
            took < Duration::from_secs(10),
            "{collection}: {what}: {took:?}"
        );
        assert_eq!(self.as_holder(), 200, "{collection}: {what}");
        self.all_is_well();
        let up = ["streams", "accounts"]
            .map(|source| format!("renewd_source_up{{source=\"{source}\"}} 1"));
        self.renewd.eventually("it recovers", |renewd| {
            assert_eq!(self.as_holder(), 200, "{collection}: {what}");
            let page = renewd.metrics();
            up.iter().all(|up| page.contains(up))
        });
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let lines = self.renewd.log().lines();
        let panicked = lines
            .iter()
            .find(|line| line.to_string().contains("panicked"));
        assert!(
            std::thread::panicking() || panicked.is_none(),
            "{panicked:?}"
        );
    }
}

fn stream() -> Document {
    doc! { "_id": 1, "isLive": true, "astrologerId": "owner", "bannedViewers": [{ "userId": "stranger-no-more" }] }
}

fn account() -> Document {
    doc! { "_id": 1, "isSuspended": false }
}

fn reply(body: Document) -> Answer {
    Arc::new(move |id| message(id, &bytes(&body)))
}

/// The answer to a `find` with its bytes changed; the header then says the length they should have.
fn changed(document: Document, change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Answer {
    Arc::new(move |id| {
        let mut body = bytes(&found(vec![document.clone()]));
        change(&mut body);
        message(id, &body)
    })
}

/// Writes over what follows a text in the bytes.
fn after(body: &mut [u8], text: &str, skip: usize, new: &[u8]) {
    let at = body
        .windows(text.len())
        .position(|part| part == text.as_bytes());
    let at = at.unwrap() + text.len() + skip;
    body[at..at + new.len()].copy_from_slice(new);
}

/// A message whose header gives another length.
fn length(length: i32) -> Answer {
    Arc::new(move |id| {
        let mut bytes = message(id, &bytes(&found(vec![stream()])));
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    })
}

/// A live stream's document with so many others inside one another.
fn nested(levels: usize) -> RawDocumentBuf {
    let mut bytes = Vec::new();
    for level in (1..=levels).rev() {
        let length = i32::try_from(5 + 8 * level).unwrap();
        bytes.extend([&length.to_le_bytes()[..], b"\x03a\0"].concat());
    }
    bytes.extend([5, 0, 0, 0, 0]);
    bytes.extend(std::iter::repeat_n(0, levels));
    let inner = RawDocumentBuf::from_bytes(bytes).unwrap();
    rawdoc! { "isLive": true, "astrologerId": "owner", "more": inner }
}

#[test]
fn messages_that_are_no_answers() {
    let site = Site::new();
    let answers: Vec<(&str, Answer)> = vec![
        ("closed", Arc::new(|_| Vec::new())),
        ("an overlong length", length(i32::MAX)),
        ("a length of 100 MB", length(100_000_000)),
        ("a negative length", length(-1)),
        ("a length within the header", length(3)),
        ("half of it", length(60)),
        ("more than there is", length(5000)),
        ("another operation", Arc::new(|id| framed(42, id, &[0; 40]))),
        ("text", Arc::new(|_| b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
        ("no section", Arc::new(|id| framed(2013, id, &[0; 4]))),
        ("no document", Arc::new(|id| message(id, &[]))),
        ("an empty document", reply(doc! {})),
        ("ok alone", reply(doc! { "ok": 1.0 })),
        ("not ok", reply(doc! { "ok": 0.0 })),
        (
            "not ok, oddly",
            reply(doc! { "ok": f64::NAN, "errmsg": 7, "code": "x" }),
        ),
        (
            "an error",
            reply(doc! { "ok": 0.0, "code": 11600, "errmsg": "shutting down" }),
        ),
        (
            "a cursor of text",
            reply(doc! { "cursor": "none", "ok": 1.0 }),
        ),
        (
            "a cursor without a batch",
            reply(doc! { "cursor": { "id": 0_i64, "ns": "live.any" }, "ok": 1.0 }),
        ),
        (
            "a batch of numbers",
            reply(
                doc! { "cursor": { "firstBatch": [1, 2], "id": 0_i64, "ns": "live.any" }, "ok": 1.0 },
            ),
        ),
        (
            "a batch that is a document",
            reply(
                doc! { "cursor": { "firstBatch": {}, "id": 0_i64, "ns": "live.any" }, "ok": 1.0 },
            ),
        ),
    ];
    for (what, answer) in answers {
        site.withstands(STREAMS, what, Arc::clone(&answer));
    }
}

#[test]
fn documents_that_are_damaged_or_say_nothing_that_can_be_read() {
    let site = Site::new();
    let not_utf8 = |field: &'static str, document: fn() -> Document| {
        changed(document(), move |body| after(body, field, 5, &[0xff]))
    };
    let too_long = |field: &'static str, document: fn() -> Document| {
        changed(document(), move |body| {
            after(body, field, 1, &[0xff, 0xff, 0xff, 0x7f]);
        })
    };
    for (what, answer) in [
        (
            "an owner that isn't UTF-8",
            not_utf8("astrologerId", stream),
        ),
        (
            "a banned viewer that isn't UTF-8",
            not_utf8("userId", stream),
        ),
        (
            "an owner of two gigabytes",
            too_long("astrologerId", stream),
        ),
        ("a list of two gigabytes", too_long("bannedViewers", stream)),
        (
            "an unknown type",
            changed(stream(), |body| {
                let at = body.windows(6).position(|part| part == b"isLive").unwrap();
                body[at - 1] = 0x42;
            }),
        ),
    ] {
        site.withstands(STREAMS, what, answer);
    }
    let odd = |field: &str, value: Bson| {
        let mut document = stream();
        document.insert(field, value);
        reply(found(vec![document]))
    };
    for value in [
        Bson::DateTime(DateTime::from_millis(1)),
        Bson::Double(f64::NAN),
        Bson::Document(doc! {}),
    ] {
        let what = format!("live: {value}");
        site.withstands(STREAMS, &what, odd("isLive", value.clone()));
        let mut document = account();
        document.insert("isSuspended", value);
        site.withstands(ACCOUNTS, &what, reply(found(vec![document])));
    }
    for levels in [150, 100_000] {
        let body = rawdoc! {
            "cursor": { "firstBatch": [nested(levels)], "id": 0_i64, "ns": "live.any" }, "ok": 1.0,
        };
        let body = body.into_bytes();
        let answer = Arc::new(move |id| message(id, &body));
        site.withstands(STREAMS, &format!("{levels} levels"), answer);
    }
}

#[test]
fn what_is_large_or_odd_and_can_be_read_is_taken_at_its_word() {
    let site = Site::new();
    let many: Vec<Document> = (0..10_000)
        .map(|number| doc! { "userId": format!("viewer-{number}") })
        .collect();
    let mut large = stream();
    large.insert("bannedViewers", many);
    site.mongo.has(STREAMS, &large);
    assert_eq!(site.as_holder(), 200);
    assert_eq!(site.ask("viewer-9999", 3, "subscriber"), 403);
    assert_eq!(site.ask("viewer-10000", 4, "subscriber"), 200);
    for owner in [
        Bson::Null,
        Bson::Double(f64::NAN),
        Bson::DateTime(DateTime::from_millis(0)),
        Bson::Array(Vec::new()),
    ] {
        let mut odd = stream();
        odd.insert("astrologerId", owner.clone());
        site.mongo.has(STREAMS, &odd);
        assert_eq!(site.as_holder(), 403, "{owner}");
        for subject in ["null", "NaN", "undefined", "0"] {
            assert_eq!(site.ask(subject, 5, "publisher"), 403, "{owner} {subject}");
        }
    }
    // Ten documents where one was asked for: the first counts.
    site.mongo
        .answers(STREAMS, reply(found(vec![stream(); 10])));
    assert_eq!(site.as_holder(), 200);
    // An answer without documents is an empty collection, which proves no account or stream to be absent.
    for collection in [STREAMS, ACCOUNTS] {
        site.all_is_well();
        site.mongo.answers(collection, reply(found(Vec::new())));
        assert_eq!(site.as_holder(), 200, "{collection}");
        assert_eq!(site.ask("newcomer", 6, "subscriber"), 503, "{collection}");
    }
}
