//! A real Prometheus scrapes a real daemon and evaluates the shipped rules: all of them without an error, and the ones
//! that are cheap to provoke fire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that lacks something fails

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::raw::Client;
use crate::support::renewd::{
    DEADLINE, Renewd, Settings, configuration, login, now, private_file, write_files,
};
use crate::support::tls::Authority;
use renewd::sessions::{
    Grounds, Records, SessionIdentity, SessionRecord, SessionUser, StoredSession,
};
use renewd::state::directory::StateDirectory;
use renewd::state::journal::Journal;
use renewd::terms::role::Role;
use serde_json::{Value, json};

/// The shipped rules, evaluated each second; what must hold for minutes must hold for one second.
fn hurried_rules() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring/alerts.yml");
    let shipped = std::fs::read_to_string(file).unwrap();
    let lines = shipped.lines().map(|line| match line.trim_start() {
        time if time.starts_with("for: ") => line.replace(time, "for: 1s"),
        time if time.starts_with("interval: ") => line.replace(time, "interval: 1s"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A running Prometheus; killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` as job `renewd` each second, with the shipped rules.
    pub fn start(target: SocketAddr) -> Self {
        Self::start_for(&[target])
    }

    /// The same for several targets.
    pub fn start_for(targets: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("alerts.yml"), hurried_rules()).unwrap();
        let settings = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n\
             - job_name: renewd\n  static_configs: [{{ targets: [{}] }}]\n",
            targets
                .iter()
                .map(|target| format!("'{target}'"))
                .collect::<Vec<_>>()
                .join(", ")
        );
        std::fs::write(file("prometheus.yml"), settings).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                file("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus (Debian package prometheus) is installed");
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let lines = log.lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        let address = loop {
            let line = receiver.recv_timeout(DEADLINE).expect("its address");
            let listening = line.contains("msg=\"Listening on\"");
            if let (true, Some((_, address))) = (listening, line.split_once("address=")) {
                break address.trim().parse().expect("an address");
            }
        };
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// The answer of Prometheus's API; `None` while Prometheus starts.
    pub fn ask(&self, path: &str) -> Option<Value> {
        // HTTP/1.0: the answer comes in one piece.
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\n\r\n");
        let answer = Client::new(self.address).send(request.as_bytes()).ok()?;
        (answer.status == 200).then(|| answer.json()["data"].clone())
    }

    /// Asks until `found` picks something from the answer.
    pub fn wait<T>(&self, path: &str, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        let pause = Duration::from_millis(100);
        let mut last = None;
        for _ in 0..DEADLINE.as_millis() / pause.as_millis() {
            last = self.ask(path);
            if let Some(found) = last.as_ref().and_then(&found) {
                return found;
            }
            thread::park_timeout(pause);
        }
        panic!("never: {what}\n{last:#?}");
    }

    /// Waits until the daemon was scraped at least `times` times from now.
    pub fn scraped(&self, times: u64) {
        let count = |data: &Value| {
            let value = &data["result"][0]["value"][1];
            value.as_str().and_then(|count| count.parse::<u64>().ok())
        };
        let path = "query?query=count_over_time(up%7Bjob%3D%22renewd%22%7D%5B1h%5D)";
        let before = self.ask(path).as_ref().and_then(count).unwrap_or(0);
        self.wait(path, "a scrape", |data| {
            count(data).filter(|now| *now >= before + times)
        });
    }

    /// Waits until an alert fires, and gives its summary.
    fn fires(&self, alert: &str) -> String {
        self.wait("alerts", alert, |data| {
            let firing = data["alerts"]
                .as_array()?
                .iter()
                .find(|each| each["labels"]["alertname"] == alert && each["state"] == "firing")?;
            firing["annotations"]["summary"].as_str().map(str::to_owned)
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every rule of a `rules` answer; `None` until each has been evaluated.
fn evaluated(data: &Value) -> Option<Vec<Value>> {
    let groups = data["groups"].as_array()?.iter();
    let rules: Vec<Value> = groups
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
        .collect();
    let done = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
    done.then_some(rules)
}

#[test]
fn prometheus_scrapes_the_daemon_and_evaluates_every_rule() {
    let renewd = Renewd::start(&Settings::default());
    let prometheus = Prometheus::start(renewd.admin);
    prometheus.scraped(2);
    let target = prometheus.ask("targets").unwrap()["activeTargets"][0].clone();
    assert_eq!(target["health"], "up", "{target}");
    let rules = prometheus.wait("rules", "every rule evaluated", evaluated);
    assert!(rules.len() > 20, "{}", rules.len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
}

/// Alerts that only Prometheus can know.
const NOT_THE_DAEMONS: [&str; 2] = ["RenewdTargetDown", "RenewdTargetMissing"];

fn names(alerts: &[Value], name: impl Fn(&Value) -> Option<&Value>) -> BTreeSet<String> {
    let named = alerts.iter().filter_map(|each| name(each)?.as_str());
    let of_the_daemon = named.filter(|name| !NOT_THE_DAEMONS.contains(name));
    of_the_daemon.map(str::to_owned).collect()
}

/// Waits until exactly the expected alerts fire, and the status page names exactly the same.
pub fn agree(prometheus: &Prometheus, renewd: &Renewd, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let pause = Duration::from_millis(250);
    let (mut firing, mut shown) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..DEADLINE.as_millis() / pause.as_millis() {
        let data = prometheus.ask("alerts").unwrap_or_default();
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        firing = names(&alerts, |each| {
            (each["state"] == "firing").then_some(&each["labels"]["alertname"])
        });
        let status = renewd.status();
        let conditions = status["conditions"].as_array().expect("conditions");
        shown = names(conditions, |each| Some(&each["alert"]));
        if firing == expected && shown == expected {
            return;
        }
        thread::park_timeout(pause);
    }
    panic!("expected {expected:#?}\nfiring {firing:#?}\nshown {shown:#?}");
}

#[test]
fn alerts_fire_when_their_cause_is_there_and_the_status_page_says_the_same() {
    let mut renewd = Renewd::start(&Settings {
        token: "zero_uid = \"allow\"".to_owned(),
        // Every line is lost, as on a full disk.
        log: "audit = \"file:/dev/full\"".to_owned(),
        ..Settings::default()
    });
    let prometheus = Prometheus::start(renewd.admin);
    // `increase` needs to have seen the counters before they grow.
    prometheus.scraped(2);
    agree(&prometheus, &renewd, &[]);

    let wildcard = r#"{"channelName":"live_show","uid":0}"#;
    let answer = renewd.post("/api/live/token", &login("viewer"), wildcard);
    assert_eq!(answer.status, 200);
    let summary = prometheus.fires("RenewdWildcardTokensIssued");
    assert!(summary.contains("subscriber tokens for uid 0"), "{summary}");

    let proxied = b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
    // The usual test configuration has a backend that refuses every connection.
    assert_eq!(renewd.client().send(proxied).unwrap().status, 502);
    prometheus.fires("RenewdForwardedHeadersDropped");
    prometheus.fires("RenewdUpstreamDown");

    for count in 0..25 {
        let publisher = r#"{"channelName":"live_show","uid":5,"role":"publisher"}"#;
        let stranger = login(&format!("stranger-{count}"));
        let answer = renewd.post("/api/live/token", &stranger, publisher);
        assert_eq!(answer.status, 403);
    }
    prometheus.fires("RenewdPublishersDenied");

    private_file(&renewd.file("config.toml"), "[server\n");
    let summary = prometheus.fires("RenewdReloadFailed");
    assert!(summary.contains(&renewd.admin.to_string()), "{summary}");

    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    let summary = prometheus.fires("RenewdSourceDown");
    assert!(summary.contains("streams"), "{summary}");
    let since = renewd.whole("renewd_source_down_since_timestamp_seconds{source=\"streams\"}");
    let until = renewd.whole("renewd_source_rest_until_timestamp_seconds{source=\"streams\"}");
    assert!(now() - since < 60, "{since}");
    assert_eq!(until - since, 3600);
    for count in 0..40 {
        let viewer = r#"{"channelName":"live_show","uid":6}"#;
        let newcomer = login(&format!("newcomer-{count}"));
        let answer = renewd.post("/api/live/token", &newcomer, viewer);
        assert_eq!(answer.status, 503);
    }
    agree(
        &prometheus,
        &renewd,
        &[
            "RenewdForwardedHeadersDropped",
            "RenewdLogLinesDropped",
            "RenewdPublishersDenied",
            "RenewdReloadFailed",
            "RenewdSourceDown",
            "RenewdTokenRequestsFailing",
            "RenewdUpstreamDown",
            "RenewdWildcardTokensIssued",
        ],
    );

    renewd.signal(rustix::process::Signal::TERM);
    assert!(renewd.wait().success());
    prometheus.fires("RenewdTargetDown");
}

#[test]
fn refused_logins_and_what_runs_out_are_alerted_and_shown_alike() {
    let authority = Authority::new();
    let pair = authority.issue("soon", 2);
    let settings = |workers: &str| Settings {
        server: format!("listen = [\"plain:127.0.0.1:0\"]\nmax_connections = 20\n{workers}"),
        tables: format!(
            "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
            pair.certificate.display(),
            pair.key.display()
        ),
        ..Settings::default()
    };
    let renewd = Renewd::start(&settings(""));
    let prometheus = Prometheus::start(renewd.admin);
    prometheus.scraped(2);
    agree(&prometheus, &renewd, &["RenewdCertificateExpiring"]);

    let text = configuration(&settings("")).replace("workers = 2", "workers = 3");
    private_file(&renewd.file("config.toml"), &text);
    prometheus.fires("RenewdRestartRequired");
    let busy: Vec<TcpStream> = (0..17)
        .map(|_| TcpStream::connect(renewd.public).unwrap())
        .collect();
    prometheus.fires("RenewdConnectionsNearLimit");
    for _ in 0..60 {
        let body = r#"{"channelName":"live_show","uid":7}"#;
        let answer = renewd.post("/api/live/token", "no.such.token", body);
        assert_eq!(answer.status, 401);
    }
    agree(
        &prometheus,
        &renewd,
        &[
            "RenewdCertificateExpiring",
            "RenewdConnectionsNearLimit",
            "RenewdLoginsRefused",
            "RenewdMostRequestsUnauthenticated",
            "RenewdRestartRequired",
        ],
    );
    drop(busy);
}

#[test]
fn a_start_on_what_was_left_over_is_alerted_and_shown_alike() {
    let observing = Settings {
        tables: "[decision]\nmode = \"observe\"\n".to_owned(),
        ..Settings::default()
    };
    let mut first = Renewd::start(&observing);
    first.signal(rustix::process::Signal::TERM);
    assert!(first.wait().success());
    let directory = std::mem::replace(&mut first.directory, tempfile::tempdir().unwrap());
    private_file(&directory.path().join("config.toml"), "[server\n");
    let state = directory.path().join("state");
    let journal = state.join("sessions.journal");
    let written = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, [&written[..], &[0x5a; 100]].concat()).unwrap();
    let renewd = Renewd::start_in(directory, &["--fallback"], |command| {
        command.env("STATE_DIRECTORY", &state);
    });
    let prometheus = Prometheus::start(renewd.admin);
    // A directory stands where the new journal is to be written: permissions would not keep root out.
    std::fs::create_dir_all(state.join(".sessions.journal.new")).unwrap();
    let _ = std::fs::remove_file(&journal);
    agree(
        &prometheus,
        &renewd,
        &[
            "RenewdFallbackConfiguration",
            "RenewdNotEnforcing",
            "RenewdReloadFailed",
            "RenewdStateDamaged",
            "RenewdStateNotWritable",
        ],
    );
}

/// Leaves sessions in the directory, as an earlier process would.
pub fn leave(state: &Path, sessions: impl IntoIterator<Item = StoredSession>) {
    let directory = Arc::new(StateDirectory::open(state).unwrap());
    let mut journal = Journal::new(directory, "sessions.journal");
    let records = Records::new(0);
    let mut batch = journal.begin(true).unwrap();
    for kept in sessions {
        for piece in records.encode(&SessionRecord::Session(kept)) {
            batch.write(&piece).unwrap();
        }
    }
    batch.finish().unwrap();
}

/// A session whose token ended at `expired`.
pub fn expired_session(expired: u32, role: Role, uid: u32, refused: bool) -> StoredSession {
    StoredSession {
        identity: SessionIdentity {
            channel: "live_show".to_owned(),
            subject: format!("{}-{uid}", role.as_str()),
            user: SessionUser::Uid(uid),
        },
        role,
        first_issued: expired - 60,
        expires: Role::ALL.map(|each| if each == role { expired } else { 0 }),
        refreshes: 0,
        refused,
        ended: false,
        lacks: Grounds::NONE,
        login: None,
        settled: expired - 60,
        account_refused: false,
    }
}

#[test]
fn publishers_and_viewers_who_lose_their_stream_are_alerted_and_shown_alike() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &Settings::default());
    let streams = directory.path().join("streams.toml");
    let kept_streams = std::fs::read(&streams).unwrap();
    std::fs::remove_file(&streams).unwrap();
    // The sessions ran out 70 s ago: at 90 s they are lost, unless their holders renew them.
    let expired = u32::try_from(now() - 70).unwrap();
    let session = |role, uid, refused| expired_session(expired, role, uid, refused);
    let publishers = (1..=3).map(|uid| session(Role::Publisher, uid, false));
    let refused = (4..=24).map(|uid| session(Role::Subscriber, uid, true));
    // Viewers leave: no alert is about viewers that never asked again.
    let silent = (25..=50).map(|uid| session(Role::Subscriber, uid, false));
    leave(
        &directory.path().join("state"),
        publishers.chain(refused).chain(silent),
    );
    let renewd = Renewd::start_in(directory, &[], |_| {});
    let prometheus = Prometheus::start(renewd.admin);
    // `increase` needs to have seen the counters before they grow. Until the source says that the stream goes on, which
    // the daemon asks it for a minute, nothing is counted.
    prometheus.scraped(2);
    private_file(
        &renewd.file("streams.toml"),
        std::str::from_utf8(&kept_streams).unwrap(),
    );
    for (labels, count) in [
        ("role=\"publisher\",cause=\"silent\"", 3),
        ("role=\"subscriber\",cause=\"refused\"", 21),
        ("role=\"subscriber\",cause=\"silent\"", 26),
    ] {
        let series = format!("renewd_token_lapses_total{{{labels}}}");
        renewd.eventually(&series, |renewd| renewd.whole(&series) == count);
    }
    agree(
        &prometheus,
        &renewd,
        &["RenewdPublishersLapse", "RenewdViewersLapseRefused"],
    );
    let status = renewd.status();
    let conditions = status["conditions"].as_array().unwrap();
    let severities: Vec<&Value> = conditions.iter().map(|each| &each["severity"]).collect();
    assert_eq!(severities, ["critical", "warning"]);
    // A scrape may have come between the first lapse, which is a warning, and the third, which is critical.
    prometheus.wait("alerts", "three publishers are critical", |data| {
        data["alerts"].as_array()?.iter().find(|alert| {
            alert["state"] == "firing"
                && alert["labels"]["alertname"] == "RenewdPublishersLapse"
                && alert["labels"]["severity"] == "critical"
        })?;
        Some(())
    });
}

/// A running Alertmanager with the shipped inhibition rules; killed when dropped.
struct Alertmanager {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Alertmanager {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shipped =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring/alertmanager.example.yml");
        let mut child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", shipped.display()))
            .arg(format!("--storage.path={}", directory.path().display()))
            .args([
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus-alertmanager (Debian package of that name) is installed");
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let lines = log.lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        let address = loop {
            let line = receiver.recv_timeout(DEADLINE).expect("its address");
            if let (true, Some((_, address))) =
                (line.contains("Listening on"), line.split_once("address="))
            {
                break address.trim().parse().expect("an address");
            }
        };
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    fn fire(&self, alerts: &[(&str, &str, &str)]) {
        let alerts: Vec<Value> = alerts
            .iter()
            .map(|(alert, severity, instance)| {
                json!({"labels": {
                    "alertname": alert,
                    "severity": severity,
                    "job": "renewd",
                    "instance": instance,
                }})
            })
            .collect();
        let body = Value::from(alerts).to_string();
        let request = format!(
            "POST /api/v2/alerts HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = Client::new(self.address).send(request.as_bytes()).unwrap();
        assert_eq!(answer.status, 200);
    }

    /// Waits until Alertmanager has taken this many alerts and notifies of exactly these. The inhibitor takes new
    /// alerts later than the API does (Alertmanager 0.25, `inhibit.Inhibitor.run`), so that all are notified of at
    /// first.
    fn tells(&self, count: usize, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        let pause = Duration::from_millis(100);
        let mut told = BTreeSet::new();
        for _ in 0..DEADLINE.as_millis() / pause.as_millis() {
            let answer = Client::new(self.address)
                .send(b"GET /api/v2/alerts HTTP/1.0\r\n\r\n")
                .unwrap();
            let alerts = answer.json().as_array().cloned().unwrap_or_default();
            told = names(&alerts, |alert| {
                (alert["status"]["state"] == "active").then_some(&alert["labels"]["alertname"])
            });
            let processed = |alert: &&Value| alert["status"]["state"] != "unprocessed";
            if alerts.iter().filter(processed).count() == count && told == expected {
                return;
            }
            thread::park_timeout(pause);
        }
        panic!("expected {expected:#?}\ntold {told:#?}");
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_source_that_is_down_wakes_the_operator_once() {
    let alertmanager = Alertmanager::start();
    let alerts = [
        ("RenewdSourceDown", "critical", "a"),
        ("RenewdTokenRequestsFailing", "critical", "a"),
        ("RenewdTokenRequestsFailing", "warning", "a"),
        ("RenewdPublishersDenied", "critical", "a"),
        ("RenewdPublishersLapse", "critical", "a"),
        ("RenewdViewersLapseRefused", "warning", "a"),
        // The viewers whom replicas lose are nobody's alone.
        ("RenewdPublishersLapse", "critical", ""),
        ("RenewdViewersLapseRefused", "warning", ""),
        // This alert has another cause, so that Alertmanager notifies of it as well.
        ("RenewdCertificateExpiring", "warning", "a"),
    ];
    alertmanager.fire(&alerts);
    alertmanager.tells(
        alerts.len(),
        &["RenewdCertificateExpiring", "RenewdSourceDown"],
    );
}
