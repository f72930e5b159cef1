//! Frames through a relay, however they are cut.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::task::Waker;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::super::message::PartsOf;
use super::*;
use crate::agora::TokenFormat;
use crate::logins::socket_sessions::SocketSessions;
use crate::reissue::rewriter::tests::{DAY, OURS, anew, parts_for_ann, token};

const V007: TokenFormat = TokenFormat::V007;

/// A relay with what its packets are rewritten with.
struct TestedRelay {
    relay: Relay,
    packets: SocketPackets,
}

impl TestedRelay {
    fn new(packets: SocketPackets) -> Self {
        let relay = Relay::default();
        Self { relay, packets }
    }

    fn put_back(&mut self, room: &mut [u8]) -> usize {
        self.relay.put_back(room)
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        self.relay.take(&self.packets, bytes)
    }

    fn end(&mut self) {
        self.relay.end();
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.relay.poll_data(&self.packets, context)
    }
}

fn relay(observing: bool) -> TestedRelay {
    let parts = move |_: &str| {
        let (mut parts, _) = parts_for_ann(observing, 0);
        parts.nulls = true;
        Some(parts)
    };
    let parts: PartsOf = Box::new(parts);
    TestedRelay::new(SocketPackets::new(parts.into(), None))
}

fn one(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::write(Opcode::Text, fin, payload, &mut out);
    if let Some(first) = out.first_mut() {
        *first = (*first & 0x80) | opcode;
    }
    out.to_vec()
}

/// What comes out, and whether the relay ended it.
fn through(relay: &mut TestedRelay, chunks: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::from_waker(Waker::noop());
    let mut out = Vec::new();
    // There is room for no beginning of a frame, for short ones, and for most.
    let mut rooms = [vec![], vec![0; 40], vec![0; 16 * 1024]]
        .into_iter()
        .cycle();
    for chunk in chunks.iter().map(Some).chain([None]) {
        match chunk {
            Some(chunk) => {
                let mut room = rooms.next().unwrap();
                let begun = relay.put_back(&mut room);
                let came = [&room[room.len() - begun..], chunk].concat();
                let passes = relay.take(&came);
                out.extend_from_slice(&came[..passes]);
            }
            None => relay.end(),
        }
        leaves(relay, &mut context, &mut out);
        if let Some(under_way) = &relay.relay.under_way {
            let (held, kept) = (under_way.held.capacity(), under_way.kept());
            assert!(held <= 4 * KEPT && kept <= 2 * KEPT, "{held} {kept}");
        }
    }
    out
}

/// Takes what comes out by now.
fn leaves(relay: &mut TestedRelay, context: &mut Context<'_>, out: &mut Vec<u8>) {
    loop {
        match relay.poll_data(context) {
            Poll::Ready(Some(data)) => out.extend_from_slice(&data),
            Poll::Ready(None) => break,
            Poll::Pending => {}
        }
    }
}

/// Whole frames.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let head = FrameHead::parse(bytes).unwrap()?;
        let (frame, behind) = bytes.split_at(usize::try_from(head.total()).unwrap());
        bytes = behind;
        Some(frame)
    })
}

fn is_control(frame: &[u8]) -> bool {
    frame[0] & 8 != 0
}

/// The data frames, and the control frames, among these.
fn apart(bytes: &[u8]) -> [Vec<u8>; 2] {
    let (control, data): (Vec<&[u8]>, Vec<&[u8]>) = frames(bytes).partition(|it| is_control(it));
    [data.concat(), control.concat()]
}

/// How many bytes of data frames stand before each control frame.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut before = 0;
    let place = |frame: &[u8]| {
        let is_control = is_control(frame);
        before += if is_control { 0 } else { frame.len() };
        is_control.then_some(before)
    };
    frames(bytes).filter_map(place).collect()
}

/// The messages and control frames in these frames, in the order of their ends; a text's number is 1.
fn told(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut told = Vec::new();
    let mut message: Option<(u8, Vec<u8>)> = None;
    for frame in frames(bytes) {
        let head = FrameHead::parse(frame).unwrap().unwrap();
        let (opcode, payload) = (frame[0] & 15, &frame[head.size..]);
        if is_control(frame) {
            told.push((opcode, payload.to_vec()));
            continue;
        }
        let (_, text) = message.get_or_insert_with(|| (opcode, Vec::new()));
        text.extend_from_slice(payload);
        if head.fin {
            told.extend(message.take());
        }
    }
    assert_eq!(message, None, "a message has no end");
    told
}

fn event(channel: &str) -> String {
    let token = token(V007, OURS, channel, DAY);
    format!("42[\"call:token\",{{\"channel\":\"{channel}\",\"token\":\"{token}\"}}]")
}

fn event_anew(channel: &str) -> String {
    let token = anew(V007, channel);
    format!("42[\"call:token\",{{\"channel\":\"{channel}\",\"token\":{token}}}]")
}

#[test]
fn a_token_is_replaced_however_its_message_is_cut_into_frames_and_reads() {
    let text = event("show");
    let text = text.as_bytes();
    for cut in (0..text.len()).step_by(7) {
        let frames = [
            one(2, true, b"binary 007"),
            one(1, false, &text[..cut]),
            one(9, true, b"ping"),
            one(0, false, b""),
            one(0, true, &text[cut..]),
            one(1, true, b"{\"next\":1}"),
            one(8, true, b"\x03\xe8"),
        ]
        .concat();
        for chunk in [1, 5, 100, frames.len()] {
            let chunks: Vec<&[u8]> = frames.chunks(chunk).collect();
            let out = told(&through(&mut relay(false), &chunks));
            assert_eq!(
                out,
                [
                    (2, b"binary 007".to_vec()),
                    (9, b"ping".to_vec()),
                    (1, event_anew("show").into_bytes()),
                    (1, b"{\"next\":1}".to_vec()),
                    (8, b"\x03\xe8".to_vec()),
                ],
                "cut at {cut}, read by {chunk}"
            );
        }
    }
}

#[test]
fn the_beginning_of_a_frame_is_put_back_and_no_more_of_it_is_kept() {
    let text = one(1, true, "a text without any token ".repeat(20).as_bytes());
    let mut relay = relay(false);
    let mut context = Context::from_waker(Waker::noop());
    let came = [&text[..], &text[..100]].concat();
    assert_eq!(relay.take(&came), text.len());
    assert!(matches!(relay.poll_data(&mut context), Poll::Ready(None)));
    assert_eq!(relay.put_back(&mut [0; 99]), 0);
    let mut room = [0; 200];
    assert_eq!(relay.put_back(&mut room), 100);
    assert_eq!(room[100..], text[..100]);
    assert_eq!(relay.put_back(&mut room), 0);
    assert_eq!(relay.take(&text), text.len());
    assert!(
        relay.relay.under_way.is_none()
            || matches!(relay.poll_data(&mut context), Poll::Ready(None))
    );
    assert!(relay.relay.under_way.is_none());
}

#[test]
fn a_withheld_token_becomes_null() {
    let frames = one(1, true, event("banned").as_bytes());
    let out = told(&through(&mut relay(false), &[&frames]));
    let expected = b"42[\"call:token\",{\"channel\":\"banned\",\"token\":null}]".to_vec();
    assert_eq!(out, [(1, expected)]);
}

#[tokio::test(flavor = "local")]
async fn while_observing_every_frame_stays_as_it_is() {
    let text = event("show");
    let (before, after) = text.as_bytes().split_at(40);
    let (pong, after) = (one(10, true, b""), one(0, true, after));
    let came = [&one(1, false, before)[..], &pong, &after].concat();
    for chunk in [3, came.len()] {
        let chunks: Vec<&[u8]> = came.chunks(chunk).collect();
        let out = through(&mut relay(true), &chunks);
        assert_eq!(apart(&out), apart(&came));
    }
}

#[test]
fn a_message_of_any_length_passes_in_bounded_memory() {
    let filler = "a long text without any token, 0123456789, ".repeat(50_000);
    let text = format!("[\"{filler}\",{},\"{filler}\"]", event("show"));
    let expected = format!("[\"{filler}\",{},\"{filler}\"]", event_anew("show"));
    for cut in [text.len() / 3, 70_000] {
        let frames = [
            one(1, false, &text.as_bytes()[..cut]),
            one(9, true, b"ping"),
            one(0, true, &text.as_bytes()[cut..]),
        ]
        .concat();
        let chunks: Vec<&[u8]> = frames.chunks(16 * 1024).collect();
        let out = told(&through(&mut relay(false), &chunks));
        let expected = [(9, b"ping".to_vec()), (1, expected.clone().into_bytes())];
        assert!(out == expected);
    }
}

#[test]
fn a_frame_that_can_be_kept_arrives_as_it_was_made() {
    for length in [KEPT - 10, KEPT - 1, KEPT] {
        let frame = one(1, true, &vec![b'x'; length]);
        for chunk in [1000, 16 * 1024, frame.len()] {
            let chunks: Vec<&[u8]> = frame.chunks(chunk).collect();
            assert!(
                through(&mut relay(false), &chunks) == frame,
                "{length} {chunk}"
            );
        }
    }
}

#[test]
fn messages_that_came_together_leave_together_though_one_was_cut() {
    let mut context = Context::from_waker(Waker::noop());
    let message = one(1, true, b"{\"a\":1}");
    let came = [message.repeat(50), one(9, true, b"1"), message.repeat(50)].concat();
    let mut relay = relay(false);
    let whole = 3 * message.len();
    let cut = whole + 4;
    assert_eq!(relay.take(&came[..cut]), whole);
    assert_eq!(relay.poll_data(&mut context), Poll::Ready(None));
    assert_eq!(relay.take(&came[cut..]), 0);
    let left = Bytes::copy_from_slice(&came[whole..]);
    assert_eq!(relay.poll_data(&mut context), Poll::Ready(Some(left)));
    assert_eq!(relay.poll_data(&mut context), Poll::Ready(None));
    assert!(relay.relay.under_way.is_none());
}

#[test]
fn a_ping_does_not_wait_behind_what_may_become_a_token() {
    let mut context = Context::from_waker(Waker::noop());
    let beginning = one(1, false, b"{\"a\":\"007");
    let ping = one(9, true, b"1");
    for chunk in [1, 2, 100] {
        let mut relay = relay(false);
        let mut out = Vec::new();
        let mut feed = |relay: &mut TestedRelay, bytes: &[u8]| {
            out.clear();
            for bytes in bytes.chunks(chunk) {
                let passes = relay.take(bytes);
                out.extend_from_slice(&bytes[..passes]);
                leaves(relay, &mut context, &mut out);
            }
            out.clone()
        };
        assert_eq!(feed(&mut relay, &beginning), b"");
        for _ in 0..3 {
            assert_eq!(feed(&mut relay, &ping), ping);
        }
        // A fragment that is kept as well changes nothing.
        assert_eq!(feed(&mut relay, &one(0, false, b"e")), b"");
        assert_eq!(feed(&mut relay, &ping), ping);
        let end = one(0, true, b"!\"}");
        let whole = [&beginning[..], &one(0, false, b"e"), &end].concat();
        assert_eq!(feed(&mut relay, &end), whole);
        assert_eq!(feed(&mut relay, &ping), ping);
    }
}

#[test]
fn a_ping_never_overtakes_a_message_that_had_ended() {
    let text = event("show");
    let came = [one(1, true, text.as_bytes()), one(9, true, b"1")].concat();
    let out = told(&through(&mut relay(false), &[&came]));
    let expected = (1, event_anew("show").into_bytes());
    assert_eq!(out, [expected, (9, b"1".to_vec())]);
}

#[test]
fn any_number_of_control_frames_behind_what_may_be_a_token_take_no_memory() {
    let text = event("show");
    let (before, after) = text.as_bytes().split_at(90);
    let ping = one(9, true, &[b'x'; 125]);
    let came = [
        one(1, false, before),
        ping.repeat(5000),
        one(0, true, after),
    ]
    .concat();
    let chunks: Vec<&[u8]> = came.chunks(16 * 1024).collect();
    let mut out = told(&through(&mut relay(false), &chunks));
    assert_eq!(out.pop(), Some((1, event_anew("show").into_bytes())));
    assert_eq!(out, vec![(9, vec![b'x'; 125]); 5000]);
}

#[test]
fn a_close_waits_for_no_message_to_end() {
    let text = event("show");
    let (ping, close) = (one(9, true, b"ping"), one(8, true, b"\x03\xe9"));
    let came = [
        one(1, false, &text.as_bytes()[..90]),
        ping.clone(),
        close.clone(),
    ]
    .concat();
    for chunk in [1, came.len()] {
        let mut relay = relay(false);
        let chunks: Vec<&[u8]> = came.chunks(chunk).collect();
        let out = through(&mut relay, &chunks);
        // No part of the token leaves.
        let text = String::from_utf8_lossy(&out);
        assert!(!text.contains("007"), "{text}");
        assert!(out.starts_with(&ping) && out.ends_with(&close), "{out:?}");
        assert_eq!(frames(&out).count(), 3, "{text}");
    }
}

#[test]
fn what_breaks_the_protocol_ends_it_with_a_close_and_nothing_follows() {
    let good = one(1, true, b"\"hello\"");
    for (why, bad) in [
        ("a mask", b"\x81\x81\x00\x00\x00\x00x".to_vec()),
        ("a reserved bit", one(0x41, true, b"x")),
        ("a reserved opcode", one(3, true, b"x")),
        ("a continuation of nothing", one(0, true, b"x")),
        ("a fragmented ping", one(9, false, b"x")),
        ("a long ping", one(9, true, &[0; 126])),
        (
            "a message within a message",
            [one(1, false, b"x"), one(1, true, b"y")].concat(),
        ),
    ] {
        let frames = [good.clone(), bad.clone(), good.clone()].concat();
        for chunk in [1, frames.len()] {
            let mut relay = relay(false);
            let chunks: Vec<&[u8]> = frames.chunks(chunk).collect();
            let out = through(&mut relay, &chunks);
            assert!(relay.relay.is_broken(), "{why}");
            assert!(out.starts_with(&good), "{why}");
            assert!(out.ends_with(frame::CLOSE_PROTOCOL_ERROR), "{why}: {out:?}");
            assert!(
                out.len() <= good.len() + 3 + frame::CLOSE_PROTOCOL_ERROR.len(),
                "{why}"
            );
        }
    }
}

#[test]
fn of_a_frame_that_never_ends_no_token_leaves() {
    let text = event("show");
    let whole = one(1, true, text.as_bytes());
    let cut = &whole[..whole.len() - 2];
    assert_eq!(through(&mut relay(false), &[cut]), b"");
    let plain = b"\x81\x7dno token has begun in this".as_slice();
    assert_eq!(through(&mut relay(false), &[plain]), plain);
}

/// Text in which nothing is a token of this project, and much looks like the beginning of one.
fn harmless() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("007".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("00".to_owned()),
        Just("\"007eJxTYA".to_owned()),
        Just("006970ca35de60c44645bbae8a215061b33IA".to_owned()),
        Just("\\u0030".to_owned()),
        "[ -~]{0,40}",
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat().into_bytes())
}

/// Text in which nothing looks like the beginning of a token.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    "[a-z :,{}]{0,200}".prop_map(String::into_bytes)
}

/// Messages in so many fragments of these texts, with control frames between.
fn sequence(
    fragment: impl Strategy<Value = Vec<u8>>,
    count: Range<usize>,
) -> impl Strategy<Value = Vec<u8>> {
    let fragment = (fragment, proptest::bool::weighted(0.3));
    let message = (
        proptest::bool::ANY,
        proptest::collection::vec(fragment, count),
    );
    proptest::collection::vec(message, 1..5).prop_map(|messages| {
        let (mut out, mut controls) = (Vec::new(), 0);
        for (text, fragments) in messages {
            let last = fragments.len() - 1;
            for (number, (payload, control)) in fragments.into_iter().enumerate() {
                let opcode = match (number, text) {
                    (0, true) => 1,
                    (0, false) => 2,
                    _ => 0,
                };
                out.extend(one(opcode, number == last, &payload));
                if control {
                    controls += 1;
                    out.extend(one(9 + controls % 2, true, &[controls]));
                }
            }
        }
        out
    })
}

proptest! {
    #[test]
    fn frames_without_tokens_arrive_byte_for_byte(
        came in prop_oneof![sequence(plain(), 1..4), sequence(harmless(), 1..2)],
        chunk in 1..200_usize,
    ) {
        let chunks: Vec<&[u8]> = came.chunks(chunk).collect();
        prop_assert_eq!(through(&mut relay(false), &chunks), came);
    }

    #[test]
    fn behind_what_looks_like_a_token_a_control_frame_at_most_comes_earlier(
        came in sequence(harmless(), 1..4),
        chunk in 1..200_usize,
    ) {
        let chunks: Vec<&[u8]> = came.chunks(chunk).collect();
        let out = through(&mut relay(false), &chunks);
        prop_assert_eq!(apart(&out), apart(&came));
        for (left, stood) in places(&out).into_iter().zip(places(&came)) {
            prop_assert!(left <= stood, "{left} {stood}");
        }
        // A control frame leaves before the end of no other message than before.
        prop_assert_eq!(told(&out), told(&came));
    }

    #[test]
    fn a_control_frame_leaves_as_soon_as_it_has_come(came in sequence(harmless(), 1..4)) {
        let mut context = Context::from_waker(Waker::noop());
        let mut relay = relay(false);
        let (mut out, mut controls) = (Vec::new(), 0);
        for frame in frames(&came) {
            let passes = relay.take(frame);
            out.extend_from_slice(&frame[..passes]);
            leaves(&mut relay, &mut context, &mut out);
            controls += usize::from(is_control(frame));
            prop_assert_eq!(places(&out).len(), controls);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn with_a_token_only_that_string_differs(
        before in sequence(harmless(), 1..4),
        text in harmless(),
        cut in 0..1000_usize,
        after in sequence(harmless(), 1..4),
        chunk in 1..400_usize,
    ) {
        // A run that would swallow the token's beginning ends at a space.
        let text = String::from_utf8(text).unwrap().replace(['"', '\\'], " ");
        let message = |event: String| format!("{text} {event}").into_bytes();
        let (old, new) = (message(event("show")), message(event_anew("show")));
        let cut = cut.min(old.len());
        let token = [one(1, false, &old[..cut]), one(0, true, &old[cut..])].concat();
        let came = [before.clone(), token, after.clone()].concat();
        let chunks: Vec<&[u8]> = came.chunks(chunk).collect();
        let out = told(&through(&mut relay(false), &chunks));
        let expected = [told(&before), vec![(1, new)], told(&after)].concat();
        prop_assert_eq!(out, expected);
    }
}

/// A relay that searches bytes, and the namespaces that it has searched.
fn relay_of_bytes() -> (TestedRelay, Rc<RefCell<Vec<String>>>) {
    let namespaces: Rc<RefCell<Vec<String>>> = Rc::default();
    let asked = Rc::clone(&namespaces);
    let parts: PartsOf = Box::new(move |namespace: &str| {
        asked.borrow_mut().push(namespace.to_owned());
        let (mut parts, _) = parts_for_ann(false, 0);
        parts.nulls = true;
        Some(parts)
    });
    let session = SocketSessions::default().begin(None);
    let relay = TestedRelay::new(SocketPackets::new(parts.into(), Some(session)));
    (relay, namespaces)
}

#[test]
fn bytes_are_searched_as_frames_and_in_base64_by_the_login_of_their_event() {
    let (before, after) = (event("show"), event_anew("show"));
    let base64 = |prefix: &str, text: &str| format!("{prefix}{}", STANDARD.encode(text));
    let (text, plain) = (base64("b", &before), base64("b4", "no token"));
    let cut = text.len() / 2;
    for cut in [0, 1, 2, 3, cut, text.len()] {
        let frames = [
            one(1, true, b"453-/ns,[1]"),
            one(1, false, &text.as_bytes()[..cut]),
            one(9, true, b"ping"),
            one(0, true, &text.as_bytes()[cut..]),
            one(1, true, plain.as_bytes()),
            one(2, true, before.as_bytes()),
            one(2, true, before.as_bytes()),
            one(1, false, b"45"),
            one(0, true, b"1-/other,[\"007\"]"),
            one(1, true, base64("b4", &before).as_bytes()),
        ]
        .concat();
        for chunk in [1, 5, 100, frames.len()] {
            let (mut relay, namespaces) = relay_of_bytes();
            let chunks: Vec<_> = frames.chunks(chunk).collect();
            let mut told = told(&through(&mut relay, &chunks));
            told.retain(|(opcode, _)| *opcode != 9);
            let expected = [
                (1, "453-/ns,[1]".into()),
                (1, base64("b", &after).into()),
                (1, plain.clone().into()),
                (2, after.clone().into()),
                (2, after.clone().into()),
                (1, "451-/other,[\"007\"]".into()),
                (1, base64("b4", &after).into()),
            ];
            assert_eq!(told, expected, "{cut} {chunk}");
            assert_eq!(*namespaces.borrow(), ["/ns", "/ns", "/", "/other"]);
        }
    }
}

#[test]
fn base64_without_a_token_leaves_in_the_frames_that_it_came_in() {
    let frames = [
        one(1, false, b"b4A"),
        one(0, false, b"-_ "),
        one(0, true, b"A"),
        one(1, true, b"b"),
    ]
    .concat();
    for chunk in [1, 3, frames.len()] {
        let chunks: Vec<_> = frames.chunks(chunk).collect();
        assert_eq!(through(&mut relay_of_bytes().0, &chunks), frames);
    }
    let long = [b"b".to_vec(), vec![b'A'; 5 * KEPT]].concat();
    let frames = one(1, true, &long);
    let chunks: Vec<_> = frames.chunks(8192).collect();
    assert_eq!(
        told(&through(&mut relay_of_bytes().0, &chunks)),
        [(1, long)]
    );
}

#[test]
fn nothing_of_base64_leaves_that_never_becomes_whole() {
    let text = format!("b{}", STANDARD.encode(event("show")));
    let frame = one(1, true, text.as_bytes());
    for end in 3..frame.len() {
        let out = through(&mut relay_of_bytes().0, &[&frame[..end]]);
        assert!(out.len() <= 4, "{end}");
    }
    // Without bytes it is a text like any other.
    let out = through(&mut relay(false), &[&frame]);
    assert_eq!(out, frame);
}
