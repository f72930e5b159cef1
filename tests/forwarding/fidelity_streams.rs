//! The table of `fidelity.rs` for bodies on their way: framing, trailers, events, back-pressure, aborts, early answers
//! and keep-alive races, each on every way through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::time::Duration;

use crate::support::plane::{ok, within};
use crate::support::renewd::Renewd;
use crate::support::topology::{Case, Upload, Whole, everywhere};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;

const MIB: usize = 1 << 20;

/// This is more than all buffers on the way can hold.
const LARGE: usize = 64 * MIB;

/// A side that makes no progress for so long waits for the other side.
const STALLED: Duration = Duration::from_millis(500);

fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

/// So many bytes of a body, as they come.
async fn read_exactly(body: &mut Incoming, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let frame = within("more of the body", body.frame()).await;
        bytes.extend_from_slice(frame.unwrap().unwrap().data_ref().unwrap());
    }
    assert_eq!(bytes.len(), length, "more than was sent");
    bytes
}

fn resident(renewd: &Renewd) -> f64 {
    renewd.metric("process_resident_memory_bytes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_arrives_piece_by_piece_framed_as_it_was_announced() {
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for method in ["POST", "PUT", "DELETE"] {
            for length in [Some(9), None] {
                let (feed, body) = Upload::frames(length);
                let announced = [("content-length", "9")];
                let fields = if length.is_some() {
                    &announced[..]
                } else {
                    &[]
                };
                let request = client.request(method, "/upload", fields, body);
                let asking = client.send(request);
                let answering = async {
                    let (head, mut wire) = case.upstream.asked().await;
                    assert_eq!(head.contains("\r\ncontent-length: 9\r\n"), length.is_some());
                    let chunked = head.contains("\r\ntransfer-encoding: chunked\r\n");
                    assert_eq!(chunked, length.is_none(), "{head}");
                    for piece in ["one", "two", "six"] {
                        feed.send(data(piece)).await.unwrap();
                        let expected = if chunked {
                            format!("3\r\n{piece}\r\n")
                        } else {
                            piece.to_owned()
                        };
                        assert_eq!(wire.until(&expected).await, expected);
                    }
                    drop(feed);
                    if chunked {
                        assert_eq!(wire.until("0\r\n\r\n").await, "0\r\n\r\n");
                    }
                    wire.send(ok("a")).await;
                    case.upstream.keep(wire);
                };
                let (response, ()) = tokio::join!(asking, answering);
                assert_eq!(Whole::read(response.unwrap()).await.body, "a");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_arrives_piece_by_piece_whatever_delimits_it() {
    let heads = [
        ("Content-Length: 6", true),
        ("Transfer-Encoding: chunked", true),
        (
            "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked",
            true,
        ),
        ("X-Until: the end", false),
        ("Content-Type: text/event-stream", false),
    ];
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for (head, kept) in heads {
            let request = client.get("/download");
            let asking = client.send(request);
            let answering = async {
                let (_, mut wire) = case.upstream.asked().await;
                wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"))
                    .await;
                wire
            };
            // The head comes before any of the body.
            let (response, mut wire) = tokio::join!(asking, answering);
            let mut body = response.unwrap().into_body();
            let chunked = head.contains("chunked");
            for piece in ["abc", "def"] {
                if chunked {
                    wire.send(format!("3\r\n{piece}\r\n")).await;
                } else {
                    wire.send(piece).await;
                }
                assert_eq!(read_exactly(&mut body, 3).await, piece.as_bytes());
            }
            if chunked {
                wire.send("0\r\n\r\n").await;
            }
            if kept {
                case.upstream.keep(wire);
            } else {
                drop(wire);
            }
            let rest = within("the end", body.collect()).await.unwrap();
            assert!(rest.to_bytes().is_empty(), "{head}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_both_ways() {
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        let (feed, body) = Upload::frames(None);
        let fields = [("te", "trailers"), ("trailer", "x-sum, x-more")];
        let request = client.request("POST", "/", &fields, body);
        let asking = client.send(request);
        let answering = async {
            let (_, mut wire) = case.upstream.asked().await;
            feed.send(data("hi")).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "1".parse().unwrap());
            trailers.insert("x-more", "a b".parse().unwrap());
            feed.send(Frame::trailers(trailers)).await.unwrap();
            drop(feed);
            let sent = wire.until("\r\n\r\n").await;
            assert_eq!(sent, "2\r\nhi\r\n0\r\nx-sum: 1\r\nx-more: a b\r\n\r\n");
            wire.send(
                "HTTP/1.1 200 OK\r\nTrailer: x-end\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1\r\nb\r\n0\r\nX-End: 2\r\n\r\n",
            )
            .await;
            case.upstream.keep(wire);
        };
        let (response, ()) = tokio::join!(asking, answering);
        let answer = Whole::read(response.unwrap()).await;
        assert_eq!(answer.body, "b");
        assert_eq!(answer.trailers["x-end"], "2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_up_wait_for_a_backend_that_takes_nothing() {
    everywhere(async |case: &mut Case| {
        let before = resident(case.renewd());
        let mut client = case.client().await;
        let (feed, body) = Upload::frames(Some(LARGE as u64));
        let length = LARGE.to_string();
        let request = client.request("POST", "/", &[("content-length", &length)], body);
        let piece = Bytes::from(
            (0..MIB)
                .map(|byte| byte.to_le_bytes()[0])
                .collect::<Vec<_>>(),
        );
        let feeding = async {
            let mut sent = 0;
            while let Ok(room) = tokio::time::timeout(STALLED, feed.reserve()).await {
                room.unwrap().send(data(piece.clone()));
                sent += MIB;
                assert!(sent < LARGE, "nobody held the client back");
            }
            let grown = resident(case.renewd()) - before;
            assert!(grown < 16.0 * 1_048_576.0, "{grown} bytes more");
            let (_, mut wire) = case.upstream.asked().await;
            let reading = async {
                for _ in 0..LARGE / MIB {
                    assert!(wire.exactly(MIB).await == piece);
                }
            };
            let writing = async {
                while sent < LARGE {
                    feed.send(data(piece.clone())).await.unwrap();
                    sent += MIB;
                }
            };
            within("the whole upload", async { tokio::join!(reading, writing) }).await;
            wire.send(ok("whole")).await;
            case.upstream.keep(wire);
        };
        let (response, ()) = tokio::join!(client.send(request), feeding);
        assert_eq!(Whole::read(response.unwrap()).await.body, "whole");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_down_wait_for_a_client_that_takes_nothing() {
    everywhere(async |case: &mut Case| {
        let before = resident(case.renewd());
        let mut client = case.client().await;
        let request = client.get("/");
        let asking = client.send(request);
        let answering = async {
            let (_, mut wire) = case.upstream.asked().await;
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"
            ))
            .await;
            wire
        };
        let (response, mut wire) = tokio::join!(asking, answering);
        let piece: Vec<u8> = (0..MIB).map(|byte| byte.to_le_bytes()[0]).collect();
        let mut sent = 0;
        loop {
            let rest = &piece[sent % MIB..];
            let Ok(written) = tokio::time::timeout(STALLED, wire.stream.write(rest)).await else {
                break;
            };
            sent += written.unwrap();
            assert!(sent < LARGE, "nobody held the backend back");
        }
        let grown = resident(case.renewd()) - before;
        assert!(grown < 16.0 * 1_048_576.0, "{grown} bytes more");
        let mut body = response.unwrap().into_body();
        let reading = async {
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.unwrap().into_data().unwrap();
                // A frame is a fraction of the piece, whose bytes repeat.
                assert!(frame == piece[read % 256..][..frame.len()]);
                read += frame.len();
            }
            assert_eq!(read, LARGE);
        };
        let writing = async {
            while sent < LARGE {
                wire.stream.write_all(&piece[sent % MIB..]).await.unwrap();
                sent += MIB - sent % MIB;
            }
            case.upstream.keep(wire);
        };
        within("the whole download", async {
            tokio::join!(reading, writing)
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_missed_by_the_backend_at_once() {
    everywhere(async |case: &mut Case| {
        // The client leaves before the answer.
        let mut client = case.client().await;
        let request = client.get("/waiting");
        let mut wire = {
            let asking = client.send(request);
            tokio::select! {
                _ = asking => panic!("an answer"),
                (_, wire) = case.upstream.asked() => wire,
            }
        };
        drop(client);
        assert_eq!(wire.rest().await, "");

        // The client leaves in the middle of an upload.
        let mut client = case.client().await;
        let (feed, body) = Upload::frames(Some(9));
        let request = client.request("POST", "/", &[("content-length", "9")], body);
        feed.send(data("abc")).await.unwrap();
        let mut wire = {
            let asking = client.send(request);
            let arrived = async {
                let (_, mut wire) = case.upstream.asked().await;
                assert_eq!(wire.exactly(3).await, b"abc");
                wire
            };
            tokio::select! {
                _ = asking => panic!("an answer"),
                wire = arrived => wire,
            }
        };
        drop(client);
        assert_eq!(wire.rest().await, "");

        // The backend breaks off in the middle of a download: the body alone ends, which ends an HTTP/1.1 connection
        // and an HTTP/2 stream.
        let mut client = case.client().await;
        let request = client.get("/download");
        let asking = client.send(request);
        let answering = async {
            let (_, mut wire) = case.upstream.asked().await;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
                .await;
            wire
        };
        let (response, mut wire) = tokio::join!(asking, answering);
        let mut body = response.unwrap().into_body();
        read_exactly(&mut body, 3).await;
        drop(body);
        assert_eq!(wire.rest().await, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_breaks_off_is_never_taken_for_one_that_has_finished() {
    let beginnings = [
        "Content-Length: 9\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\r\nhello\r\n0\r\n\r\n",
    ];
    everywhere(async |case: &mut Case| {
        for beginning in beginnings {
            let mut client = case.client().await;
            let request = client.get("/");
            let asking = client.send(request);
            let answering = async {
                let (_, mut wire) = case.upstream.asked().await;
                wire.send(format!("HTTP/1.1 200 OK\r\n{beginning}")).await;
                wire
            };
            let (response, wire) = tokio::join!(asking, answering);
            let mut body = response.unwrap().into_body();
            let begun = within("what came before", body.frame()).await;
            assert!(
                begun
                    .unwrap()
                    .unwrap()
                    .data_ref()
                    .unwrap()
                    .starts_with(b"abc")
            );
            drop(wire);
            let error = within("the break", async {
                while let Some(frame) = body.frame().await {
                    if frame.is_err() {
                        return true;
                    }
                }
                false
            });
            assert!(error.await, "{beginning:?} is complete");
        }
        // The connection ends without a byte of an answer.
        let mut client = case.client().await;
        let request = client.request("POST", "/", &[], Upload::Empty);
        let asking = client.send(request);
        let answering = async { drop(case.upstream.asked().await) };
        let (response, ()) = tokio::join!(asking, answering);
        let answer = Whole::read(response.unwrap()).await;
        assert_eq!(answer.status, 502);
        assert!(
            answer
                .body
                .starts_with(b"{\"success\":false,\"code\":\"upstream_unreachable\"")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_an_unfinished_upload_arrives_whole_and_ends_it() {
    let body = "x".repeat(100_000);
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        let (feed, upload) = Upload::frames(None);
        let request = client.request("POST", "/early", &[], upload);
        let asking = client.send(request);
        let answering = async {
            let (_, mut wire) = case.upstream.asked().await;
            feed.send(data("some of it")).await.unwrap();
            wire.until("some of it\r\n").await;
            wire.send(format!(
                "HTTP/1.1 413 Too Large\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
            wire
        };
        let (response, mut wire) = tokio::join!(asking, answering);
        let answer = Whole::read(response.unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.len()),
            (413, body.len())
        );
        // The backend's connection is in the middle of a request and is never used again.
        assert_eq!(wire.rest().await, "");
        let mut next = if case.front.is_http2() {
            client
        } else {
            case.client().await
        };
        let request = next.get("/next");
        let (head, answer) = case.exchange(&mut next, request, ok("a")).await;
        assert!(head.starts_with("GET /next "));
        assert_eq!(answer.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_closes_a_kept_connection_costs_only_what_may_not_be_repeated() {
    everywhere(async |case: &mut Case| {
        let mut client = case.client().await;
        for (method, status) in [("GET", 200), ("HEAD", 200), ("PUT", 200), ("POST", 502)] {
            let request = client.get("/before");
            case.exchange(&mut client, request, ok("a")).await;
            let request = client.request(method, "/raced", &[], Upload::Empty);
            let asking = client.send(request);
            let answering = async {
                // The request goes out on the kept connection, which closes under it.
                let (head, wire) = case.upstream.asked().await;
                drop(wire);
                if status == 200 {
                    let (again, mut wire) = case.upstream.asked().await;
                    assert_eq!(again, head);
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    wire.send(answer).await;
                    case.upstream.keep(wire);
                }
            };
            let (response, ()) = tokio::join!(asking, answering);
            assert_eq!(response.unwrap().status(), status, "{method}");
        }
        assert!(case.upstream.is_untouched());
    })
    .await;
}
