//! A real Prometheus scrapes a real daemon and evaluates the shipped rules: all of them without an error, and the ones
//! that are cheap to provoke fire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that lacks something fails

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::raw::Client;
use support::renewd::{DEADLINE, Renewd, Settings, login, private_file};

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
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` as job `renewd` each second, with the shipped rules.
    fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("alerts.yml"), hurried_rules()).unwrap();
        let settings = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n\
             - job_name: renewd\n  static_configs: [{{ targets: ['{target}'] }}]\n"
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

    /// What its API answers; `None` while it starts.
    fn ask(&self, path: &str) -> Option<Value> {
        // HTTP/1.0: the answer comes in one piece.
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\n\r\n");
        let answer = Client::new(self.address).send(request.as_bytes()).ok()?;
        (answer.status == 200).then(|| answer.json()["data"].clone())
    }

    /// Asks until `found` picks something from the answer.
    fn wait<T>(&self, path: &str, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
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
    fn scraped(&self, times: u64) {
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

#[test]
fn alerts_fire_when_their_cause_is_there() {
    let mut renewd = Renewd::start(&Settings {
        token: "zero_uid = \"allow\"".to_owned(),
        ..Settings::default()
    });
    let prometheus = Prometheus::start(renewd.admin);
    // `increase` needs to have seen the counters before they grow.
    prometheus.scraped(2);

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

    private_file(&renewd.file("config.toml"), "[server\n");
    let summary = prometheus.fires("RenewdReloadFailed");
    assert!(summary.contains(&renewd.admin.to_string()), "{summary}");

    std::fs::remove_file(renewd.file("streams.toml")).unwrap();
    let summary = prometheus.fires("RenewdSourceDown");
    assert!(summary.contains("streams"), "{summary}");

    renewd.signal(rustix::process::Signal::TERM);
    assert!(renewd.wait().success());
    prometheus.fires("RenewdTargetDown");
}
