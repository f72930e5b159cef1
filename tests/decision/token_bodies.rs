//! A token request's body on the wire: media types, sizes, framing, and keys given twice.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::ask::{Ask, Row};
use crate::support::raw::Client;
use crate::support::renewd::{DEADLINE, Renewd, Settings, login};

const LIMIT: usize = 16 * 1024;

fn typed(media_type: &str, body: &str) -> Ask {
    Ask {
        media_type: media_type.to_owned(),
        ..Ask::text("viewer", body)
    }
}

/// A valid body of exactly this many bytes.
fn body_of(length: usize) -> String {
    let body = r#"{"channelName":"live_show","uid":7}"#;
    format!("{body}{}", " ".repeat(length - body.len()))
}

#[test]
fn a_form_is_read_like_json() {
    let renewd = Renewd::start(&Settings::default());
    for media_type in [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-URLencoded; charset=UTF-8",
    ] {
        let ask = typed(
            media_type,
            "channelName=live%5Fshow&uid=77&isPublisher=false",
        );
        let answer = ask.send(&renewd);
        assert_eq!(answer.status, 200);
        let data = &answer.json()["data"];
        assert_eq!(
            (&data["channelName"], &data["uid"]),
            (&"live_show".into(), &77.into())
        );
    }
    for body in [
        "channelName=live_show&uid=",
        "channelName%5B%24ne%5D=&uid=7",
        "channelName=%FF&uid=7",
    ] {
        let ask = typed("application/x-www-form-urlencoded", body);
        assert_eq!(ask.send(&renewd).status, 400, "{body}");
    }
}

#[test]
fn a_key_given_twice_is_refused_whatever_its_value_and_spelling() {
    let renewd = Renewd::start(&Settings::default());
    for (media_type, body) in [
        (
            "application/json",
            r#"{"channelName":"live_show","uid":7,"uid":8}"#,
        ),
        (
            "application/json",
            r#"{"channelName":"live_show","uid":7,"uid":7}"#,
        ),
        (
            "application/json",
            r#"{"channelName":"live_show","uid":7,"\u0075id":8}"#,
        ),
        (
            "application/json",
            r#"{"channelName":"live_show","uid":7,"uid":null}"#,
        ),
        (
            "application/x-www-form-urlencoded",
            "channelName=live_show&uid=7&uid=8",
        ),
        (
            "application/x-www-form-urlencoded",
            "channelName=live_show&uid=7&%75id=7",
        ),
    ] {
        let (answer, _) = Row::new(400, "invalid_request", "unknown", "client")
            .holds_for(&renewd, &typed(media_type, body));
        assert_eq!(answer.json()["message"], "uid: given twice", "{body}");
    }
}

#[test]
fn what_is_neither_json_nor_a_form_is_415() {
    let renewd = Renewd::start(&Settings::default());
    let body = r#"{"channelName":"live_show","uid":7}"#;
    for media_type in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/ld+json",
        "json",
        "",
    ] {
        let row = Row::new(415, "unsupported_media_type", "unknown", "client");
        row.holds_for(&renewd, &typed(media_type, body));
    }
    for headers in ["Content-Encoding: gzip\r\n", "Content-Type: text/plain\r\n"] {
        let ask = Ask {
            headers: headers.to_owned(),
            ..Ask::text("viewer", body)
        };
        assert_eq!(ask.send(&renewd).status, 415, "{headers}");
    }
}

#[test]
fn a_body_of_16_kib_is_read_and_one_byte_more_is_413() {
    let renewd = Renewd::start(&Settings::default());
    assert_eq!(
        Ask::text("viewer", &body_of(LIMIT)).send(&renewd).status,
        200
    );
    Row::new(413, "body_too_large", "unknown", "client")
        .holds_for(&renewd, &Ask::text("viewer", &body_of(LIMIT + 1)));
}

#[test]
fn a_chunked_body_has_the_same_limit() {
    let renewd = Renewd::start(&Settings::default());
    for (length, status) in [(LIMIT, 200), (LIMIT + 1, 413), (4 * LIMIT, 413)] {
        let mut request = format!(
            "POST /api/live/token HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            login("viewer")
        );
        for chunk in body_of(length).as_bytes().chunks(1000) {
            let text = std::str::from_utf8(chunk).unwrap();
            let _ = write!(request, "{:x}\r\n{text}\r\n", chunk.len());
        }
        request += "0\r\n\r\n";
        let answer = Client::new(renewd.public).send(request.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{length}");
    }
}

/// The head of a request that waits for `100 Continue`.
fn expecting(length: usize) -> String {
    format!(
        "POST /api/live/token HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n",
        login("viewer")
    )
}

#[test]
fn a_body_announced_too_large_is_refused_before_it_is_sent() {
    let renewd = Renewd::start(&Settings::default());
    let answer = Client::new(renewd.public)
        .send(expecting(LIMIT + 1).as_bytes())
        .unwrap();
    // The first line read is the final one: no 100 came before.
    Row::new(413, "body_too_large", "unknown", "client").answers(&answer);
    // The bytes that follow could be the body or another request: the connection must end.
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_body_that_fits_is_asked_for() {
    let renewd = Renewd::start(&Settings::default());
    let body = body_of(100);
    let mut connection = TcpStream::connect(renewd.public).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    connection
        .write_all(expecting(body.len()).as_bytes())
        .unwrap();
    let mut interim = [0; 25];
    connection.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    connection.write_all(body.as_bytes()).unwrap();
    let mut status = [0; 15];
    connection.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}

#[test]
fn the_body_is_never_quoted_in_an_answer() {
    let renewd = Renewd::start(&Settings::default());
    for body in [
        "\"do-not-repeat\"",
        "do-not-repeat",
        r#"{"channelName":"do-not-repeat/","uid":7}"#,
        r#"{"channelName":"live_show","uid":"do-not-repeat"}"#,
        r#"{"channelName":"live_show","uid":7,"role":"do-not-repeat"}"#,
        r#"{"channelName":"live_show","account":"do-not-repeat/"}"#,
    ] {
        let answer = Ask::text("viewer", body).send(&renewd);
        assert_eq!(answer.status, 400, "{body}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(!text.contains("do-not-repeat"), "{text}");
    }
}
