//! An HTTP/1.1 client that writes the bytes it is given: no library repairs what a test sends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer of a local server takes this long.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A response as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names lower-cased, values trimmed, in order.
    pub headers: Vec<(String, String)>,
    /// The body, `Content-Length` or to the end of the connection.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(candidate, _)| candidate == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// One keep-alive connection, opened anew whenever the server has closed it.
pub struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of `address`; connects at the first request.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Writes `request` and reads one response without chunked framing. Bytes that the server closes on without an
    /// answer are an error.
    pub fn send(&mut self, request: &[u8]) -> io::Result<Response> {
        let reused = self.connection.is_some();
        match self.exchange(request) {
            // The server may close an idle connection whenever it likes.
            Err(_) if reused => {
                self.connection = None;
                self.exchange(request)
            }
            answer => answer,
        }
    }

    /// `POST`s a JSON body, with a bearer token unless it is empty.
    pub fn post_json(
        &mut self,
        target: &str,
        token: &str,
        body: &serde_json::Value,
    ) -> io::Result<Response> {
        let body = body.to_string();
        let authorization = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\n{authorization}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        self.send(request.as_bytes())
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(self.connect()?),
        };
        connection.get_mut().write_all(request)?;
        let response = read_response(&mut connection)?;
        let ends = response
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !ends && response.header("content-length").is_some() {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        Ok(stream)
    }
}

fn read_response(connection: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let status_line = read_line(connection)?;
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in {status_line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        match line.split_once(':') {
            Some((name, value)) => {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            None if line.is_empty() => break,
            None => return Err(io::Error::other(format!("no header in {line:?}"))),
        }
    }
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    match response
        .header("content-length")
        .and_then(|length| length.parse().ok())
    {
        Some(length) => {
            response.body.resize(length, 0);
            connection.read_exact(&mut response.body)?;
        }
        None => {
            connection.read_to_end(&mut response.body)?;
        }
    }
    Ok(response)
}

fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    if connection.read_until(b'\n', &mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
