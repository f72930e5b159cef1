//! The duties that hyper leaves to a proxy, point by point, and the test that sends the bytes. HTTP is served without
//! hyper by now; the lessons hold for whatever takes hyper's place.
//!
//! | hyper 1.12 by itself | what holds it |
//! |---|---|
//! | `header_read_timeout` is the idle timer too, and off without a timer | connections: a_header_section_must_end_in_time |
//! | | connections: an_idle_connection_is_closed_in_time_whether_it_sleeps_or_never_spoke |
//! | no deadline before the first byte | connections: an_idle_connection_is_closed_in_time_whether_it_sleeps_or_never_spoke |
//! | | http2: a_connection_that_is_begun_or_idle_has_its_deadlines_too |
//! | | tls: a_handshake_must_end_in_time_and_holds_nobody_up |
//! | no deadline for bodies, read or written | connections: a_body_must_go_on_arriving |
//! | | connections: a_client_that_does_not_read_is_cut |
//! | | http2: each_stream_has_its_own_deadlines |
//! | | hyper_traps: an_upload_that_stops_is_cut_even_when_its_answer_has_begun |
//! | parse errors never reach the service | connections: what_the_parser_refuses_is_answered_counted_and_never_forwarded |
//! | | malformed_input: what_is_too_large_is_said_to_be |
//! | duplicate and missing `Host`, `Host` beside an absolute target | malformed_input: a_request_for_no_host_or_for_two_is_refused |
//! | | malformed_input: the_host_of_an_absolute_target_is_the_one_that_counts |
//! | length and chunked together; codings before chunked | malformed_input: framing_that_two_servers_could_read_in_two_ways_is_refused_and_its_connection_closed |
//! | | malformed_input: a_length_beside_an_encoding_is_void_and_its_connection_closes |
//! | a chunked GET loses its body | forwarding: a_get_with_a_chunked_body_keeps_its_body |
//! | length and chunked together in an answer | forwarding: length_and_chunked_together_are_never_passed_on_either_way |
//! | an unrequested 101 passes, other 1xx can't be sent, `Expect` travels | forwarding: answers_that_cannot_be_framed_again_are_refused |
//! | | interim_answers: interim_answers_pass_before_the_final_one_is_there |
//! | | conformance_h1: expectations_are_met_here_and_never_travel |
//! | an early answer doesn't announce the close; its backend connection is neither kept nor closed | forwarding_failures: an_early_answer_is_passed_on_and_both_connections_close |
//! | | fidelity_streams: an_answer_to_an_unfinished_upload_arrives_whole_and_ends_it |
//! | a client's departure isn't seen behind buffered bytes | hyper_traps: a_client_that_leaves_behind_a_pipelined_request_is_missed |
//! | idle connections are kept past the server's patience | forwarding_failures: idle_backend_connections_are_closed_in_time |
//! | | forwarding_failures: a_backend_that_announces_one_second_is_not_asked_again_on_that_connection |
//! | | node_backend: a_server_that_closes_idle_connections_quickly_loses_no_request |
//! | HTTP/1.0 travels, `Host` is invented, `OPTIONS *` breaks | conformance_h1: the_forms_of_a_target_mean_what_they_mean_without_renewd |
//! | | fidelity: http_1_0_and_pipelining_work_on_every_kind_of_connection |
//! | header maps reorder; trailers need two announcements | fidelity: the_fields_of_a_request_arrive_in_order_repeated_and_unchanged |
//! | | fidelity_streams: trailers_pass_both_ways |
//! | buffers of 408 KiB a connection; answers held back for pipelined requests | hostile_peers: ten_thousand_pipelined_requests_whose_answers_nobody_reads_cost_a_buffer |
//! | | hostile_peers: readers_who_do_not_read_are_cut_and_cost_a_buffer_each |
//! | | fidelity: http_1_0_and_pipelining_work_on_every_kind_of_connection |
//! | a stop forgets tunnels, and spoils an upgrade that is being decided | tunnels: a_stop_leaves_tunnels_alone_until_it_ends_them |
//! | | tunnels: an_upgrade_that_is_being_decided_survives_the_beginning_of_a_stop |
//! | copying both ways leaks on a one-sided close | tunnels: a_side_that_has_closed_still_receives |
//! | | hyper_traps: a_tunnel_closed_on_one_side_ends_before_its_idle_time |
//! | HTTP/2: `:authority`, cookie crumbs, no connection fields | http2: a_request_reaches_the_backend_as_http_1_with_its_host_and_whole_cookie |
//! | | fidelity: what_belongs_to_one_hop_stays_there |
//! | accepting fails without descriptors | descriptors: without_descriptors_accepting_pauses_and_goes_on_when_there_are_some |
//! | targets that Node takes are refused | malformed_input: raw_bytes_that_are_no_uri_in_a_target_are_refused |
//! | the head of an event stream waits for its body | fidelity_streams: a_download_arrives_piece_by_piece_whatever_delimits_it |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use crate::support::plane;

use std::path::Path;
use std::time::Duration;

use crate::support::plane::{Backend, Proxy, Setup, get};
use renewd::exchange::tunnel;
use renewd::io::transport::{Transport, Upgraded};
use renewd::server::Event;
use renewd::server::stall::Cause;
use renewd::terms::clock::timer_now;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

#[test]
fn every_test_that_the_table_names_is_there() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let read = |name: &str| {
        let areas = std::fs::read_dir(&tests).unwrap();
        let files = areas.map(|area| area.unwrap().path().join(name).with_extension("rs"));
        let found = files.filter_map(|file| std::fs::read_to_string(file).ok());
        found.reduce(|all, one| all + &one).unwrap_or_default()
    };
    let table = read("hyper_traps");
    let rows = table.lines().filter_map(|line| {
        let cell = line.strip_prefix("//! | ")?.strip_suffix(" |")?;
        cell.rsplit_once("| ")?.1.split_once(": ")
    });
    let mut named = 0;
    for (file, test) in rows {
        assert!(
            read(file).contains(&format!("fn {test}(")),
            "{file}: {test}"
        );
        named += 1;
    }
    assert!(named > 30, "{named} rows were understood");
}

#[tokio::test]
async fn an_upload_that_stops_is_cut_even_when_its_answer_has_begun() {
    let backend = Backend::start().await;
    let mut setup = Setup::default();
    setup.timeouts.body_stall = Duration::from_millis(300);
    let proxy = Proxy::start(backend.address(), setup);
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let mut server = backend.accept().await;
    server.until("abc\r\n").await;
    server
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nABC\r\n")
        .await;
    client.until("ABC\r\n").await;
    assert_eq!(client.rest().await, "", "neither more nor an end");
    assert_eq!(server.rest().await, "");
    let cut = |log: &plane::Log| log.count(Event::TimedOut(Cause::Body)) == 1;
    proxy.log.wait("the stall being reported", cut).await;
}

#[tokio::test]
async fn a_client_that_leaves_behind_a_pipelined_request_is_missed() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    for resets in [true, false] {
        let mut client = proxy.connect().await;
        client.send([get("/1"), get("/2")].concat()).await;
        let mut server = backend.accept().await;
        assert!(server.head().await.starts_with("GET /1 "));
        if resets {
            let Transport::Tcp(socket) = &client.stream else {
                unreachable!("connected by TCP");
            };
            let socket = socket2::SockRef::from(socket);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        assert_eq!(server.rest().await, "", "and the second request isn't made");
    }
    assert!(backend.is_untouched().await);
}

/// One end for the tunnel, the other for the test.
fn pair() -> (Upgraded, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let upgraded = Upgraded {
        transport: Transport::Unix(ours),
        read_ahead: bytes::Bytes::new(),
        slot: None,
    };
    (upgraded, theirs)
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_closed_on_one_side_ends_before_its_idle_time() {
    let (client, mut client_end) = pair();
    let (server, mut server_end) = pair();
    let began = timer_now();
    let tunnel = async move {
        let idle = || Duration::from_hours(1);
        tunnel::run(client, server, None, idle, || false, None).await;
    };
    // The client never closes its side.
    let speaking = async {
        server_end.write_all(b"last words").await.unwrap();
        server_end.shutdown().await.unwrap();
        let mut received = String::new();
        client_end.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "last words");
    };
    tokio::join!(tunnel, speaking);
    let took = began.elapsed();
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert_eq!(server_end.read(&mut [0; 1]).await.unwrap(), 0);
}
