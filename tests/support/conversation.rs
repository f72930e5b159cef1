//! One connection as its client sees it: bytes out when the test says so, responses in with every framing of HTTP/1.1.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::raw::Response;
use super::renewd::DEADLINE;

/// An open connection.
pub struct Conversation(BufReader<TcpStream>);

impl Conversation {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_nodelay(true).expect("a TCP socket");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a deadline above zero");
        Self(BufReader::new(stream))
    }

    /// Sends `bytes`. A server that has closed already is no error: its answer is still to be read.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Says that no more bytes follow.
    pub fn finish(&mut self) {
        let _ = self.0.get_mut().shutdown(Shutdown::Write);
    }

    /// The next response, interim ones included; `None` where the server has closed instead.
    pub fn response(&mut self) -> Option<Response> {
        self.response_to("GET")
    }

    /// The next response to this method: one to `HEAD` has no body whatever its headers say.
    pub fn response_to(&mut self, method: &str) -> Option<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if !bodiless {
            response.body = self.body(&response)?;
        }
        Some(response)
    }

    /// Every response until the server closes, which it must.
    pub fn rest(&mut self) -> Vec<Response> {
        std::iter::from_fn(|| self.response()).collect()
    }

    fn body(&mut self, response: &Response) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        if response.header("transfer-encoding").is_some() {
            loop {
                let size = self.line()?;
                let size = size.split(';').next()?.trim();
                let size = usize::from_str_radix(size, 16).ok()?;
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    return Some(body);
                }
                let read = body.len();
                body.resize(read + size, 0);
                self.0.read_exact(&mut body[read..]).ok()?;
                self.line()?;
            }
        }
        match response.header("content-length") {
            Some(length) => {
                body.resize(length.parse().ok()?, 0);
                self.0.read_exact(&mut body).ok()?;
            }
            None => {
                self.0.read_to_end(&mut body).ok()?;
            }
        }
        Some(body)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            // A reset is a way to close; silence is not.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

/// A request with `headers` (whole lines) and a body whose length is announced, unless the headers say otherwise.
pub fn request(method: &str, target: impl AsRef<[u8]>, headers: &str, body: &str) -> Vec<u8> {
    let framed = headers.to_ascii_lowercase().contains("transfer-encoding");
    let length = match body.len() {
        0 if method != "POST" => String::new(),
        _ if framed => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let start = [method.as_bytes(), b" ", target.as_ref()].concat();
    let rest = format!(" HTTP/1.1\r\nHost: app.test\r\n{headers}{length}\r\n{body}");
    [start, rest.into_bytes()].concat()
}

/// `body` in chunks of at most `size` bytes.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(size) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}
