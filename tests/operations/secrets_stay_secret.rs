//! No certificate, key, login or minted token shows up anywhere but in the answer that hands a token to its caller.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::support::ask::{Ask, change_streams, event_of, reload};
use crate::support::raw::{Client, Response};
use crate::support::renewd::{
    ADMIN_TOKEN, APP_CERTIFICATE, JWT_SECRET, Renewd, STREAMS, Settings, configuration, jwt, login,
    now, private_file,
};
use renewd::agora::{self, RtcGrant, Signer, User};
use renewd::config::environment::SystemEnvironment;
use renewd::config::model::AuditSink;
use renewd::config::{Loaded, load_file};
use renewd::snapshot::{Control, Snapshot, StreamsRead};
use renewd::telemetry::audit::Audit;
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::Clock;
use renewd::terms::role::Role;
use rustix::process::Signal;
use serde_json::json;

/// The secrets that must not be seen, and the places where the test looks for them.
struct Search {
    secrets: Vec<String>,
    seen: Vec<(String, String)>,
}

impl Search {
    fn new() -> Self {
        let mut search = Self {
            secrets: Vec::new(),
            seen: Vec::new(),
        };
        for secret in [APP_CERTIFICATE, JWT_SECRET, ADMIN_TOKEN] {
            search.secret(secret);
            // The second form is how `Debug` shows bytes.
            let bytes = format!("{:?}", secret.as_bytes());
            search.secret(bytes.trim_matches(['[', ']']));
        }
        search
    }

    fn secret(&mut self, secret: &str) {
        assert!(secret.len() > 12, "too short to look for: {secret}");
        self.secrets.push(secret.to_owned());
    }

    /// A login: neither it nor its signature alone may be seen.
    fn login(&mut self, token: &str) {
        self.secret(token);
        if let Some((_, signature)) = token.rsplit_once('.') {
            self.secret(signature);
        }
    }

    fn saw(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.seen.push((place.into(), text.into()));
    }

    fn saw_answer(&mut self, place: &str, answer: &Response) {
        let body = String::from_utf8_lossy(&answer.body);
        self.saw(place, format!("{:?} {body}", answer.headers));
    }

    /// A request for a token, and its answer without the token that it hands over.
    fn asks(&mut self, renewd: &Renewd, ask: &Ask) -> u16 {
        let token = ask.authorization.trim_start_matches("Bearer ");
        if token.len() > 12 {
            self.login(token);
        }
        let mut answer = ask.send(renewd);
        let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
        if let Some(mut body) = body
            && let Some(minted) = body["data"]["token"].as_str().map(str::to_owned)
        {
            self.secret(&minted);
            body["data"]["token"] = json!(null);
            answer.body = body.to_string().into_bytes();
        }
        self.saw_answer("answer", &answer);
        answer.status
    }

    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (place, text) in &self.seen {
            for secret in &self.secrets {
                if text.contains(secret) || text.contains(&secret.to_uppercase()) {
                    found.push(format!("{secret} in {place}: {text}"));
                }
            }
        }
        found
    }

    fn nothing_was_found(&self) {
        let found = self.found();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

/// Configurations that are wrong where or near where a secret stands.
fn broken(valid: &str) -> Vec<String> {
    let certificate = format!("app_certificate = \"{APP_CERTIFICATE}\"");
    let secret = format!("secret = \"{JWT_SECRET}\"");
    let replaced = |from: &str, to: &str| {
        assert!(valid.contains(from));
        valid.replacen(from, to, 1)
    };
    vec![
        replaced(
            &certificate,
            &format!("app_certificate = \"{APP_CERTIFICATE}0\""),
        ),
        replaced(
            &certificate,
            &format!("app_certificate = [\"{APP_CERTIFICATE}\"]"),
        ),
        replaced(
            &certificate,
            &format!("app_certificat = \"{APP_CERTIFICATE}\""),
        ),
        replaced(
            &certificate,
            &format!("app_certificate = \"{APP_CERTIFICATE}"),
        ),
        replaced(
            &certificate,
            &format!("app_certificate = {APP_CERTIFICATE}"),
        ),
        replaced(&certificate, &format!("{certificate}\n{certificate}")),
        replaced(
            &certificate,
            &format!("app_certificate = \"credential:/{APP_CERTIFICATE}\""),
        ),
        replaced(&secret, &format!("secret = \"{JWT_SECRET}\" \"")),
        replaced(&secret, &format!("secrte = \"{JWT_SECRET}\"")),
        replaced(&secret, &format!("secret = {{ value = \"{JWT_SECRET}\" }}")),
        replaced(&secret, &format!("secret = \"\"\"{JWT_SECRET}")),
        replaced(&secret, &format!("secret = \"{JWT_SECRET}\\q\"")),
        replaced(&secret, &format!("keys = [\"{JWT_SECRET}\"]")),
        replaced(
            "token_file = \"admin-token\"",
            &format!("token = \"{ADMIN_TOKEN}\""),
        ),
    ]
}

fn admin(renewd: &Renewd, path: &str) -> Response {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    );
    Client::new(renewd.admin).send(request.as_bytes()).unwrap()
}

/// Grants, and refusals of every kind that quote what they can.
fn good_and_bad_requests(search: &mut Search, renewd: &Renewd) {
    for (subject, body) in [
        ("owner", r#"{"channelName":"live_show","uid":1}"#),
        (
            "cohost",
            r#"{"channelName":"live_show","account":"co.host"}"#,
        ),
        ("viewer", r#"{"channelName":"live_show","uid":0}"#),
    ] {
        let ask = Ask::text(subject, body);
        assert_eq!(search.asks(renewd, &ask), 200);
        assert_eq!(search.asks(renewd, &ask.refresh()), 200);
    }
    let viewer = Ask::viewer("viewer", 7);
    let good = login("viewer");
    let mut cut = good.clone();
    cut.truncate(good.len() - 3);
    for token in [
        cut.clone(),
        format!("{good}.{good}"),
        good.replacen('.', " ", 1),
        jwt(&json!({"sub": "viewer", "exp": now() - 5})),
        jwt(&json!({"sub": ["viewer"], "exp": now() + 5})),
        jwt(&json!({"sub": "viewer"})),
    ] {
        search.asks(renewd, &viewer.clone().bearer(&token));
    }
    search.secret(&good);
    for body in [
        format!("\"{good}\""),
        good.clone(),
        json!({"channelName": good, "uid": 1}).to_string(),
        json!({"channelName": "live_show", "uid": good}).to_string(),
        json!({"channelName": "live_show", "account": format!("{good}/")}).to_string(),
        json!({"channelName": "live_show", "uid": 1, "role": good}).to_string(),
        "x".repeat(20_000),
    ] {
        search.asks(renewd, &Ask::text("viewer", &body));
    }
    for (subject, channel) in [("troll", "live_show"), ("viewer", "nowhere")] {
        let body = json!({"channelName": channel, "uid": 7, "role": "host"});
        search.asks(renewd, &Ask::new(subject, &body));
    }
    // Requests that renewd forwards fail against a backend that refuses connections.
    let elsewhere = Ask {
        path: "/api/live/start".to_owned(),
        ..Ask::viewer("viewer", 7)
    };
    assert_eq!(search.asks(renewd, &elsewhere), 502);
    for smuggled in [
        "Transfer-Encoding: gzip\r\n",
        "Host: again\r\n",
        "Bad Name: x\r\n",
    ] {
        let ask = Ask {
            headers: smuggled.to_owned(),
            ..Ask::viewer("viewer", 7)
        };
        assert_eq!(search.asks(renewd, &ask), 400, "{smuggled}");
    }
}

#[test]
fn a_running_daemon_shows_no_secret_anywhere() {
    let mut search = Search::new();
    let audit = tempfile::tempdir().unwrap();
    let audit_file = audit.path().join("audit.jsonl");
    let settings = |sink: &str| Settings {
        token: "zero_uid = \"allow\"".to_owned(),
        log: format!("level = \"trace\"\naccess = true\naudit = \"{sink}\""),
        tables: "[rate_limit]\naddress = { requests = 1, per = \"1h\", burst = 15 }\n".to_owned(),
        ..Settings::default()
    };
    let renewd = Renewd::start(&settings("stderr"));
    let config = renewd.file("config.toml");

    for sink in [
        "stderr".to_owned(),
        format!("file:{}", audit_file.display()),
    ] {
        private_file(&config, &configuration(&settings(&sink)));
        search.saw_answer("reload", &reload(&renewd));
        good_and_bad_requests(&mut search, &renewd);
    }
    let valid = configuration(&settings("stderr"));
    for text in broken(&valid) {
        private_file(&config, &text);
        let answer = reload(&renewd);
        assert_eq!(answer.status, 422, "{text}");
        search.saw_answer("reload", &answer);
        search.saw_answer("status", &admin(&renewd, "/v1/status"));
    }
    private_file(&config, &valid);
    assert_eq!(reload(&renewd).status, 200);
    change_streams(&renewd, &format!("{STREAMS}\n"));
    renewd.signal(Signal::HUP);
    for path in [
        "/metrics",
        "/v1/status",
        "/v1/traffic",
        "/readyz",
        "/healthz",
        "/",
        "/nowhere",
    ] {
        search.saw_answer(path, &admin(&renewd, path));
        let without = Client::new(renewd.admin)
            .send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}x\r\n\r\n").as_bytes());
        search.saw_answer(path, &without.unwrap());
    }
    // The last line of the log that concerns any of this.
    let last = Ask::viewer("another", 99);
    search.login(last.authorization.trim_start_matches("Bearer "));
    let answer = last.send(&renewd);
    event_of(&renewd, &answer);
    search.secret(answer.json()["data"]["token"].as_str().unwrap());

    let log = renewd.log().lines();
    assert!(log.iter().any(|line| line["target"] == "access"));
    for line in log {
        search.saw("log", line.to_string());
    }
    let audited = std::fs::read_to_string(&audit_file).unwrap();
    assert!(audited.lines().count() > 10, "{audited}");
    search.saw("audit file", audited);
    search.nothing_was_found();
}

#[test]
fn check_and_run_show_no_secret_of_a_broken_configuration() {
    let mut search = Search::new();
    let directory = tempfile::tempdir().unwrap();
    support::renewd::write_files(directory.path(), &Settings::default());
    let config = directory.path().join("config.toml");
    let mut runs = |arguments: &[&str], status: i32| {
        let ran = Command::new(env!("CARGO_BIN_EXE_renewd"))
            .args(arguments)
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(status), "{errors}");
        search.saw(format!("{arguments:?}"), errors);
        search.saw(
            format!("{arguments:?}"),
            String::from_utf8_lossy(&ran.stdout).into_owned(),
        );
    };
    let valid = configuration(&Settings::default());
    for text in broken(&valid) {
        private_file(&config, &text);
        runs(&["check"], 78);
        runs(&["check", "--json"], 78);
        runs(&["run"], 78);
    }
    // The value where a variable's name belongs; away from the unit that may be fine.
    let named = format!("= \"env:{JWT_SECRET}\"");
    let text = valid.replacen(&format!("= \"{JWT_SECRET}\""), &named, 1);
    private_file(&config, &text);
    runs(&["check"], 0);
    runs(&["run"], 78);
    private_file(&config, &valid);
    runs(&["check"], 0);
    open_to_everybody(&config);
    runs(&["check"], 78);
    runs(&["run"], 78);
    search.nothing_was_found();
}

fn open_to_everybody(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn debug_shows_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    support::renewd::write_files(directory.path(), &Settings::default());
    let path = directory.path().join("config.toml");
    let (loaded, _text): (Loaded, _) = load_file(&path, &SystemEnvironment).unwrap();
    let clock = Clock::system();
    let dropped = DropCounter::default();
    let metrics = Metrics::new(&clock, dropped.clone());
    let audit = Audit::open(&AuditSink::Off, clock.clone(), dropped).unwrap();
    let config = loaded.config.clone();
    let streams = StreamsRead::Table(Vec::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let control = Control::on(runtime.handle().clone());
    let audit = Arc::new(audit);
    let snapshot = Snapshot::build(config, streams, audit, None, &metrics, &clock, &control);
    let snapshot = snapshot.unwrap();
    // Now the signing keys are in place.
    let grant = RtcGrant {
        channel: "live_show",
        user: User::Uid(7),
        role: Role::Subscriber,
        lifetime: 3600,
        issued_at: 1_800_000_000,
        salt: 1,
    };
    let format = loaded.config.token.format;
    let token = agora::rtc_token(format, &snapshot.signer, &grant).unwrap();
    let signer: &Signer = &snapshot.signer;

    let mut search = Search::new();
    search.secret(&token);
    for (place, text) in [
        ("Loaded", format!("{loaded:?} {loaded:#?}")),
        (
            "Config",
            format!("{:?} {:#?}", loaded.config, loaded.config),
        ),
        (
            "Secret",
            format!("{:?}", loaded.config.agora.app_certificate),
        ),
        (
            "Verifier",
            format!("{:?} {:#?}", snapshot.verifier, snapshot.verifier),
        ),
        ("Signer", format!("{signer:?} {signer:#?}")),
        ("Snapshot", format!("{snapshot:?} {snapshot:#?}")),
    ] {
        assert!(!text.is_empty());
        search.saw(place, text);
    }
    search.nothing_was_found();
}

#[test]
fn the_search_finds_what_it_is_given() {
    let mut search = Search::new();
    search.saw("here", format!("x{JWT_SECRET}x"));
    search.saw("there", format!("{:?}", APP_CERTIFICATE.as_bytes()));
    assert_eq!(search.found().len(), 2);
}
