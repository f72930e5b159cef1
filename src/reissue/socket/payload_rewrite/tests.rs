//! Payloads through their rewriting, however they are cut.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::message::{MessageParts, PartsOf};
use super::separated::HELD;
use super::whole::LONGEST;
use super::*;
use crate::agora::TokenFormat;
use crate::logins::socket_sessions::SocketSessions;
use crate::reissue::rewriter::tests::{DAY, OURS, anew, parts_for_ann, token};

/// A payload around bytes.
type PayloadOfBytes<'p> = &'p dyn Fn(&[u8]) -> Vec<u8>;

/// A socket whose answers are rewritten.
struct Polled {
    packets: SocketPackets,
    counted_by_url: bool,
    /// The ids that were told.
    ids: Rc<RefCell<Vec<String>>>,
    /// The namespaces whose messages were searched.
    namespaces: Rc<RefCell<Vec<String>>>,
}

impl Polled {
    /// A socket whose text is searched, and its bytes where `binary` says so.
    fn new(binary: bool) -> Self {
        Self::observing(binary, false)
    }

    fn observing(binary: bool, observing: bool) -> Self {
        let namespaces: Rc<RefCell<Vec<String>>> = Rc::default();
        let asked = Rc::clone(&namespaces);
        let parts: PartsOf = Box::new(move |namespace: &str| {
            asked.borrow_mut().push(namespace.to_owned());
            let (mut parts, _) = parts_for_ann(observing, 0);
            parts.nulls = true;
            Some(parts)
        });
        let session = binary.then(|| SocketSessions::default().begin(None));
        Self {
            packets: SocketPackets::new(MessageParts::from(parts), session),
            counted_by_url: false,
            ids: Rc::default(),
            namespaces,
        }
    }

    /// What comes out of an answer.
    fn rewritten(&self, body: &[u8], chunk: usize) -> Vec<u8> {
        let ids = Rc::clone(&self.ids);
        let mut rewrite = PollingRewrite::new(PollingSetting {
            packets: self.packets.clone(),
            on_open: Rc::new(move |id: &str| ids.borrow_mut().push(id.to_owned())),
            counted_by_url: self.counted_by_url,
        });
        let mut context = Context::from_waker(Waker::noop());
        let mut out = Vec::new();
        let chunks = body.chunks(chunk).map(Some).chain([None]);
        for chunk in chunks {
            match chunk {
                Some(chunk) => rewrite.take(Bytes::copy_from_slice(chunk)),
                None => rewrite.end(),
            }
            loop {
                match rewrite.poll_data(&mut context) {
                    Poll::Ready(Some(data)) => out.extend_from_slice(&data),
                    Poll::Ready(None) => break,
                    Poll::Pending => {}
                }
            }
        }
        out
    }

    /// Holds what comes out of an answer, however it is cut and whatever the URL says.
    fn becomes(&mut self, body: &[u8], expected: &[u8]) {
        for counted_by_url in [false, true] {
            self.counted_by_url = counted_by_url;
            for chunk in [1, 7, 100, body.len().max(1)] {
                let out = self.rewritten(body, chunk);
                let shown = String::from_utf8_lossy(&out);
                assert!(out == expected, "by {chunk}: {shown}");
            }
        }
    }
}

/// A payload of four packets, two of which hold a token: for a channel that the caller may have, and for one that
/// they may not.
fn packets(given: &str, withheld: &str) -> [String; 4] {
    [
        "0{\"sid\":\"abc\",\"upgrades\":[\"websocket\"]}".to_owned(),
        format!("42[\"call:token\",{{\"name\":\"grüße 😀\",\"token\":{given}}}]"),
        "2".to_owned(),
        format!("42/ns,[\"call:token\",{{\"token\":{withheld}}}]"),
    ]
}

fn quoted(channel: &str) -> String {
    format!("\"{}\"", token(TokenFormat::V007, OURS, channel, DAY))
}

fn before_and_after() -> ([String; 4], [String; 4]) {
    let before = packets(&quoted("show"), &quoted("banned"));
    let after = packets(&anew(TokenFormat::V007, "show"), "null");
    (before, after)
}

fn separated(packets: &[String]) -> String {
    packets.join("\u{1e}")
}

fn counted(packets: &[String]) -> String {
    let counted = packets.iter().map(|packet| {
        let units = packet.encode_utf16().count();
        format!("{units}:{packet}")
    });
    counted.collect()
}

fn jsonp(payload: &str) -> String {
    format!("___eio[3]({});", serde_json::to_string(payload).unwrap())
}

/// Protocol 3's payload with bytes.
fn counted_bytes(packets: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, packet) in packets {
        body.push(*kind);
        let digits = packet.len().to_string();
        body.extend(digits.bytes().map(|digit| digit - b'0'));
        body.push(255);
        body.extend_from_slice(packet);
    }
    body
}

#[test]
fn tokens_are_replaced_in_payloads_of_every_protocol_however_they_are_cut() {
    let (before, after) = before_and_after();
    for binary in [false, true] {
        for (body, expected) in [
            (separated(&before), separated(&after)),
            (counted(&before), counted(&after)),
            (jsonp(&counted(&before)), jsonp(&counted(&after))),
            (jsonp(&separated(&before)), jsonp(&separated(&after))),
        ] {
            let mut polled = Polled::new(binary);
            polled.becomes(body.as_bytes(), expected.as_bytes());
            let ids = polled.ids.borrow();
            assert!(ids.len() == 8 && ids.iter().all(|id| id == "abc"));
            let namespaces = polled.namespaces.borrow();
            assert!(namespaces.contains(&"/".to_owned()));
            assert!(namespaces.contains(&"/ns".to_owned()));
        }
    }
}

#[test]
fn a_long_packet_passes_without_being_held_whole() {
    let (before, after) = before_and_after();
    let filler = "x ".repeat(2 * HELD);
    let body = |packets: &[String]| format!("4{filler}{}\u{1e}{}", packets[1], packets[3]);
    let out = Polled::new(true).rewritten(body(&before).as_bytes(), 8192);
    assert!(out == body(&after).as_bytes());
}

#[test]
fn what_is_no_payload_passes_without_a_token_and_is_replaced_with_one() {
    let error = "{\"code\":1,\"message\":\"Session ID unknown\"}";
    let token = quoted("show");
    let long = "x".repeat(LONGEST);
    for binary in [false, true] {
        let mut polled = Polled::new(binary);
        for plain in [error, "", "<html>7:b4AAAA", "___eio[1](\"999:42[]\");"] {
            polled.becomes(plain.as_bytes(), plain.as_bytes());
        }
        polled.counted_by_url = true;
        for (body, nothing) in [
            (format!("999999:42[{token}]"), "1:6"),
            (format!("9999999:{long}"), "1:6"),
            (format!("\u{0}{long}"), "1:6"),
            (format!("\u{1}{token}"), "1:6"),
            (
                format!("___eio[7](\"999:{}\");", &token[1..token.len() - 1]),
                "___eio[7](\"1:6\");",
            ),
            (format!("___eio[7](\"9:4{long}"), "___eio[7](\"1:6\");"),
            (format!("___eio[7](\"42[{long}"), "___eio[7](\"6\");"),
            // No script of engine.io: nothing of it leaves.
            (format!("___eio[{token}"), "___eio[0](\"1:6\");"),
            (format!("___eio[7] {token}(\"2\");"), "___eio[0](\"1:6\");"),
            (format!("___eio[7](\"2\"); {token}"), "___eio[7](\"6\");"),
            (format!("___eio[{long}(\"2"), "___eio[0](\"1:6\");"),
            // A payload of bytes as a script: its texts are numbers.
            (
                "___eio[7]({\"type\":\"Buffer\",\"data\":[1,48]});".to_owned(),
                "___eio[7](\"1:6\");",
            ),
        ] {
            let out = polled.rewritten(body.as_bytes(), 64 * 1024);
            assert_eq!(String::from_utf8_lossy(&out), nothing);
        }
        // What can't be read may hold bytes.
        for (body, nothing) in [
            ("45:b4AAAA", "1:6"),
            ("___eio[7](\"b4AAA\\x\");", "___eio[7](\"6\");"),
        ] {
            let out = polled.rewritten(body.as_bytes(), 10);
            let expected = if binary { nothing } else { body };
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}

#[tokio::test(flavor = "local")]
async fn while_all_is_observed_every_payload_passes() {
    let polled = Polled::observing(true, true);
    let token = quoted("show");
    let (before, _) = before_and_after();
    let bytes = format!("b{}", STANDARD.encode(&token));
    let long = "b".repeat(LONGEST);
    for body in [
        counted(&before),
        jsonp(&counted(&before)),
        format!("999999:42[{token}]"),
        format!("99999999:{long}"),
        format!("{long}AAAA\u{1e}{bytes}"),
        bytes,
    ] {
        assert!(polled.rewritten(body.as_bytes(), 64 * 1024) == body.as_bytes());
    }
}

/// Bytes with a token that is given, one that is withheld, or none, and what becomes of them.
fn of_bytes() -> [(Vec<u8>, Vec<u8>); 4] {
    let object = |token: &str| {
        let text = format!("{{\"token\":{token},\"n\":1}}").into_bytes();
        [&b"\x00\xff"[..], &text, b"\xfe"].concat()
    };
    let all = (0..=255).collect::<Vec<u8>>();
    [
        (
            object(&quoted("show")),
            object(&anew(TokenFormat::V007, "show")),
        ),
        (object(&quoted("banned")), object("null")),
        (all.clone(), all),
        (Vec::new(), Vec::new()),
    ]
}

#[test]
fn tokens_among_bytes_are_replaced_where_the_rule_says_so() {
    let event = "451-/ns,[\"x\",{\"_placeholder\":true,\"num\":0}]".to_owned();
    for (before, after) in of_bytes() {
        let in_protocol_4 = |bytes: &[u8]| {
            let bytes = format!("b{}", STANDARD.encode(bytes));
            [event.clone(), bytes, "2".to_owned()]
        };
        let in_protocol_3 = |bytes: &[u8]| {
            let bytes = format!("b4{}", STANDARD.encode(bytes));
            [event.clone(), bytes, "3".to_owned()]
        };
        let as_bytes = |bytes: &[u8]| {
            let bytes = [b"\x04", bytes].concat();
            counted_bytes(&[(0, event.as_bytes()), (1, &bytes), (0, b"3")])
        };
        let forms: [PayloadOfBytes<'_>; 5] = [
            &|bytes| separated(&in_protocol_4(bytes)).into(),
            &|bytes| counted(&in_protocol_3(bytes)).into(),
            &|bytes| jsonp(&separated(&in_protocol_4(bytes))).into(),
            &|bytes| jsonp(&counted(&in_protocol_3(bytes))).into(),
            &as_bytes,
        ];
        for form in forms {
            let mut polled = Polled::new(true);
            polled.becomes(&form(&before), &form(&after));
            let namespaces = polled.namespaces.borrow();
            assert!(namespaces.iter().all(|namespace| namespace == "/ns"));
            assert_eq!(namespaces.is_empty(), before.len() < 300 && before == after);
            Polled::new(false).becomes(&form(&before), &form(&before));
        }
    }
}

#[test]
fn base64_is_searched_however_it_is_written_and_leaves_as_it_came_without_a_token() {
    let [(before, after), ..] = of_bytes();
    let mut polled = Polled::new(true);
    let new = format!("b{}", STANDARD.encode(&after));
    let old = STANDARD.encode(&before);
    let halves = old.split_at(old.len() / 2);
    for written in [
        old.trim_end_matches('=').to_owned(),
        old.replace('+', "-").replace('/', "_"),
        format!("{}\r\n {}", halves.0, halves.1),
        format!("{old}===="),
        format!("{}!\"{}", halves.0, halves.1),
    ] {
        polled.becomes(format!("b{written}").as_bytes(), new.as_bytes());
    }
    for untouched in [
        "b-_-",
        "b AA A",
        "b4A",
        "b4AAA=AAA",
        "bye",
        "b",
        "b4",
        "b\u{e9}",
    ] {
        polled.becomes(untouched.as_bytes(), untouched.as_bytes());
    }
    // A text that begins like base64.
    let text = |token: &str| format!("b{{\"token\":{token}}}");
    polled.becomes(
        text(&quoted("show")).as_bytes(),
        text(&anew(TokenFormat::V007, "show")).as_bytes(),
    );
}

#[test]
fn long_bytes_in_base64_are_searched_and_those_that_are_too_long_are_left_out() {
    let [(before, after), ..] = of_bytes();
    let polled = Polled::new(true);
    let body = |bytes: &[u8]| {
        let filler = vec![0; 3 * HELD];
        let packet = STANDARD.encode([&filler, bytes].concat());
        format!("b{packet}\u{1e}2")
    };
    let out = polled.rewritten(body(&before).as_bytes(), 8192);
    assert!(out == body(&after).as_bytes());
    let long = "A".repeat(LONGEST);
    for (begin, left) in [("bAA", "b"), ("b4", "b4")] {
        let body = format!("{begin}{long}\u{1e}451-/ns,[]\u{1e}2");
        let out = polled.rewritten(body.as_bytes(), 64 * 1024);
        let expected = format!("{left}\u{1e}451-/ns,[]\u{1e}2");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
    // No encoder writes a quote: it is another text, with tokens of its own.
    let text = |token: &str| format!("b{{\"x\":\"{long}\"}}{{\"token\":{token}}}");
    let out = polled.rewritten(text(&quoted("banned")).as_bytes(), 64 * 1024);
    let (out, expected) = (String::from_utf8(out).unwrap(), text("null"));
    assert_eq!(out.len(), expected.len(), "{}", &out[LONGEST - 10..]);
    assert!(out == expected);
}

#[test]
fn an_attachment_is_its_namespaces_across_answers_and_others_are_of_the_main_one() {
    let polled = Polled::new(true);
    let [(before, _), ..] = of_bytes();
    let bytes = format!("b{}", STANDARD.encode(&before));
    for (body, expected) in [
        ("452-/ns,[1]".to_owned(), &[][..]),
        (format!("2\u{1e}{bytes}"), &["/ns"]),
        (format!("{bytes}\u{1e}{bytes}"), &["/ns", "/"]),
        (format!("451-/a,[]\u{1e}42/b,[]\u{1e}{bytes}"), &["/"]),
        (format!("451-[]\u{1e}{bytes}"), &["/"]),
        (format!("461-/c,7[]\u{1e}bAAAA\u{1e}{bytes}"), &["/"]),
    ] {
        polled.rewritten(body.as_bytes(), 16);
        assert_eq!(*polled.namespaces.borrow(), expected, "{body}");
        polled.namespaces.borrow_mut().clear();
    }
}
