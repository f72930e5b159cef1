//! One HTTP/1.1 connection as bytes, and responses with all details of their framing, for differential tests to
//! compare.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::renewd::DEADLINE;

/// Name and value of one field line; the value byte for byte (Latin-1), without the white space around it.
pub type Field = (String, String);

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none: HEAD, 1xx, 204, 304.
    None,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of the connection.
    Close,
}

/// A response, byte for byte but for the chunks' borders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `HTTP/1.1 200 OK`.
    pub status_line: String,
    /// The fields in order, with names as they were written.
    pub fields: Vec<Field>,
    /// How the body ended.
    pub framing: Framing,
    /// The content.
    pub body: Vec<u8>,
    /// The trailers after a chunked body.
    pub trailers: Vec<Field>,
}

impl Message {
    /// The status code.
    pub fn status(&self) -> u16 {
        let code = self
            .status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status in {:?}", self.status_line))
    }

    /// The values of a field; `name` in any case.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let found = self
            .fields
            .iter()
            .filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body of {self:?}"))
    }

    /// Whether `Connection` says that this is the last response.
    pub fn closes(&self) -> bool {
        self.values("connection")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// One connection; closed when dropped.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("a listening server")
    }

    /// Connects, where it is in doubt whether a server listens.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// The socket, for timeouts and writes of its own kind.
    pub fn socket(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }

    /// Writes all of it; a peer that has already answered and closed is no error here.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Tells the peer that nothing more comes.
    pub fn finish_writing(&mut self) {
        let _ = self.stream.get_mut().shutdown(Shutdown::Write);
    }

    /// The next response; `head` if it answers a HEAD.
    pub fn read(&mut self, head: bool) -> io::Result<Message> {
        let mut message = self.read_head()?;
        self.read_body(&mut message, head)?;
        Ok(message)
    }

    /// Status line and fields, the body left where it is.
    pub fn read_head(&mut self) -> io::Result<Message> {
        let status_line = self.read_line()?;
        if !status_line.starts_with("HTTP/1.") {
            return Err(io::Error::other(format!("not HTTP: {status_line:?}")));
        }
        Ok(Message {
            status_line,
            fields: self.read_fields()?,
            framing: Framing::None,
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// The body that belongs to `message`.
    pub fn read_body(&mut self, message: &mut Message, head: bool) -> io::Result<()> {
        let status = message.status();
        if head || status < 200 || status == 204 || status == 304 {
            return Ok(());
        }
        let chunked = !message.values("transfer-encoding").is_empty();
        let length: Option<usize> = message
            .values("content-length")
            .first()
            .map(|length| length.parse().expect("a length"));
        match (chunked, length) {
            (true, Some(_)) => return Err(io::Error::other("framed in two ways")),
            (true, None) => {
                message.framing = Framing::Chunked;
                while let Some(chunk) = self.read_chunk()? {
                    message.body.extend(chunk);
                }
                message.trailers = self.read_fields()?;
            }
            (false, Some(length)) => {
                message.framing = Framing::Length;
                message.body.resize(length, 0);
                self.stream.read_exact(&mut message.body)?;
            }
            (false, None) => {
                message.framing = Framing::Close;
                self.stream.read_to_end(&mut message.body)?;
            }
        }
        Ok(())
    }

    /// One chunk, or `None` at the last one.
    pub fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.read_line()?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16)
            .map_err(|_| io::Error::other(format!("no chunk size: {line:?}")))?;
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk)?;
        if !chunk.ends_with(b"\r\n") {
            return Err(io::Error::other("a chunk without its end"));
        }
        chunk.truncate(size);
        Ok(Some(chunk))
    }

    /// Exactly so many bytes.
    pub fn read_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// All that comes until the peer closes; a reset counts as the end, a connection that stays open is an error.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Err(error)
            }
            _ => Ok(rest),
        }
    }

    /// [`Wire::rest`] of a connection that the peer has to close.
    pub fn read_rest(&mut self) -> Vec<u8> {
        self.rest().expect("the peer's end")
    }

    fn read_fields(&mut self) -> io::Result<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| io::Error::other(format!("no field: {line:?}")))?;
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("cut: {:?}", String::from_utf8_lossy(&line)),
            ));
        };
        Ok(text.iter().copied().map(char::from).collect())
    }
}

/// Sends `request` on a connection of its own and reads its response.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Message {
    let mut wire = Wire::open(address);
    wire.write(request);
    let answer = wire.read(request.starts_with(b"HEAD "));
    answer.unwrap_or_else(|error| panic!("{error}; asked {:?}", String::from_utf8_lossy(request)))
}

/// How often the backend counted `name`.
pub fn hits(backend: SocketAddr, name: &str) -> u64 {
    let request = b"GET /__control/hits HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n";
    exchange(backend, request).json()[name]
        .as_u64()
        .unwrap_or_default()
}
