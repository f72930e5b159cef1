//! A connection that shows every byte as it comes: for messages that are half sent, half answered, or only ever begun.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::renewd::DEADLINE;

/// Long enough for bytes that are on their way over loopback.
const A_MOMENT: Duration = Duration::from_millis(50);

/// A TCP connection and what was read from it and not yet asked for.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("an open connection");
    }

    /// Everything up to and with `marker`.
    pub fn until(&mut self, marker: &str) -> String {
        let marker = marker.as_bytes();
        loop {
            let found = self
                .unread
                .windows(marker.len())
                .position(|window| window == marker);
            if let Some(at) = found {
                let rest = self.unread.split_off(at + marker.len());
                let read = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8_lossy(&read).into_owned();
            }
            let more = self.read().expect("more bytes");
            assert!(
                more,
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    /// Everything to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read().expect("an orderly end") {}
        std::mem::take(&mut self.unread)
    }

    /// Waits for the end, orderly or not, whatever comes before it.
    pub fn ended(&mut self) {
        while let Ok(true) = self.read().inspect_err(|error| {
            assert!(
                error.kind() != io::ErrorKind::WouldBlock,
                "the connection doesn't end"
            );
        }) {}
    }

    /// Whether the other side has neither closed nor sent anything.
    pub fn is_open_and_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(A_MOMENT)).unwrap();
        let result = self.read();
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// One unfragmented, masked text frame (RFC 6455 section 5.2; a mask of zeros is a mask).
    pub fn send_text_frame(&mut self, text: &str) {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126);
        let mut frame = vec![0x81, 0x80 | length.expect("a short frame"), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.send(frame);
    }

    fn read(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let length = loop {
            match self.stream.read(&mut bytes) {
                // A socket with a timeout says so after the process was stopped and goes on (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.unread.extend_from_slice(&bytes[..length]);
        Ok(length > 0)
    }
}

/// Opens a socket.io connection and joins the default namespace.
pub fn socket_io(address: SocketAddr) -> Wire {
    let mut wire = Wire::connect(address);
    wire.send(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = wire.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    wire.until("}");
    wire.send_text_frame("40");
    wire.until("40{");
    wire.until("}");
    wire
}

/// Asks the socket.io server to acknowledge a message with itself.
pub fn socket_io_echo(wire: &mut Wire, number: u32) {
    wire.send_text_frame(&format!("42{number}[\"echo\",\"hello\"]"));
    wire.until(&format!("43{number}[\"hello\"]"));
}
