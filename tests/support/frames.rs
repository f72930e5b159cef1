//! HTTP/2 by hand: frames and header sections as bytes (RFC 9113 §4.1, RFC 7541).

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails here fails a test

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::plane::Wire;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// A literal field without indexing (RFC 7541 §6.2.2), uncompressed.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&length(text.len(), 7)[..], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// An integer with so many bits in its first byte (RFC 7541 §5.1).
pub fn length(value: usize, bits: u32) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// `GET /` of `http://x`, indexed where HPACK's static table has it.
pub fn head() -> Vec<u8> {
    [&[0x82, 0x86, 0x84][..], &field(":authority", "x")].concat()
}

pub fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head())
}

/// Connected by prior knowledge, with both preludes exchanged as far as this client cares.
pub async fn by_hand(address: SocketAddr) -> Wire {
    let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, b"")].concat())
        .await;
    wire
}

/// A frame as it came.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// The next frame, `None` where the connection ends or nothing comes.
pub async fn read(wire: &mut Wire) -> Option<Frame> {
    let mut head = [0; 9];
    let reading = tokio::time::timeout(Duration::from_secs(3), wire.stream.read_exact(&mut head));
    reading.await.ok()?.ok()?;
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    wire.stream.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind: head[3],
        flags: head[4],
        payload,
    })
}

/// The next frame of this kind.
pub async fn next(wire: &mut Wire, kind: u8) -> Frame {
    loop {
        let frame = read(wire).await.expect("one more frame");
        if frame.kind == kind && (kind != PING || frame.flags & ACK != 0) {
            return frame;
        }
    }
}

/// The first frame that complains or answers, and its code or first byte; `None` where the connection ends without one.
pub async fn verdict(wire: &mut Wire) -> Option<(u8, u8)> {
    loop {
        let frame = read(wire).await?;
        let byte = match frame.kind {
            GOAWAY => 7,
            RST_STREAM => 3,
            HEADERS => 0,
            _ => continue,
        };
        return Some((frame.kind, *frame.payload.get(byte)?));
    }
}
