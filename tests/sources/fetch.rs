//! Requests to sources: the answers that renewd takes, and the attacks that it withstands.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::support::plane::{Backend, PATIENCE, Wire, ok, within};
use crate::support::tls::Authority;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue};
use renewd::http::url::Url;
use renewd::io::fetch::{FetchError, FetchLimits, FetchedResponse, Fetcher};
use renewd::io::tls::Trust;
use renewd::io::transport::Transport;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const SHORT: Duration = Duration::from_millis(200);
const LIMITS: FetchLimits = FetchLimits {
    time: PATIENCE,
    body: 1000,
};

type Asking = JoinHandle<Result<FetchedResponse, FetchError>>;

fn fetcher() -> Fetcher {
    Fetcher::new(Handle::current(), None)
}

fn url(address: SocketAddr) -> Url {
    Url::parse(&format!("http://{address}/keys?a=b")).unwrap()
}

fn get(fetcher: &Fetcher, url: &Url, limits: FetchLimits) -> Asking {
    let (fetcher, url) = (fetcher.clone(), url.clone());
    tokio::spawn(async move { fetcher.get(&url, HeaderMap::new(), limits).await })
}

async fn answer(asking: Asking) -> Result<FetchedResponse, FetchError> {
    within("an answer", asking).await.unwrap()
}

/// Lets the connection that brought an answer go back among those that are kept: until then, a question opens another.
async fn kept_again() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The result of a request to a server that sends these bytes and closes.
async fn sent(bytes: impl AsRef<[u8]>) -> Result<FetchedResponse, FetchError> {
    let server = Backend::start().await;
    let asking = get(&fetcher(), &url(server.address()), LIMITS);
    let mut wire = server.accept().await;
    wire.head().await;
    // The client may close before the last byte.
    let _ = wire.stream.write_all(bytes.as_ref()).await;
    drop(wire);
    answer(asking).await
}

#[tokio::test]
async fn a_request_says_what_it_must_and_its_answer_comes_whole() {
    let server = Backend::start().await;
    let (fetcher, url) = (fetcher(), url(server.address()));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HOST, HeaderValue::from_static("somebody.else"));
    headers.insert("transfer-encoding", HeaderValue::from_static("gzip"));
    let asking = tokio::spawn(async move {
        let body = Bytes::from_static(b"{\"a\":1}");
        fetcher.post(&url, headers, body, LIMITS).await
    });
    let mut wire = server.accept().await;
    let head = wire.head().await;
    assert!(head.starts_with("POST /keys?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", server.address())));
    assert!(head.contains("content-type: application/json\r\n"));
    assert!(head.contains("content-length: 7\r\n"));
    assert!(head.contains("accept-encoding: identity\r\n"));
    assert!(!head.contains("somebody.else") && !head.contains("gzip"));
    assert_eq!(wire.exactly(7).await, b"{\"a\":1}");
    wire.send(
        "HTTP/1.1 402 Pay\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )
    .await;
    let answer = answer(asking).await.unwrap();
    assert_eq!(answer.status, 402);
    assert_eq!(answer.headers["x-a"], "b");
    assert_eq!(answer.body, "abcde");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Backend::start().await;
    let (fetcher, url) = (fetcher(), url(server.address()));
    let asking = get(&fetcher, &url, LIMITS);
    let mut wire = server.accept().await;
    wire.head().await;
    wire.send(ok("x")).await;
    assert_eq!(answer(asking).await.unwrap().body, "x");
    kept_again().await;
    let again = get(&fetcher, &url, LIMITS);
    wire.head().await;
    wire.send(ok("y")).await;
    assert_eq!(answer(again).await.unwrap().body, "y");
    assert!(server.is_untouched().await);
}

/// A server that is restarted, or whose keep-alive time ends, closes a connection just as the next question is written.
#[tokio::test]
async fn a_question_that_meets_the_end_of_a_kept_connection_is_asked_on_another_one() {
    let server = Backend::start().await;
    let (fetcher, url) = (fetcher(), url(server.address()));
    let asking = get(&fetcher, &url, LIMITS);
    let mut kept = server.accept().await;
    kept.head().await;
    kept.send(ok("x")).await;
    assert_eq!(answer(asking).await.unwrap().body, "x");
    kept_again().await;
    let again = get(&fetcher, &url, LIMITS);
    kept.head().await;
    drop(kept);
    let mut new = server.accept().await;
    new.head().await;
    new.send(ok("y")).await;
    assert_eq!(answer(again).await.unwrap().body, "y");
    kept_again().await;
    // A new connection that ends likewise is the server's answer, and a POST may count.
    drop(new);
    let asking = get(&fetcher, &url, LIMITS);
    let mut new = server.accept().await;
    new.head().await;
    drop(new);
    assert!(matches!(answer(asking).await, Err(FetchError::Broken)));
    let asking = get(&fetcher, &url, LIMITS);
    let mut kept = server.accept().await;
    kept.head().await;
    kept.send(ok("z")).await;
    assert_eq!(answer(asking).await.unwrap().body, "z");
    kept_again().await;
    let posting = tokio::spawn(async move {
        fetcher
            .post(&url, HeaderMap::new(), Bytes::new(), LIMITS)
            .await
    });
    kept.head().await;
    drop(kept);
    assert!(matches!(answer(posting).await, Err(FetchError::Broken)));
    assert!(server.is_untouched().await);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Backend::start().await;
    let answer = sent(format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
        elsewhere.address()
    ));
    assert_eq!(answer.await.unwrap().status, 302);
    assert!(elsewhere.is_untouched().await);
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_no_more_than_the_limit() {
    for begun in ["", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"] {
        let server = Backend::start().await;
        let limits = FetchLimits {
            time: SHORT,
            ..LIMITS
        };
        let asking = get(&fetcher(), &url(server.address()), limits);
        let mut wire = server.accept().await;
        wire.head().await;
        wire.send(begun).await;
        let error = answer(asking).await.unwrap_err();
        assert!(matches!(error, FetchError::Slow(SHORT)), "{error:?}");
        assert_eq!(wire.rest().await, "", "the connection is given up");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_that_quotes_nothing() {
    for bytes in [
        "SSH-2.0-secret\r\n\r\n",
        "HTTP/1.1 secret\r\n\r\n",
        "HTTP/1.1 200 OK\r\nsecret\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
    ] {
        let error = sent(bytes).await.unwrap_err();
        assert!(
            matches!(error, FetchError::Garbled | FetchError::Broken),
            "{bytes:?}: {error:?}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_cut_short_is_an_error() {
    for bytes in [
        "",
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let error = sent(bytes).await.unwrap_err();
        assert!(matches!(error, FetchError::Broken), "{bytes:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_reset_is_an_error() {
    let server = Backend::start().await;
    let asking = get(&fetcher(), &url(server.address()), LIMITS);
    let mut wire = server.accept().await;
    wire.head().await;
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        .await;
    let Transport::Tcp(stream) = wire.stream else {
        panic!("clear text");
    };
    stream.set_zero_linger().unwrap();
    drop(stream);
    let error = answer(asking).await.unwrap_err();
    assert!(matches!(error, FetchError::Broken), "{error:?}");
}

#[tokio::test]
async fn a_body_is_bounded_announced_or_not() {
    let body = "x".repeat(1001);
    for bytes in [
        ok(&body),
        format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{body}\r\n0\r\n\r\n"),
    ] {
        let error = sent(bytes).await.unwrap_err();
        assert!(matches!(error, FetchError::TooLarge(1000)), "{error:?}");
    }
    let whole = sent(ok(&body[1..])).await.unwrap();
    assert_eq!(whole.body.len(), 1000);
}

#[tokio::test]
async fn a_header_section_without_end_is_an_error() {
    let fields = "X-A: b\r\n".repeat(10_000);
    let error = sent(format!("HTTP/1.1 200 OK\r\n{fields}"))
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Garbled), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_and_no_header_is_in_it() {
    let server = Backend::start().await;
    let url = url(server.address());
    drop(server);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
    let error = fetcher().get(&url, headers, LIMITS).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect(_)), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_a_connection_that_others_use() {
    let server = Backend::start().await;
    let (fetcher, url) = (fetcher(), url(server.address()));
    let asking = get(&fetcher, &url, LIMITS);
    let mut wire = server.accept().await;
    wire.head().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    wire.send(ok("late")).await;
    tokio::spawn(async move {
        loop {
            wire.head().await;
            wire.send(ok("again")).await;
        }
    });
    // The connection is back once its answer was read; until then others are opened, and serve one request each.
    let others = tokio::spawn(async move {
        loop {
            let mut other = server.accept().await;
            tokio::spawn(async move {
                other.head().await;
                other
                    .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    .await;
            });
        }
    });
    while answer(get(&fetcher, &url, LIMITS)).await.unwrap().body != "again" {}
    others.abort();
}

#[test]
fn a_worker_asks_over_the_control_planes_connections() {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let fetcher = Fetcher::new(control.handle().clone(), None);
    let server = control.block_on(Backend::start());
    let url = url(server.address());
    let serving = control.spawn(async move {
        let mut wire = server.accept().await;
        for _ in 0..2 {
            wire.head().await;
            wire.send(ok("x")).await;
        }
    });
    // Each runtime is gone before the next asks: what was on it would be gone with it.
    for _ in 0..2 {
        let worker = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let answer = worker.block_on(fetcher.get(&url, HeaderMap::new(), LIMITS));
        assert_eq!(answer.unwrap().body, "x");
    }
    control.block_on(serving).unwrap();
}

#[tokio::test]
async fn a_server_behind_tls_has_to_be_known() {
    let authority = Authority::new();
    let identity = authority.issue("server", 30).identity(None);
    let server = Backend::start().await;
    let url = Url::parse(&format!("https://{}/", server.address())).unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(identity.config()));
    let serving = tokio::spawn(async move {
        loop {
            let transport = server.accept().await.stream;
            if let Ok(stream) = acceptor.accept(transport).await {
                let mut wire = Wire::over(Transport::Tls(Box::new(stream.into())));
                wire.head().await;
                wire.send(ok("known")).await;
                return wire;
            }
        }
    });
    let stranger = fetcher().get(&url, HeaderMap::new(), LIMITS).await;
    let error = stranger.unwrap_err();
    assert!(matches!(error, FetchError::Connect(_)), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");

    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority.certificate()).unwrap();
    roots.add(certificate).unwrap();
    let trusting = Fetcher::new(Handle::current(), Some(Trust::of(roots).unwrap()));
    let known = trusting.get(&url, HeaderMap::new(), LIMITS).await;
    assert_eq!(known.unwrap().body, "known");
    serving.await.unwrap();
}
