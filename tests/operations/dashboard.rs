//! The dashboard: of Grafana's shape, and every query of it finds something in a real Prometheus that has scraped real
//! daemons under traffic, with faults.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that lacks something fails

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::prometheus::{Prometheus, expired_session, leave};
use crate::support::agora_api::{AgoraApi, RuleRequest};
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, Settings, login, now, private_file, write_files};
use crate::support::scripted::Scripted;
use crate::support::tls::Authority;
use crate::support::{ejecting, npm};
use renewd::terms::role::Role;
use serde_json::{Value, json};

/// Panels that show zeros here: the backend listens on loopback alone, and a million subjects would be needed to share
/// a limit.
const MAY_BE_ZERO: [&str; 2] = [
    "Backend reachable without renewd",
    "Charged to the shared limit",
];

/// Label names that a variable or a legend may have: closed sets, and names out of the configuration.
const LABELS: [&str; 20] = [
    "backend", "cause", "class", "code", "endpoint", "handler", "instance", "job", "kind", "le",
    "listener", "mode", "outcome", "reason", "role", "route", "scope", "server", "source", "use",
];

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring/dashboard.json")
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap()
}

/// Panels with queries: rows have none.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} of {value:#}"))
}

fn expressions(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().unwrap().iter();
    targets.map(|target| text(target, "expr")).collect()
}

#[test]
fn grafana_knows_every_field_of_the_dashboard() {
    let package = npm::package("grafana");
    npm::ensure(&package);
    let output = Command::new("node")
        .arg(package.join("check.mjs"))
        .arg(path())
        .output()
        .expect("node: `tests/run --install` installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_panel_says_what_it_shows_asks_the_chosen_prometheus_and_covers_no_other() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = |name| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for row in place("y")..place("y") + place("h") {
            for column in place("x")..place("x") + place("w") {
                assert!(cells.insert((row, column)), "{title} covers another panel");
            }
        }
    }
    let panels = panels(&dashboard);
    assert!(panels.len() > 40, "{}", panels.len());
    for panel in panels {
        let title = text(panel, "title");
        let description = text(panel, "description");
        assert!(description.ends_with('.'), "{title}: {description}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
        for expression in expressions(panel) {
            // Alerts about replicas together have no instance.
            let selected = ["", "|"].iter().any(|none| {
                expression.contains(&format!("job=~\"$job\",instance=~\"$instance{none}\""))
            });
            assert!(selected, "{title}: {expression}");
        }
    }
}

#[test]
fn no_label_of_the_dashboard_is_open() {
    let dashboard = dashboard();
    let known: BTreeSet<&str> = LABELS.into_iter().collect();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let legends = text(target, "legendFormat").split("{{").skip(1);
            let grouped = text(target, "expr").split("by (").skip(1);
            let lists = grouped.flat_map(|rest| rest.split(')').next().unwrap().split(", "));
            for label in legends
                .map(|rest| rest.split("}}").next().unwrap())
                .chain(lists)
            {
                assert!(known.contains(label), "{label} in {target:#}");
            }
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables: Vec<&str> = variables.map(|variable| text(variable, "name")).collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
}

/// A query as Grafana sends it: its variables filled in.
fn filled(expression: &str) -> String {
    let variables = [
        ("$__rate_interval", "5m"),
        ("$__range", "3h"),
        ("$job", "renewd"),
        ("$instance", ".*"),
    ];
    let filled = variables
        .into_iter()
        .fold(expression.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        });
    assert!(!filled.contains('$'), "{filled}");
    filled
}

/// The finite numbers that a query finds; `None` where it finds none.
fn found(data: &Value) -> Option<Vec<f64>> {
    let samples = data["result"].as_array()?.iter();
    let numbers = samples.filter_map(|sample| sample["value"][1].as_str()?.parse().ok());
    let numbers: Vec<f64> = numbers.filter(|number: &f64| number.is_finite()).collect();
    (!numbers.is_empty()).then_some(numbers)
}

/// Waits until a query finds what `wanted` accepts.
fn finds(prometheus: &Prometheus, expression: &str, wanted: impl Fn(&[f64]) -> bool) {
    let expression = filled(expression);
    let mut path = "query?query=".to_owned();
    for byte in expression.bytes() {
        let _ = write!(path, "%{byte:02X}");
    }
    prometheus.wait(&path, &expression, |data| {
        found(data).filter(|numbers| wanted(numbers))
    });
}

/// Three daemons, and everything around them that can go wrong.
struct Show {
    redis: Redis,
    agora: AgoraApi,
    sharing: Renewd,
    streams: Scripted,
    backend: Scripted,
    enforcing: Renewd,
    observing: Renewd,
}

/// The answer about the one live stream.
const LIVE: &str = r#"{"live":true,"owner":"owner"}"#;

impl Show {
    /// One daemon decides, with sessions of an earlier process that lapse within half a minute. The other one observes,
    /// loses every line of its audit log, and has a backend server that refuses every connection beside a good one. The
    /// third shares a Redis, and removes revoked users from their channels.
    fn start(authority: &Authority) -> Self {
        let (streams, backend) = (Scripted::start(), Scripted::start());
        streams.answer(503, "{}");
        backend.answer(200, "{}");
        let pair = authority.issue("show", 90);
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            backend: Some(backend.address),
            server: "listen = [\"plain:127.0.0.1:0\"]".to_owned(),
            token: "zero_uid = \"allow\"".to_owned(),
            sources: Some(format!(
                "[accounts]\nsource = \"none\"\n\n\
                 [streams]\nsource = \"http\"\nurl = \"{}\"\ncache_ttl = \"0s\"\n\n",
                streams.url("/{channel}")
            )),
            tables: format!(
                "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n\
                 [rate_limit]\nsubject = {{ requests = 60, per = \"1m\", burst = 20 }}\n\
                 global = {{ requests = 100000, per = \"1s\", burst = 100000 }}\n\
                 [[reissue.rule]]\npath = \"/api/live/active\"\n",
                pair.certificate.display(),
                pair.key.display()
            ),
            ..Settings::default()
        };
        write_files(directory.path(), &settings);
        let expired = u32::try_from(now() - 70).unwrap();
        let publisher = expired_session(expired, Role::Publisher, 1, true);
        let viewer = expired_session(expired, Role::Subscriber, 2, false);
        leave(&directory.path().join("state"), [publisher, viewer]);
        let enforcing = Renewd::start_in(directory, &[], |_| {});
        let observing = Renewd::start(&Settings {
            upstream: format!(
                "servers = [\"http://127.0.0.1:1\", \"http://{}\"]",
                backend.address
            ),
            tables: "[decision]\nmode = \"observe\"\n".to_owned(),
            log: "audit = \"file:/dev/full\"".to_owned(),
            ..Settings::default()
        });
        let (redis, agora) = (Redis::start(), AgoraApi::start());
        let tables = format!("[redis]\nurl = \"{}\"\n{}", redis.url(), agora.table());
        Self {
            sharing: ejecting::start_with(&agora, tables),
            redis,
            agora,
            streams,
            backend,
            enforcing,
            observing,
        }
    }

    fn token(&self, endpoint: &str, subject: &str, uid: u32, role: &str) -> (u16, Value) {
        let body = json!({"channelName": "live_show", "uid": uid, "role": role}).to_string();
        let answer = self
            .enforcing
            .post(&format!("/api/live/{endpoint}"), &login(subject), &body);
        (answer.status, answer.json())
    }

    /// Everybody who does right.
    fn audience(&self, round: u32) {
        self.streams.answer(200, LIVE);
        for viewer in 0..40 {
            let subject = format!("viewer-{viewer}");
            let (status, answer) = self.token("token", &subject, 100 + viewer, "subscriber");
            assert_eq!(status, 200, "{answer}");
        }
        for endpoint in ["token", "refresh-token"] {
            let (status, answer) = self.token(endpoint, "anyone", 0, "subscriber");
            assert_eq!(status, 200, "{answer}");
            let (status, answer) = self.token(endpoint, "owner", 7, "publisher");
            assert_eq!(status, 200, "{answer}");
            // The backend's own answer has a token too.
            let token = text(&answer["data"], "token");
            let body = json!({"token": token, "round": round});
            self.backend.answer(200, &body.to_string());
        }
        let active =
            b"GET /api/live/active HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";
        assert_eq!(self.enforcing.client().send(active).unwrap().status, 200);
    }

    /// Users who are revoked where replicas share that, and removed from their channel.
    fn removals(&self, round: u32) {
        for uid in [0, 20 + round] {
            let subject = format!("removed-{round}-{uid}");
            ejecting::hold(&self.sharing, &subject, "live_show", uid);
            ejecting::revoke(&self.sharing, &json!({"subject": subject}));
        }
        let made = usize::try_from(round).unwrap() + 1;
        let rules = |requests: &[RuleRequest]| requests.len() == made;
        self.agora.wait("a rule for each who has a uid", rules);
    }

    /// The shared store is gone, and comes back.
    fn store_restarts(&mut self) {
        let shared = "renewd_store_mode{mode=\"shared\"}";
        self.redis.kill();
        let gone = |renewd: &Renewd| renewd.whole(shared) == 0;
        self.sharing.eventually("the store is gone", gone);
        ejecting::hold(&self.sharing, "alone", "live_other", 9);
        self.redis.restart();
        let back = |renewd: &Renewd| renewd.whole(shared) == 1;
        self.sharing.eventually("the store is back", back);
    }

    /// Everybody who does wrong, and everything that fails meanwhile.
    fn faults(&self, round: u32) {
        for stranger in 0..5 {
            let subject = format!("stranger-{stranger}");
            let (status, answer) = self.token("token", &subject, 8, "publisher");
            assert_eq!(status, 403, "{answer}");
        }
        let body = r#"{"channelName":"live_show","uid":9}"#;
        let ask = |login: &str, body: &str| self.enforcing.post("/api/live/token", login, body);
        assert_eq!(ask("no.such.login", body).status, 401);
        assert_eq!(ask(&login("anyone"), "{").status, 400);
        let proxied = b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
        assert_eq!(self.enforcing.client().send(proxied).unwrap().status, 200);
        let garbage = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        assert_eq!(self.enforcing.client().send(garbage).unwrap().status, 400);
        for _ in 0..4 {
            // Observed: the backend answers.
            let answer = self
                .observing
                .post("/api/live/token", &login("anyone"), body);
            assert_eq!(answer.status, 200);
        }
        let villain = json!({"subject": format!("villain-{round}"), "for": "1h"}).to_string();
        let revoked = self
            .enforcing
            .ask_admin("POST", "/v1/revocations", &villain);
        assert_eq!(revoked.status, 201);
        self.streams.answer(503, "{}");
        for newcomer in ["newcomer", "latecomer", "stranger"] {
            let (status, answer) = self.token("refresh-token", newcomer, 10, "publisher");
            assert_eq!(status, 503, "{answer}");
        }
        let (status, answer) = self.token("refresh-token", "owner", 7, "publisher");
        assert_eq!(status, 200, "holders renew: {answer}");
        // One caller asks without end, until the limit says no.
        let greedy = login("greedy");
        let refused = (0..10_000).any(|_| ask(&greedy, body).status == 429);
        assert!(refused, "no limit");
    }
}

/// A connection that the backend has taken out of HTTP.
fn tunnel(show: &Show) -> TcpStream {
    show.backend.bytes(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let mut stream = TcpStream::connect(show.enforcing.public).unwrap();
    let request = "GET /socket HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut status = String::new();
    BufReader::new(&stream).read_line(&mut status).unwrap();
    assert!(status.contains("101"), "{status}");
    stream
}

#[test]
fn every_query_finds_something_in_a_prometheus_that_saw_a_show_with_faults() {
    let authority = Authority::new();
    let mut show = Show::start(&authority);
    let daemons = [&show.enforcing, &show.observing, &show.sharing];
    let prometheus = Prometheus::start_for(&daemons.map(|renewd| renewd.admin));
    // `rate` needs to have seen a series before it grows. Some series begin with their first event.
    prometheus.scraped(2);
    for round in 0..2 {
        show.audience(round);
        show.faults(round);
        show.removals(round);
        prometheus.scraped(2);
    }
    show.store_restarts();
    let _tunnel = tunnel(&show);
    private_file(&show.observing.file("config.toml"), "[server\n");
    let reload = show.observing.ask_admin("POST", "/-/reload", "{}");
    assert_eq!(reload.status, 422);
    show.backend.answer(200, "{}");
    // The streams source answers, so that it is known that the stream goes on whose tokens lapse.
    show.streams.answer(200, LIVE);
    for series in [
        "renewd_token_lapses_total{role=\"publisher\",cause=\"refused\"}",
        "renewd_token_lapses_total{role=\"subscriber\",cause=\"silent\"}",
    ] {
        show.enforcing
            .eventually(series, |renewd| renewd.whole(series) > 0);
    }
    show.faults(3);

    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        let not_zero = |numbers: &[f64]| numbers.iter().any(|number| *number != 0.0);
        let queries = expressions(panel);
        for query in &queries {
            finds(&prometheus, query, |_| true);
        }
        // `or` takes the other side where one finds nothing: what no query of the panel shows is missing.
        if !MAY_BE_ZERO.contains(&title) {
            let nonzero: Vec<String> = queries
                .iter()
                .map(|query| format!("(({query}) != 0)"))
                .collect();
            finds(&prometheus, &nonzero.join(" or "), not_zero);
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        finds(&prometheus, text(annotation, "expr"), |numbers| {
            numbers.iter().any(|number| *number > 0.0)
        });
    }
    for variable in ["job", "instance"] {
        let values = prometheus.ask(&format!("label/{variable}/values")).unwrap();
        assert!(!values.as_array().unwrap().is_empty(), "{variable}");
    }
}
