//! Sources that come and go with the configuration leave nothing running.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

mod support;

#[path = "config_test/environment.rs"]
mod environment;

use std::path::Path;
use std::thread;
use std::time::Duration;

use environment::FixedEnvironment;
use renewd::clock::Clock;
use renewd::config::{self, model::Config};
use renewd::snapshot::{Control, Snapshot, StreamsRead};
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use support::database::DATABASE;
use support::mongo::Mongo;
use support::renewd::{APP_CERTIFICATE, APP_ID, JWT_SECRET};
use support::timed::snapshot;

/// What the driver itself keeps running for one client, with room.
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
