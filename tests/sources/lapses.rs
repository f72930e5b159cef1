//! Tokens that aren't renewed although their streams go on, on a clock that the test moves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::renewd::{Settings, configuration, jwt, write_files};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use renewd::config::environment::SystemEnvironment;
use renewd::config::model::{AuditSink, Config, DecisionMode};
use renewd::daemon::tasks::lapses::Waiting;
use renewd::decision;
use renewd::exchange::Exchange;
use renewd::exchange::response_body::RequestBody;
use renewd::io::descriptors::Shares;
use renewd::io::fetch::Fetcher;
use renewd::sessions::SWEEPS;
use renewd::snapshot::{Control, Shared, Snapshot, StreamsRead};
use renewd::sources::streams::StreamState;
use renewd::telemetry::audit::Audit;
use renewd::telemetry::labels::Endpoint;
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::Clock;
use renewd::terms::context::{RequestContext, RequestId};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Unix seconds.
const START: u64 = 1_800_000_000;

/// The lifetime of tokens, in seconds.
const LIFETIME: u64 = 3600;

/// The service in this process.
struct Daemon {
    shared: Shared,
    config: Config,
    waiting: Waiting,
    runtime: Runtime,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// The service with these channels, live and of `owner`.
    fn new(live: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            backend: Some(([127, 0, 0, 1], 9).into()),
            token: "zero_uid = \"allow\"".to_owned(),
            ..Settings::default()
        };
        write_files(directory.path(), &settings);
        let origin = directory.path().join("config.toml");
        let text = configuration(&settings);
        let loaded = renewd::config::load(&text, &origin, &SystemEnvironment).unwrap();
        let (clock, dropped) = (Clock::manual(START), DropCounter::default());
        let metrics = Metrics::new(&clock, dropped.clone());
        let control = Control {
            fetcher: Fetcher::new(runtime.handle().clone(), None),
            runtime: runtime.handle().clone(),
        };
        let file = AuditSink::File(directory.path().join("audit.log"));
        let audit = Arc::new(Audit::open(&file, clock.clone(), dropped).unwrap());
        let snapshot = Snapshot::build(
            loaded.config.clone(),
            streams(live),
            audit,
            None,
            &metrics,
            &clock,
            &control,
        )
        .unwrap();
        Self {
            shared: Shared::new(snapshot, clock, metrics, control, &Shares::of(1024, 1)),
            config: loaded.config,
            waiting: Waiting::default(),
            runtime,
            directory,
        }
    }

    /// Another configuration, or another answer of the streams source.
    fn change(&self, config: &Config, streams: StreamsRead) {
        let before = self.shared.current.load_full();
        let after = Snapshot::build(
            config.clone(),
            streams,
            Arc::clone(&before.audit),
            Some(&before),
            &self.shared.metrics,
            &self.shared.clock,
            &self.shared.control,
        );
        self.shared.current.store(Arc::new(after.unwrap()));
    }

    /// Asks for a token; the status.
    fn ask(&self, subject: &str, body: &Value) -> u16 {
        let claims = json!({"sub": subject, "exp": START + 86_400});
        let body =
            RequestBody::empty(Rc::new(Exchange::default())).replay(Bytes::from(body.to_string()));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        let bearer = HeaderValue::try_from(format!("Bearer {}", jwt(&claims))).unwrap();
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        let context = RequestContext {
            id: RequestId::from_bits(0, 1),
            started: self.shared.clock.elapsed(),
            peer: None,
            client_ip: None,
        };
        let snapshot = self.shared.current.load_full();
        let answer = decision::answer(&self.shared, &snapshot, &context, Endpoint::Token, request);
        match self.runtime.block_on(answer) {
            decision::TokenReply::Ours(response) => response.status().as_u16(),
            other => panic!("not answered here: {other:?}"),
        }
    }

    fn pass(&self, seconds: u64) {
        self.shared.clock.advance(Duration::from_secs(seconds));
    }

    /// Does upkeep's work of a few seconds: a look at every session, and one at the lapses that were found.
    fn look(&mut self) {
        let snapshot = self.shared.current.load_full();
        let now = self.shared.clock.unix_seconds();
        for turn in 0..SWEEPS {
            let lapsed = snapshot.sessions.sweep(turn, now);
            self.waiting.add(lapsed, self.shared.clock.elapsed());
        }
        self.runtime.block_on(self.waiting.settle(&self.shared));
    }

    /// Every lapse counted, as `role/cause` and how often.
    fn lapses(&self) -> HashMap<String, u64> {
        let page = self.shared.metrics.render();
        let samples = page
            .lines()
            .filter_map(|line| line.strip_prefix("renewd_token_lapses_total{"));
        let counts = samples.map(|sample| {
            let parts: Vec<_> = sample.split('"').collect();
            let labels = HashMap::from([
                (parts[0].trim_matches([',', '=']), parts[1]),
                (parts[2].trim_matches([',', '=']), parts[3]),
            ]);
            let count = parts[4].trim_matches(['}', ' ']).parse().unwrap();
            (format!("{}/{}", labels["role"], labels["cause"]), count)
        });
        counts.collect()
    }

    fn assert_lapses(&self, expected: &[(&str, u64)]) {
        let mut all = HashMap::from(
            [
                "publisher/refused",
                "publisher/silent",
                "subscriber/refused",
                "subscriber/silent",
            ]
            .map(|labels| (labels.to_owned(), 0)),
        );
        for (labels, count) in expected {
            all.insert((*labels).to_owned(), *count);
        }
        assert_eq!(self.lapses(), all);
    }
}

fn streams(live: &[&str]) -> StreamsRead {
    let stream = |channel: &&str| {
        let stream = StreamState {
            live: true,
            owner: Some("owner".into()),
            banned_viewers: vec!["troll".into()],
            ..StreamState::default()
        };
        ((*channel).into(), stream)
    };
    StreamsRead::Table(live.iter().map(stream).collect())
}

fn viewer(uid: u32) -> Value {
    json!({"channelName": "show", "uid": uid})
}

fn audit(directory: &Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("audit.log")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["event"] == "lapse")
        .collect()
}

#[test]
fn both_labels_exist_from_the_start() {
    Daemon::new(&[]).assert_lapses(&[]);
}

#[test]
fn silent_and_refused_holders_while_the_stream_goes_on() {
    let mut daemon = Daemon::new(&["show"]);
    let host = json!({"channelName": "show", "uid": 1, "role": "publisher"});
    assert_eq!(daemon.ask("owner", &host), 200);
    assert_eq!(daemon.ask("leaver", &viewer(2)), 200);
    assert_eq!(daemon.ask("robbed", &viewer(3)), 200);
    assert_eq!(daemon.ask("stayer", &viewer(4)), 200);
    daemon.pass(LIFETIME - 30);
    assert_eq!(daemon.ask("stayer", &viewer(4)), 200);
    // The holder's last request is refused, because the holder may not publish.
    let promoted = json!({"channelName": "show", "uid": 3, "role": "publisher"});
    assert_eq!(daemon.ask("robbed", &promoted), 403);
    daemon.pass(30 + 89);
    daemon.look();
    daemon.assert_lapses(&[]);
    daemon.pass(1);
    daemon.look();
    let lapsed = [
        ("publisher/silent", 1),
        ("subscriber/silent", 1),
        ("subscriber/refused", 1),
    ];
    daemon.assert_lapses(&lapsed);
    daemon.pass(600);
    daemon.look();
    daemon.assert_lapses(&lapsed);

    // The events of publishers' lapses name the publisher, which operators look for.
    let shared = daemon.shared.current.load();
    assert!(shared.audit.flush(Duration::from_secs(30)));
    let lines = audit(daemon.directory.path());
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["subject"], "owner");
    assert_eq!(lines[0]["channel"], "show");
    assert_eq!(lines[0]["uid"], 1);
    assert_eq!(lines[0]["cause"], "silent");
    assert_eq!(lines[0]["expired"], "2027-01-15T09:00:00Z");
}

#[test]
fn a_stream_that_is_over_lapses_no_session() {
    let mut daemon = Daemon::new(&["show"]);
    assert_eq!(daemon.ask("leaver", &viewer(2)), 200);
    daemon.change(&daemon.config.clone(), streams(&["another"]));
    daemon.pass(LIFETIME + 90);
    daemon.look();
    daemon.assert_lapses(&[]);
    assert!(daemon.waiting.is_empty());
}

#[test]
fn a_source_without_an_answer_is_asked_again_for_a_minute() {
    let mut daemon = Daemon::new(&["show"]);
    assert_eq!(daemon.ask("leaver", &viewer(2)), 200);
    let config = daemon.config.clone();
    daemon.change(&config, StreamsRead::Unreadable);
    daemon.pass(LIFETIME + 90);
    daemon.look();
    daemon.assert_lapses(&[]);
    assert_eq!(daemon.waiting.len(), 1);
    daemon.pass(59);
    daemon.change(&config, streams(&["show"]));
    daemon.look();
    daemon.assert_lapses(&[("subscriber/silent", 1)]);

    assert_eq!(daemon.ask("leaver", &viewer(2)), 200);
    daemon.change(&config, StreamsRead::Unreadable);
    daemon.pass(LIFETIME + 90);
    daemon.look();
    daemon.pass(60);
    daemon.change(&config, streams(&["show"]));
    daemon.look();
    daemon.assert_lapses(&[("subscriber/silent", 1)]);
    assert!(daemon.waiting.is_empty());
}

#[test]
fn the_backends_own_renewals_are_no_lapses() {
    let mut daemon = Daemon::new(&["show"]);
    assert_eq!(daemon.ask("leaver", &viewer(2)), 200);
    let mut config = daemon.config.clone();
    config.decision.mode = DecisionMode::Off;
    daemon.change(&config, streams(&["show"]));
    daemon.pass(LIFETIME + 90);
    daemon.look();
    daemon.assert_lapses(&[]);
}
