//! HTTP/2 frames as files of cases write them: `HEADERS 1 END_STREAM END_HEADERS: REQUEST {te trailers} 00 # comment`.
//! The head of `tests/server/http2_conformance.txt` says what the words mean.

use super::case_files::hex;
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame, head,
};

const TYPES: &[(&str, u8)] = &[
    ("DATA", DATA),
    ("HEADERS", HEADERS),
    ("PRIORITY", PRIORITY),
    ("RST_STREAM", RST_STREAM),
    ("SETTINGS", SETTINGS),
    ("PUSH_PROMISE", PUSH_PROMISE),
    ("PING", PING),
    ("GOAWAY", GOAWAY),
    ("WINDOW_UPDATE", WINDOW_UPDATE),
    ("CONTINUATION", CONTINUATION),
];

const FLAGS: &[(&str, u8)] = &[
    ("END_STREAM", END_STREAM),
    ("ACK", ACK),
    ("END_HEADERS", END_HEADERS),
    ("PADDED", 0x08),
    ("PRIORITY", 0x20),
];

/// The number that a name stands for.
pub fn named(name: &str, names: &[(&str, u8)]) -> u8 {
    let found = names.iter().find(|(candidate, _)| *candidate == name);
    found.unwrap_or_else(|| panic!("no name: {name:?}")).1
}

/// The type of frames with this name.
pub fn kind(name: &str) -> u8 {
    named(name, TYPES)
}

/// One frame.
pub fn written(line: &str) -> Vec<u8> {
    let Some((before, payload)) = line.split_once(':') else {
        panic!("no payload: {line:?}");
    };
    let mut words = before.split(' ');
    let kind = number_or_name(words.next().unwrap(), TYPES);
    let stream = words.next().expect("a stream");
    let stream = in_hex(stream).unwrap_or_else(|| stream.parse().expect("a stream's number"));
    let flags = words.fold(0, |flags, word| flags | number_or_name(word, FLAGS));
    frame(kind, flags, stream, &payload_of(payload))
}

fn in_hex(word: &str) -> Option<u32> {
    let digits = word.strip_prefix("0x")?;
    Some(u32::from_str_radix(digits, 16).expect("hex digits"))
}

fn number_or_name(word: &str, names: &[(&str, u8)]) -> u8 {
    match in_hex(word) {
        Some(number) => u8::try_from(number).expect("one byte"),
        None => named(word, names),
    }
}

fn payload_of(mut text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        text = text.trim_start();
        let (word, rest) = match text.chars().next() {
            None | Some('#') => return bytes,
            Some('"') => {
                let (quoted, rest) = text[1..].split_once('"').expect("a closing quote");
                (quoted.as_bytes().to_vec(), rest)
            }
            Some('{') => {
                let (written, rest) = text[1..].split_once('}').expect("a closing brace");
                let (name, value) = written.split_once(' ').expect("a name and a value");
                (field(name, value), rest)
            }
            Some(_) => {
                let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
                (word_of_bytes(word), rest)
            }
        };
        bytes.extend(word);
        text = rest;
    }
}

fn word_of_bytes(word: &str) -> Vec<u8> {
    if word == "REQUEST" {
        return head();
    }
    let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
    hex(digits).repeat(times.parse().expect("how many times"))
}
