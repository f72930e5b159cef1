//! Sources that come and go with the configuration leave nothing running, and one that can't be taken up changes
//! nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::database::DATABASE;
use crate::support::environment::FixedEnvironment;
use crate::support::mongo::Mongo;
use crate::support::renewd::{APP_CERTIFICATE, APP_ID, JWT_SECRET};
use crate::support::timed::snapshot;
use renewd::config::model::{AuditSink, ServerTls};
use renewd::config::secret::Secret;
use renewd::config::{self, model::Config};
use renewd::snapshot::{Control, Snapshot, StreamsRead};
use renewd::telemetry::audit::Audit;
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::Clock;

/// The tasks that the driver itself keeps running for one client, with room.
const DRIVERS_OWN: usize = 40;

fn configured(mongo: &Mongo, cache_ttl: usize) -> Config {
    let uri = mongo.uri(DATABASE);
    let text = format!(
        "[upstream]\nservers = [\"http://127.0.0.1:3001\"]\n\n[agora]\napp_id = \"{APP_ID}\"\n\
         app_certificate = \"{APP_CERTIFICATE}\"\n\n[auth.jwt]\nsecret = \"{JWT_SECRET}\"\n\n\
         [mongodb]\nuri = \"{uri}\"\n\n[accounts]\nsource = \"mongodb\"\ncollection = \"astrologers\"\n\
         cache_ttl = \"{cache_ttl}ms\"\n\n[streams]\nsource = \"mongodb\"\ncache_ttl = \"{cache_ttl}ms\"\n"
    );
    let origin = Path::new("/etc/renewd/config.toml");
    let loaded = config::load(&text, origin, &FixedEnvironment::default());
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}

#[test]
fn a_thousand_reloads_leave_no_change_stream_and_no_lookup_behind() {
    let mongo = Mongo::start();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let clock = Clock::system();
    let metrics = Metrics::new(&clock, DropCounter::default());
    let control = Control::on(runtime.handle().clone());
    let next = |config: &Config, previous: Option<&Snapshot>| {
        let none = StreamsRead::Table(Vec::new());
        snapshot(config, none, previous, &metrics, &clock, &control)
    };
    let mut current = next(&configured(&mongo, 1), None);
    for turn in 0..1000 {
        current = next(&configured(&mongo, 2 + turn), Some(&current));
    }
    let alive = || runtime.handle().metrics().num_alive_tasks();
    let settled = (0..1500).any(|_| {
        thread::park_timeout(Duration::from_millis(20));
        alive() <= DRIVERS_OWN
    });
    assert!(settled, "{} tasks", alive());
    drop(current);
    // An unchanged source is carried over, with its one change stream.
    runtime.shutdown_background();
}

/// Settings that all differ from [`configured`], for the parts that are built only when their settings differ.
const DIFFERENT: &str = "[upstream]\nservers = [\"http://127.0.0.1:3002\"]\n\n[agora]\n\
    app_id = \"ffffffffffffffffffffffffffffffff\"\napp_certificate = \"ffffffffffffffffffffffffffffffff\"\n\n\
    [auth.jwt]\njwks_url = \"https://127.0.0.1:1/keys\"\nalgorithms = [\"RS256\"]\n\n\
    [mongodb]\nuri = \"mongodb://127.0.0.1:1/other\"\n\n\
    [accounts]\nsource = \"mongodb\"\ncollection = \"users\"\n\n\
    [streams]\nsource = \"mongodb\"\ncollection = \"shows\"\n\n\
    [authorize]\nurl = \"http://127.0.0.1:3002/authorize\"\n\n\
    [rate_limit]\nsubject = { requests = 1, per = \"1h\", burst = 1 }\n\n\
    [[reissue.rule]]\nmethods = [\"GET\"]\npath = \"/new\"\n\n[sessions]\nmax = 1\n";

/// The lines of renewd's own series.
fn series(metrics: &Metrics) -> Vec<String> {
    let text = metrics.render();
    let own = text.lines().filter(|line| line.starts_with("renewd_"));
    own.map(str::to_owned).collect()
}

/// The numbers of holders of the parts that a snapshot shares with its successors.
fn holders(snapshot: &Snapshot) -> [usize; 3] {
    [
        Arc::strong_count(&snapshot.sessions),
        Arc::strong_count(&snapshot.streams),
        Arc::strong_count(&snapshot.accounts),
    ]
}

#[test]
fn a_configuration_that_cannot_be_taken_up_changes_nothing_of_the_one_that_runs() {
    let mongo = Mongo::start();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let clock = Clock::manual(1_800_000_000);
    let metrics = Metrics::new(&clock, DropCounter::default());
    let control = Control::on(runtime.handle().clone());
    let none = || StreamsRead::Table(Vec::new());
    let running = snapshot(
        &configured(&mongo, 1000),
        none(),
        None,
        &metrics,
        &clock,
        &control,
    );
    let origin = Path::new("/etc/renewd/config.toml");
    let loaded = config::load(DIFFERENT, origin, &FixedEnvironment::default());
    let different = loaded.unwrap_or_else(|errors| panic!("{errors}")).config;

    let mut bad_id = different.clone();
    bad_id.agora.app_id = "short".to_owned();
    let mut bad_certificate = different.clone();
    bad_certificate.agora.app_certificate = Secret::new(b"short".to_vec());
    let mut bad_identity = different.clone();
    bad_identity.server.tls = Some(ServerTls {
        certificate: Secret::new(b"short".to_vec()),
        private_key: Secret::new(b"short".to_vec()),
        client_ca: None,
    });
    // Every step of building that can fail, one at a time.
    for bad in [bad_id, bad_certificate, bad_identity] {
        let standing = || (holders(&running), running.sessions.max());
        let before = (series(&metrics), standing());
        let audit = Audit::open(&AuditSink::Off, clock.clone(), DropCounter::default()).unwrap();
        let built = Snapshot::build(
            bad,
            none(),
            Arc::new(audit),
            Some(&running),
            &metrics,
            &clock,
            &control,
        );
        assert!(built.is_err());
        assert_eq!(standing(), before.1);
        assert!(series(&metrics) == before.0, "{:#?}", series(&metrics));
    }

    // The same with good values is another snapshot; the running parts take it up when it is put in force.
    let built = snapshot(
        &different,
        none(),
        Some(&running),
        &metrics,
        &clock,
        &control,
    );
    assert!(Arc::ptr_eq(&built.sessions, &running.sessions));
    assert_eq!(running.sessions.max(), 1_000_000);
    drop((built, running));
    runtime.shutdown_background();
}
