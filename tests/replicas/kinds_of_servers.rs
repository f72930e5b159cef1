//! Servers of every kind that docs/replicas.md names: over TLS, far away, Valkey, one that evicts keys, and a cluster.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::shared_limits::{TIMEOUT, burst, over, passing};
use crate::store_faults::{AT_MOST, SHORT, is_local, is_shared, notices, recovers};
use crate::support::ask::{Ask, counted};
use crate::support::database::timed;
use crate::support::ports::free;
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, write_files};
use crate::support::tls::Authority;

/// A proxy in front of a server whose answers come so many milliseconds late.
struct Distance {
    address: SocketAddr,
    milliseconds: Arc<AtomicU64>,
}

impl Distance {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let milliseconds = Arc::new(AtomicU64::new(0));
        let late = Arc::clone(&milliseconds);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(from, to, &AtomicU64::new(0)));
                let late = Arc::clone(&late);
                thread::spawn(move || pass(server, client, &late));
            }
        });
        Self {
            address,
            milliseconds,
        }
    }

    fn set(&self, milliseconds: u64) {
        self.milliseconds.store(milliseconds, Ordering::Relaxed);
    }
}

/// Passes what comes on, so many milliseconds late, until one side closes.
fn pass(mut from: TcpStream, mut to: TcpStream, late: &AtomicU64) {
    let mut buffer = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        match late.load(Ordering::Relaxed) {
            0 => {}
            milliseconds => thread::park_timeout(Duration::from_millis(milliseconds)),
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

#[test]
fn far_away_and_then_too_far() {
    let redis = Redis::start();
    let distance = Distance::before(redis.address);
    let url = format!("redis://{}", distance.address);
    let renewd = Renewd::start(&over(&url, TIMEOUT, &burst("subject", 3)));
    let hasty = Renewd::start(&over(&url, SHORT, &burst("subject", 3)));
    for renewd in [&renewd, &hasty] {
        renewd.eventually("it is shared", is_shared);
        assert_eq!(Ask::viewer("first", 1).send(renewd).status, 200);
    }
    distance.set(100);
    let (through, took) = timed(|| passing(&[&renewd], "patient"));
    assert_eq!(through, 3);
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(is_shared(&renewd));
    // Ten times what a request may wait.
    distance.set(2000);
    notices(&hasty);
    is_local(&hasty, "no answer within 200ms");
    distance.set(0);
    recovers(&hasty);
    recovers(&renewd);
    assert_eq!(passing(&[&renewd, &hasty], "together"), 3);
}

#[test]
fn over_tls_only_with_a_certificate_that_is_trusted() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let pair = known.issue("redis", 30);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let port = free().port().to_string();
    let redis = Redis::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &text(&pair.certificate),
        "--tls-key-file",
        &text(&pair.key),
        "--tls-ca-cert-file",
        &text(&known.certificate()),
        "--tls-auth-clients",
        "no",
    ]);
    let start = |trusted: &Authority| {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("rediss://127.0.0.1:{port}");
        write_files(directory.path(), &over(&url, TIMEOUT, &burst("subject", 4)));
        Renewd::start_in(directory, &[], |command| {
            command.env("SSL_CERT_FILE", trusted.certificate());
        })
    };
    let (one, other, stranger) = (start(&known), start(&known), start(&unknown));
    for renewd in [&one, &other] {
        renewd.log().wait("answer of the store", |line| {
            let message = line["msg"].as_str().unwrap_or_default();
            // A busy machine may not manage the first handshake within its second.
            message
                .starts_with("the shared store answers")
                .then_some(())
        });
    }
    assert_eq!(passing(&[&one, &other], "viewer"), 4);
    assert!(is_shared(&one) && is_shared(&other));
    let key = "renewd:{shared}:limits:subject:viewer".to_owned();
    assert!(redis.keys().contains(&key));
    notices(&stranger);
    is_local(&stranger, "certificate");
    // A server that speaks plain text is none.
    let directory = tempfile::tempdir().unwrap();
    let url = format!("rediss://{}", redis.address);
    write_files(directory.path(), &over(&url, SHORT, &burst("subject", 4)));
    let plain = Renewd::start_in(directory, &[], |command| {
        command.env("SSL_CERT_FILE", known.certificate());
    });
    notices(&plain);
    is_local(&plain, "no connection");
}

#[test]
fn a_valkey_server_is_as_good_as_a_redis() {
    let Some(redis) = Redis::valkey() else {
        return;
    };
    let settings = over(&redis.url(), TIMEOUT, &burst("subject", 6));
    let [first, second] = [(); 2].map(|()| Renewd::start(&settings));
    assert_eq!(passing(&[&first, &second], "viewer"), 6);
    let revoked = r#"{"subject":"banned","for":"1h"}"#;
    let told = first.ask_admin("POST", "/v1/revocations", revoked);
    assert_eq!(told.status, 201);
    second.eventually("the revocation is in force", |renewd| {
        Ask::viewer("banned", 8).send(renewd).status == 403
    });
    assert!(is_shared(&first) && is_shared(&second));
}

#[test]
fn one_that_evicts_keys_forgets_debts_and_fails_no_request() {
    let redis = Redis::with(&["--maxmemory-policy", "allkeys-lru"]);
    let renewd = Renewd::start(&over(&redis.url(), TIMEOUT, &burst("subject", 3)));
    assert_eq!(passing(&[&renewd], "spent"), 3);
    // The limits that there were may be evicted by themselves: the debt is owed still.
    redis.run("DEL renewd:{shared}:limits:tariffs:subject");
    assert_eq!(Ask::viewer("spent", 7).send(&renewd).status, 429);
    let used = redis.figure("memory", "used_memory");
    redis.run(&format!("CONFIG SET maxmemory {}", used + 200_000));
    let fill = "for i = 1, 100 do redis.call('SET', ARGV[1] .. i, string.rep('x', 4096)) end";
    for round in 0..10_u32 {
        redis.run_words(&["EVAL", fill, "0", &format!("filler:{round}:")]);
        for uid in 1..=10 {
            let ask = Ask::viewer(&format!("viewer-{round}-{uid}"), round * 100 + uid);
            assert_eq!(ask.send(&renewd).status, 200);
        }
    }
    assert!(redis.figure("stats", "evicted_keys") > 100);
    assert!(passing(&[&renewd], "late") >= 3);
    assert!(is_shared(&renewd));
    let failed = r#"renewd_source_lookups_total{source="redis",outcome="error"}"#;
    assert_eq!(counted(&renewd, failed), 0);
}

#[test]
fn each_node_of_a_cluster_leads_to_the_one_that_has_the_keys() {
    let nodes = Redis::cluster();
    let limits = burst("subject", 6) + &burst("channel", 100) + &burst("global", 100);
    let daemons = nodes
        .each_ref()
        .map(|node| Renewd::start(&over(&node.url(), TIMEOUT, &limits)));
    let all = daemons.each_ref();
    assert_eq!(passing(&all, "viewer"), 6);
    assert!(all.iter().all(|renewd| is_shared(renewd)));
    let held = nodes.each_ref().map(|node| node.keys().len());
    let owner = held.iter().position(|count| *count > 0).unwrap();
    assert_eq!(
        held.iter().filter(|count| **count > 0).count(),
        1,
        "{held:?}"
    );
    // The keys' slot moves to another node while the daemons are connected to the first.
    let heir = (owner + 1) % nodes.len();
    let slot: u32 =
        redis::from_redis_value(nodes[0].run("CLUSTER KEYSLOT renewd:{shared}:limits:global"))
            .unwrap();
    let id =
        |node: &Redis| -> String { redis::from_redis_value(node.run("CLUSTER MYID")).unwrap() };
    let (from, to) = (id(&nodes[owner]), id(&nodes[heir]));
    nodes[heir].run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}"));
    nodes[owner].run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}"));
    let port = nodes[heir].address.port().to_string();
    let keys = nodes[owner].keys();
    let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "30000", "KEYS"];
    command.extend(keys.iter().map(String::as_str));
    nodes[owner].run_words(&command);
    for node in [&nodes[heir], &nodes[owner], &nodes[(owner + 2) % 3]] {
        node.run(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
    }
    for (uid, renewd) in (1..).zip(all) {
        let ask = Ask::viewer(&format!("moved-{uid}"), uid);
        let (answer, took) = timed(|| ask.send(renewd));
        assert_eq!(answer.status, 200);
        assert!(took < AT_MOST, "{took:?}");
        recovers(renewd);
    }
    assert_eq!(passing(&all, "after the move"), 6);
    // The debts moved too.
    assert_eq!(passing(&all, "viewer"), 0);
}
