//! Every way through renewd, for behaviours that must not depend on it: three kinds of client connection and a unix
//! socket in front, TCP and a unix socket behind.
//!
//! A behaviour is written once, against [`Case`]: a client that speaks the front's protocol, or its bytes where it is
//! HTTP/1.1, and a backend whose every byte the test writes.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here fails a test

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use renewd::io::tls::HTTP2;
use renewd::io::transport::Transport;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::plane::{Wire, within};
use super::renewd::{Renewd, Settings};
use super::tls::{Authority, NAME, connect};

/// How the client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    Http1,
    Http1OverUnix,
    Http1OverTls,
    Http2OverTls,
}

impl Front {
    pub const ALL: [Self; 4] = [
        Self::Http1,
        Self::Http1OverUnix,
        Self::Http1OverTls,
        Self::Http2OverTls,
    ];

    pub fn is_http2(self) -> bool {
        self == Self::Http2OverTls
    }

    fn is_tls(self) -> bool {
        matches!(self, Self::Http1OverTls | Self::Http2OverTls)
    }
}

/// How the backend is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    Tcp,
    Unix,
}

/// Runs a behaviour on every way through.
pub async fn everywhere(behaviour: impl AsyncFn(&mut Case)) {
    for back in [Back::Tcp, Back::Unix] {
        let upstream = Upstream::start(back).await;
        let gate = Gate::start(&upstream.url);
        let mut case = Case {
            front: Front::Http1,
            gate,
            upstream,
        };
        for front in Front::ALL {
            // Shown where the test fails.
            println!("{front:?} in front, {back:?} behind");
            case.front = front;
            behaviour(&mut case).await;
        }
    }
}

/// The same, for what only HTTP/1.1 has.
pub async fn everywhere_in_http1(behaviour: impl AsyncFn(&mut Case)) {
    everywhere(async |case| {
        if !case.front.is_http2() {
            behaviour(case).await;
        }
    })
    .await;
}

/// One way through.
pub struct Case {
    pub front: Front,
    pub upstream: Upstream,
    gate: Gate,
}

impl Case {
    /// The daemon in between.
    pub fn renewd(&self) -> &Renewd {
        &self.gate.renewd
    }

    /// A client with a connection of its own.
    pub async fn client(&self) -> Client {
        self.gate.client(self.front).await
    }

    /// The same connection, byte by byte.
    pub async fn wire(&self) -> Wire {
        assert!(!self.front.is_http2(), "HTTP/2 isn't written by hand here");
        Wire::over(self.gate.connect(self.front).await)
    }

    /// One request and the backend's answer to it; gives what each side saw.
    pub async fn exchange(
        &mut self,
        client: &mut Client,
        request: Request<Upload>,
        answer: impl AsRef<[u8]>,
    ) -> (String, Whole) {
        let asking = client.send(request);
        let answering = async {
            let (head, mut wire) = self.upstream.asked().await;
            wire.send(answer).await;
            self.upstream.keep(wire);
            head
        };
        let (response, head) = tokio::join!(asking, answering);
        (head, Whole::read(response.unwrap()).await)
    }
}

/// A daemon with a listener for every [`Front`].
pub struct Gate {
    renewd: Renewd,
    authority: Authority,
    secure: SocketAddr,
    clear: SocketAddr,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Gate {
    /// The daemon in front of the backend at this URL.
    pub fn start(backend: &str) -> Self {
        let authority = Authority::new();
        let pair = authority.issue("daemon", 30);
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("public.sock");
        let renewd = Renewd::start(&Settings {
            upstream: format!("servers = [\"{backend}\"]"),
            server: format!(
                "listen = [\"127.0.0.1:0\", \"plain:127.0.0.1:0\", \"unix:{}\"]",
                socket.display()
            ),
            tables: format!(
                "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
                pair.certificate.display(),
                pair.key.display()
            ),
            ..Settings::default()
        });
        let lines = renewd.log().lines();
        let addresses: Vec<SocketAddr> = lines
            .iter()
            .filter(|line| line["msg"] == "listening")
            .filter_map(|line| line["address"].as_str()?.parse().ok())
            .collect();
        let [secure, clear] = addresses[..] else {
            panic!("two ports in {lines:?}");
        };
        Self {
            renewd,
            authority,
            secure,
            clear,
            socket,
            _directory: directory,
        }
    }

    /// A client with a connection of its own.
    pub async fn client(&self, front: Front) -> Client {
        let transport = self.connect(front).await;
        Client::over(transport, front).await
    }

    async fn connect(&self, front: Front) -> Transport {
        match front {
            Front::Http1 => tcp(self.clear).await,
            Front::Http1OverUnix => {
                Transport::Unix(UnixStream::connect(&self.socket).await.unwrap())
            }
            Front::Http1OverTls | Front::Http2OverTls => {
                let protocol = if front.is_http2() { HTTP2 } else { b"http/1.1" };
                let connector = self.authority.connector(&[protocol], None);
                within("a handshake", connect(&connector, self.secure))
                    .await
                    .unwrap()
            }
        }
    }
}

async fn tcp(address: SocketAddr) -> Transport {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Transport::Tcp(stream)
}

/// hyper's client, whatever it speaks; its connection ends when this is dropped.
pub struct Client {
    sender: Sender,
    scheme: &'static str,
    connection: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Upload>),
    Http2(http2::SendRequest<Upload>),
}

impl Client {
    /// A plain HTTP/1.1 client of any server, for comparison.
    pub async fn of(address: SocketAddr) -> Self {
        Self::over(tcp(address).await, Front::Http1).await
    }

    async fn over(transport: Transport, front: Front) -> Self {
        let io = TokioIo::new(transport);
        let (sender, connection) = if front.is_http2() {
            let shaken = http2::handshake(TokioExecutor::new(), io);
            let (sender, connection) = within("SETTINGS", shaken).await.unwrap();
            (
                Sender::Http2(sender),
                tokio::spawn(async { drop(connection.await) }),
            )
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            (
                Sender::Http1(sender),
                tokio::spawn(async { drop(connection.await) }),
            )
        };
        Self {
            sender,
            scheme: if front.is_tls() { "https" } else { "http" },
            connection: connection.abort_handle(),
        }
    }

    /// A request as this client's protocol has it.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: Upload,
    ) -> Request<Upload> {
        let builder = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        let mut builder = match self.sender {
            Sender::Http1(_) => builder.uri(target).header("host", NAME),
            Sender::Http2(_) => builder.uri(format!("{}://{NAME}{target}", self.scheme)),
        };
        for (name, value) in fields {
            builder = builder.header(*name, value.as_bytes());
        }
        builder.body(body).unwrap()
    }

    /// A request without a body.
    pub fn get(&self, target: &str) -> Request<Upload> {
        self.request("GET", target, &[], Upload::Empty)
    }

    /// Sends it; ready with the head of the response.
    pub async fn send(&mut self, request: Request<Upload>) -> hyper::Result<Response<Incoming>> {
        within("a response", async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        })
        .await
    }

    /// Whether the server has ended the connection, or said that it will.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A request's body.
pub enum Upload {
    Empty,
    Whole(Bytes),
    /// Frames as they are given, of this length in all, if it is announced.
    Frames(mpsc::Receiver<Frame<Bytes>>, Option<u64>),
}

impl Upload {
    /// A body to be fed.
    pub fn frames(length: Option<u64>) -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self::Frames(receiver, length))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Frames(frames, _) => frames.poll_recv(context).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap()),
            Self::Frames(_, length) => length.map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

/// A response to its end.
#[derive(Debug)]
pub struct Whole {
    pub status: StatusCode,
    /// The fields without those that renewd adds.
    pub fields: Vec<(String, String)>,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Whole {
    pub async fn read(response: Response<Incoming>) -> Self {
        Self::try_read(response).await.unwrap()
    }

    pub async fn try_read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = response.into_parts();
        let fields = head
            .headers
            .iter()
            .filter(|(name, _)| *name != "x-request-id");
        let fields = fields.map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let fields = fields.collect();
        let collected = within("the body", body.collect()).await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Self {
            status: head.status,
            fields,
            body: collected.to_bytes(),
            trailers,
        })
    }
}

/// A backend whose every byte the test writes; connections that are kept wait for their next request.
pub struct Upstream {
    pub url: String,
    asked: mpsc::UnboundedReceiver<(String, Wire)>,
    asking: mpsc::UnboundedSender<(String, Wire)>,
    accepting: AbortHandle,
    _directory: tempfile::TempDir,
}

impl Upstream {
    pub async fn start(back: Back) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (asking, asked) = mpsc::unbounded_channel();
        let accepted = asking.clone();
        let (url, accepting) = match back {
            Back::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}", listener.local_addr().unwrap());
                let accepting = tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        listen(Wire::new(stream), accepted.clone());
                    }
                });
                (url, accepting)
            }
            Back::Unix => {
                let path = directory.path().join("app.sock");
                let listener = UnixListener::bind(&path).unwrap();
                let accepting = tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        listen(Wire::over(Transport::Unix(stream)), accepted.clone());
                    }
                });
                (format!("unix:{}", path.display()), accepting)
            }
        };
        Self {
            url,
            asked,
            asking,
            accepting: accepting.abort_handle(),
            _directory: directory,
        }
    }

    /// The next request's head, and the connection that it came on.
    pub async fn asked(&mut self) -> (String, Wire) {
        within("a request at the backend", self.asked.recv())
            .await
            .unwrap()
    }

    /// Whether every request that has come is one that the test knows of.
    pub fn is_untouched(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }

    /// The answer is over; the connection waits for its next request.
    pub fn keep(&self, wire: Wire) {
        listen(wire, self.asking.clone());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn listen(mut wire: Wire, asking: mpsc::UnboundedSender<(String, Wire)>) {
    tokio::spawn(async move {
        if let Some(head) = wire.next_head().await {
            // Fails only when the test is over.
            let _ = asking.send((head, wire));
        }
    });
}
