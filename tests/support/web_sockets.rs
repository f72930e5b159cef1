//! A WebSocket as bytes: handshakes, frames as either side writes them, and a backend whose frames a test writes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::messages::{Message, Wire};
use super::renewd::DEADLINE;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The key and answer of RFC 6455 section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client's handshake.
pub fn handshake(target: &str, connection: &str, upgrade: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: app\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// Opens a WebSocket, with further field lines.
pub fn open(address: SocketAddr, target: &str, fields: &str) -> (Wire, Message) {
    let mut wire = Wire::open(address);
    let head = handshake(target, "Upgrade", "websocket");
    let head = head.strip_suffix("\r\n").expect("an empty line");
    wire.write(format!("{head}{fields}\r\n").as_bytes());
    let answer = wire.read(false).expect("an answer");
    (wire, answer)
}

/// One frame as clients write it (RFC 6455 section 5.2), masked.
pub fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = written(0x80 | kind, content, &[]);
    frame[1] |= 0x80;
    frame.extend(MASK);
    frame.extend(
        content
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// One frame as servers write it.
pub fn server_frame(kind: u8, is_last: bool, content: &[u8]) -> Vec<u8> {
    let first = if is_last { 0x80 | kind } else { kind };
    written(first, content, content)
}

/// A head with the first byte and the length of a content, and what follows it.
fn written(first: u8, content: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if let (Ok(short), true) = (u8::try_from(content.len()), content.len() < 126) {
        frame.push(short);
    } else if let Ok(medium) = u16::try_from(content.len()) {
        frame.push(126);
        frame.extend(medium.to_be_bytes());
    } else {
        let length = u64::try_from(content.len()).expect("a length");
        frame.push(127);
        frame.extend(length.to_be_bytes());
    }
    frame.extend(behind);
    frame
}

/// The next frame of a server that doesn't fragment and doesn't mask.
pub fn next(wire: &mut Wire) -> (u8, Vec<u8>) {
    read_frame(|length| wire.read_bytes(length).ok()).expect("a frame")
}

/// One frame without its mask, if all of it comes.
fn read_frame(mut read: impl FnMut(usize) -> Option<Vec<u8>>) -> Option<(u8, Vec<u8>)> {
    let head = read(2)?;
    let length = match head[1] & 0x7f {
        126 => u16::from_be_bytes(read(2)?.try_into().expect("two bytes")).into(),
        127 => u64::from_be_bytes(read(8)?.try_into().expect("eight bytes")),
        short => short.into(),
    };
    let mask = if head[1] & 0x80 == 0 {
        vec![0; 4]
    } else {
        read(4)?
    };
    let content = read(usize::try_from(length).expect("a length"))?;
    let content = content
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    Some((head[0] & 0x0f, content.collect()))
}

/// The content of a `Close`.
pub fn closing(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// The bytes that a backend sends, in these writes.
pub type Script = Vec<Vec<u8>>;

/// A backend that agrees to every WebSocket. On `/socket/N` it plays the script of that number, and then listens until
/// the client closes.
pub struct ScriptedSockets {
    pub address: SocketAddr,
    heard: Receiver<Vec<(u8, Vec<u8>)>>,
}

impl ScriptedSockets {
    /// Listens.
    pub fn start(scripts: Vec<Script>) -> Self {
        Self::start_with(scripts, "")
    }

    /// The same; its handshakes have further field lines.
    pub fn start_with(scripts: Vec<Script>, fields: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (scripts, fields) = (Arc::new(scripts), fields.to_owned());
        let (sender, heard) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (scripts, fields, sender) =
                    (Arc::clone(&scripts), fields.clone(), sender.clone());
                thread::spawn(move || play(stream, &scripts, &fields, &sender));
            }
        });
        Self { address, heard }
    }

    /// The URL of a script, at this address.
    pub fn url(address: SocketAddr, number: usize) -> String {
        format!("ws://{address}/socket/{number}")
    }

    /// The frames that the client of the next script to end sent.
    pub fn heard(&self) -> Vec<(u8, Vec<u8>)> {
        self.heard.recv_timeout(DEADLINE).expect("an end")
    }
}

fn play(stream: TcpStream, scripts: &[Script], fields: &str, heard: &Sender<Vec<(u8, Vec<u8>)>>) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    let (mut number, mut key) = (None, String::new());
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Ok(1..) => {}
            _ => return,
        }
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("GET /socket/") {
            let digits = rest.split([' ', '?']).next();
            number = digits.and_then(|digits| digits.parse::<usize>().ok());
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("sec-websocket-key")
        {
            value.clone_into(&mut key);
        }
        if line.is_empty() {
            break;
        }
    }
    // RFC 6455 section 4.2.2.
    let answer = digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let accept = STANDARD.encode(answer);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    );
    let script = number
        .and_then(|number| scripts.get(number))
        .expect("a script");
    for bytes in [head.as_bytes()]
        .into_iter()
        .chain(script.iter().map(Vec::as_slice))
    {
        // A client that has heard enough closes.
        if stream.get_mut().write_all(bytes).is_err() {
            break;
        }
    }
    let mut frames = Vec::new();
    let mut read = |length: usize| {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).ok().map(|()| bytes)
    };
    while let Some(frame) = read_frame(&mut read) {
        frames.push(frame);
        if frames.last().is_some_and(|(kind, _)| *kind == CLOSE) {
            break;
        }
    }
    let _ = heard.send(frames);
}
