//! The admin listener over real sockets: the answers that each kind of caller gets, and those that a stranger gets.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that lacks something fails

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use renewd::admin::{
    self, ConfigInForce, ConfigProblem, ConfigStatus, DaemonView, Lifted, ListQuery,
    ReadinessReport, ReloadResult, Reloaded, RevocationEntry, RevocationPage, RevocationsResult,
    RevokeError, Revoked, SessionPage, SessionStatus, SessionsResult, SourceStatus, Status,
    TrafficReport, UnknownCursor, UpstreamStatus,
};
use renewd::config::model::Listen;
use renewd::config::secret::Secret;
use renewd::decision::explain::ExplainQuestion;
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::Clock;
use renewd::terms::explanation::Explanation;
use renewd::terms::readiness::Phase;
use renewd::terms::role::Role;
use renewd::terms::version::{COMMIT, VERSION};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

const TOKEN: &str = "correct horse battery staple";

/// A daemon that does as the test tells it.
struct Told {
    readiness: Mutex<ReadinessReport>,
    token: Option<&'static str>,
    problems: Vec<ConfigProblem>,
    reloads: AtomicUsize,
    /// A reload has begun.
    reloading: Notify,
    /// Reloads wait for this, where set.
    gate: Option<Arc<Notify>>,
    reloaded: Notify,
    metrics: Arc<Metrics>,
}

impl Told {
    fn new(token: Option<&'static str>) -> Self {
        Self {
            readiness: Mutex::new(ReadinessReport {
                phase: Phase::Ready,
                upstream_reachable: true,
                degraded: Vec::new(),
                mode: "observe",
                enforce_percent: 25,
                draining_publishers: 0,
            }),
            token,
            problems: Vec::new(),
            reloads: AtomicUsize::new(0),
            reloading: Notify::new(),
            gate: None,
            reloaded: Notify::new(),
            metrics: Metrics::new(&Clock::manual(1_800_000_000), DropCounter::default()),
        }
    }
}

impl DaemonView for Told {
    fn readiness(&self) -> ReadinessReport {
        self.readiness.lock().unwrap().clone()
    }

    fn status(&self) -> Status {
        Status {
            version: "0.1.0",
            as_of: "2027-01-15T08:01:01Z".to_owned(),
            conditions: Vec::new(),
            phase: Phase::Ready,
            started_at: "2027-01-15T08:00:00Z".to_owned(),
            uptime_seconds: 61,
            mode: "enforce",
            enforce_percent: 100,
            draining_publishers: 0,
            config: ConfigStatus {
                path: "/etc/renewd/config.toml".to_owned(),
                hash: "abc".to_owned(),
                loaded_at: "2027-01-15T08:00:00Z".to_owned(),
                last_reload_successful: true,
                last_reload_at: "2027-01-15T08:00:00Z".to_owned(),
                problems: Vec::new(),
                warnings: Vec::new(),
                restart_required: Vec::new(),
                fallback: false,
            },
            upstreams: vec![UpstreamStatus {
                server: "http://127.0.0.1:3001".to_owned(),
                up: true,
                reason: None,
                latency_ms: Some(12.5),
            }],
            sources: vec![SourceStatus {
                source: "streams",
                up: true,
                error: None,
                doubt: None,
                latency_ms: None,
                down_since: None,
                rest_until: None,
            }],
            sessions: SessionStatus {
                publishers: 1,
                subscribers: 2,
            },
            revocations: 4,
            connections: 3,
        }
    }

    fn config(&self) -> ConfigInForce {
        ConfigInForce {
            file: "/etc/renewd/config.toml".to_owned(),
            hash: "0".to_owned(),
            fallback: false,
            restart_required: Vec::new(),
            keys: json!([]),
        }
    }

    fn traffic(&self) -> TrafficReport {
        TrafficReport::default()
    }

    fn sessions(
        &self,
        query: ListQuery,
    ) -> Pin<Box<dyn Future<Output = SessionsResult> + Send + '_>> {
        Box::pin(async move {
            match query.cursor {
                Some(_) => Err(UnknownCursor),
                None => Ok(SessionPage::default()),
            }
        })
    }

    fn revocations(&self, _query: &ListQuery) -> RevocationsResult {
        Ok(RevocationPage::default())
    }

    fn revocation(&self, id: &str) -> Option<RevocationEntry> {
        (id == "known").then(RevocationEntry::default)
    }

    fn revoke<'a>(
        &'a self,
        _body: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = Result<Revoked, RevokeError>> + Send + 'a>> {
        Box::pin(async { Ok(Revoked::default()) })
    }

    fn lift<'a>(
        &'a self,
        _id: &'a str,
    ) -> Pin<Box<dyn Future<Output = Option<Lifted>> + Send + 'a>> {
        Box::pin(async { None })
    }

    fn explain(
        &self,
        question: ExplainQuestion,
    ) -> Pin<Box<dyn Future<Output = Explanation> + Send + '_>> {
        let role = question.request.role.map(Role::as_str);
        Box::pin(async move {
            Explanation {
                status: Some(200),
                code: "ok",
                role,
                steps: Vec::new(),
            }
        })
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn token(&self) -> Option<Secret> {
        self.token.map(|token| Secret::new(token.into()))
    }

    fn allowed_hosts(&self) -> Vec<String> {
        vec!["renewd.monitoring.svc".to_owned()]
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadResult> + Send + '_>> {
        Box::pin(async {
            self.reloading.notify_one();
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            self.reloads.fetch_add(1, Ordering::SeqCst);
            self.reloaded.notify_one();
            if self.problems.is_empty() {
                Ok(Reloaded {
                    changed: vec!["token.lifetime"],
                    ..Reloaded::default()
                })
            } else {
                Err(self.problems.clone())
            }
        })
    }
}

struct Running {
    address: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

fn start(listen: &Listen, daemon: Arc<Told>) -> Running {
    let listener = admin::bind(listen).unwrap();
    let address = listener.address();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(listener.serve(daemon, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        stop,
        serving,
    }
}

fn start_tcp(daemon: Arc<Told>) -> (Running, SocketAddr) {
    let running = start(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), daemon);
    let address = running.address.unwrap();
    (running, address)
}

struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn has(&self, header: &str) -> bool {
        self.head
            .to_ascii_lowercase()
            .lines()
            .any(|line| line == header)
    }
}

async fn within_deadline<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), event)
        .await
        .expect("it happens in time")
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answered {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    within_deadline(stream.read_to_end(&mut text))
        .await
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a header section");
    Answered {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn ask(
    address: SocketAddr,
    method_and_target: &str,
    headers: &[&str],
    body: &str,
) -> Answered {
    let stream = TcpStream::connect(address).await.unwrap();
    exchange(stream, &request(method_and_target, headers, body)).await
}

fn request(method_and_target: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method_and_target} HTTP/1.1\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        text.push_str("Host: localhost\r\n");
    }
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    format!("{text}{length}\r\n{body}")
}

const AUTHORIZED: &str = "Authorization: Bearer correct horse battery staple";
const JSON: &str = "Content-Type: application/json";

#[tokio::test]
async fn metrics_and_health_need_no_token() {
    let (_running, address) = start_tcp(Arc::new(Told::new(Some(TOKEN))));
    let metrics = ask(address, "GET /metrics", &[], "").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.has("content-type: text/plain; version=0.0.4; charset=utf-8"));
    let build = format!("\nrenewd_build_info{{version=\"{VERSION}\",commit=\"{COMMIT}\"}} 1\n");
    assert!(metrics.body.contains(&build));
    let health = ask(address, "GET /healthz", &[], "").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    let head = ask(address, "HEAD /metrics", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn readiness_fails_only_while_starting_draining_or_without_an_upstream() {
    let daemon = Arc::new(Told::new(None));
    let (_running, address) = start_tcp(Arc::clone(&daemon));
    let up = vec![];
    let down = vec!["streams"];
    for (phase, upstream_reachable, degraded, plain, tokens, reason) in [
        (Phase::Ready, true, &up, 200, 200, "ok"),
        (Phase::Ready, true, &down, 200, 503, "degraded"),
        (Phase::Ready, false, &up, 503, 503, "no upstream reachable"),
        (Phase::Starting, true, &up, 503, 503, "starting"),
        (Phase::Draining, true, &down, 503, 503, "draining"),
    ] {
        *daemon.readiness.lock().unwrap() = ReadinessReport {
            phase,
            upstream_reachable,
            degraded: degraded.clone(),
            mode: "observe",
            enforce_percent: 25,
            draining_publishers: 7,
        };
        let answer = ask(address, "GET /readyz", &[], "").await;
        assert_eq!(answer.status, plain, "{reason}");
        assert_eq!(
            answer.json(),
            json!({
                "ready": plain == 200,
                "reason": reason,
                "degraded": degraded,
                "mode": "observe",
                "enforce_percent": 25,
                "draining_publishers": 7
            })
        );
        let answer = ask(address, "GET /readyz?tokens", &[], "").await;
        assert_eq!(answer.status, tokens, "{reason}");
    }
}

#[tokio::test]
async fn status_and_reload_need_the_bearer_token() {
    let daemon = Arc::new(Told::new(Some(TOKEN)));
    let (_running, address) = start_tcp(Arc::clone(&daemon));
    for (target, headers) in [
        ("GET /v1/sessions", &[][..]),
        ("GET /v1/status", &[][..]),
        ("GET /v1/status", &["Authorization: Bearer wrong"][..]),
        ("GET /v1/anything", &[][..]),
        ("POST /-/reload", &[JSON][..]),
    ] {
        let answer = ask(address, target, headers, "{}").await;
        assert_eq!(answer.status, 401, "{target}");
        assert!(answer.has("www-authenticate: bearer realm=\"renewd admin\""));
        assert!(!answer.body.contains(TOKEN));
    }
    assert_eq!(daemon.reloads.load(Ordering::SeqCst), 0);

    let status = ask(address, "GET /v1/status", &[AUTHORIZED], "").await;
    assert_eq!(status.status, 200);
    assert_eq!(
        status.json()["sessions"],
        json!({"publishers": 1, "subscribers": 2})
    );
    assert_eq!(status.json()["phase"], "running");
    let unknown = ask(address, "GET /v1/anything", &[AUTHORIZED], "").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn without_a_token_file_they_are_refused_with_a_hint() {
    let (_running, address) = start_tcp(Arc::new(Told::new(None)));
    let answer = ask(address, "GET /v1/status", &["Authorization: Bearer "], "").await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json()["code"], "no_admin_token");
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap()
            .contains("admin.token_file")
    );
}

#[tokio::test]
async fn a_reload_says_what_changed_or_everything_that_is_wrong() {
    let daemon = Arc::new(Told::new(Some(TOKEN)));
    let (_running, address) = start_tcp(Arc::clone(&daemon));
    let answer = ask(address, "POST /-/reload", &[AUTHORIZED, JSON], "{}").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"success": true, "changed": ["token.lifetime"], "restart_required": [], "warnings": []})
    );
    assert_eq!(daemon.reloads.load(Ordering::SeqCst), 1);

    let mut failing = Told::new(Some(TOKEN));
    failing.problems = vec![ConfigProblem {
        message: "unknown key".to_owned(),
        key: Some("token.lifetme".to_owned()),
        line: Some(7),
        ..ConfigProblem::default()
    }];
    let (_running, address) = start_tcp(Arc::new(failing));
    let answer = ask(address, "POST /-/reload", &[AUTHORIZED, JSON], "{}").await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["success"], false);
    assert_eq!(
        answer.json()["errors"],
        json!([{"message": "unknown key", "key": "token.lifetme", "line": 7}])
    );
}

#[tokio::test]
async fn a_reload_without_a_json_object_is_refused() {
    let daemon = Arc::new(Told::new(Some(TOKEN)));
    let (_running, address) = start_tcp(Arc::clone(&daemon));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    for (headers, body, status) in [
        (&[AUTHORIZED][..], "", 415),
        (
            &[
                AUTHORIZED,
                "Content-Type: application/x-www-form-urlencoded",
            ],
            "{}",
            415,
        ),
        (&[AUTHORIZED, "Content-Type: text/plain"], "{}", 415),
        (&[AUTHORIZED, JSON], "", 400),
        (&[AUTHORIZED, JSON], "[]", 400),
        (&[AUTHORIZED, JSON], "{", 400),
        (&[AUTHORIZED, JSON], "{\"force\":true}", 400),
        (&[AUTHORIZED, JSON], large.as_str(), 413),
    ] {
        let answer = ask(address, "POST /-/reload", headers, body).await;
        assert_eq!(answer.status, status, "{headers:?} {body:.20}");
    }
    assert_eq!(daemon.reloads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_a_reload() {
    let gate = Arc::new(Notify::new());
    let mut daemon = Told::new(Some(TOKEN));
    daemon.gate = Some(Arc::clone(&gate));
    let daemon = Arc::new(daemon);
    let (running, address) = start_tcp(Arc::clone(&daemon));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = request("POST /-/reload", &[AUTHORIZED, JSON], "{}");
    stream.write_all(text.as_bytes()).await.unwrap();
    within_deadline(daemon.reloading.notified()).await;
    drop(stream);
    // Another answer shows that the listener has gone on.
    assert_eq!(ask(address, "GET /healthz", &[], "").await.status, 200);
    gate.notify_one();
    within_deadline(daemon.reloaded.notified()).await;
    drop(running);
}

#[tokio::test]
async fn a_page_elsewhere_gets_403_for_everything() {
    let daemon = Arc::new(Told::new(Some(TOKEN)));
    let (_running, address) = start_tcp(Arc::clone(&daemon));
    let strange: [&[&str]; 5] = [
        &["Host: evil.example"],
        &["Host: localhost", "Host: localhost"],
        &["Origin: http://localhost:3000"],
        &["Origin: null"],
        &["Sec-Fetch-Site: cross-site"],
    ];
    for headers in strange {
        for target in [
            "GET /",
            "GET /metrics",
            "GET /healthz",
            "GET /v1/status",
            "GET /nothing",
        ] {
            let headers: Vec<&str> = headers.iter().copied().chain([AUTHORIZED]).collect();
            let answer = ask(address, target, &headers, "").await;
            assert_eq!(answer.status, 403, "{target} {headers:?}");
        }
    }
    let own = format!("Host: 127.0.0.1:{}", address.port());
    let origin = format!("Origin: http://127.0.0.1:{}", address.port());
    let headers = [&own, &origin, "Sec-Fetch-Site: same-origin", AUTHORIZED];
    let answer = ask(address, "GET /v1/status", &headers, "").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_allowed_name_is_scraped_as_an_address_is() {
    let (_running, address) = start_tcp(Arc::new(Told::new(Some(TOKEN))));
    for (host, status) in [
        ("Host: renewd.monitoring.svc:9464", 200),
        ("Host: RENEWD.monitoring.svc", 200),
        ("Host: other.monitoring.svc:9464", 403),
    ] {
        let answer = ask(address, "GET /metrics", &[host], "").await;
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_and_says_which_would_do() {
    let (_running, address) = start_tcp(Arc::new(Told::new(Some(TOKEN))));
    for (target, allow) in [
        ("POST /metrics", "GET, HEAD"),
        ("DELETE /", "GET, HEAD"),
        ("PUT /v1/status", "GET, HEAD"),
        ("DELETE /v1/sessions", "GET, HEAD"),
        ("GET /-/reload", "POST"),
    ] {
        let answer = ask(address, target, &[], "").await;
        assert_eq!(answer.status, 405, "{target}");
        assert!(
            answer.has(&format!("allow: {}", allow.to_ascii_lowercase())),
            "{}",
            answer.head
        );
    }
    assert_eq!(ask(address, "GET /nothing", &[], "").await.status, 404);
}

#[tokio::test]
async fn the_page_holds_no_data_and_runs_only_its_own_script() {
    let (_running, address) = start_tcp(Arc::new(Told::new(Some(TOKEN))));
    let page = ask(address, "GET /", &[], "").await;
    assert_eq!(page.status, 200);
    assert!(page.has("content-type: text/html; charset=utf-8"));
    assert!(page.has("x-content-type-options: nosniff"));
    let policy = page
        .head
        .lines()
        .find_map(|line| line.strip_prefix("content-security-policy: "))
        .unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let (_, rest) = page.body.split_once("<script>").unwrap();
    let (script, _) = rest.split_once("</script>").unwrap();
    let hash = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        <sha2::Sha256 as sha2::Digest>::digest(script),
    );
    assert!(
        policy.contains(&format!("script-src 'sha256-{hash}'")),
        "{policy}"
    );
    // The token is nowhere but in memory.
    for data in [
        "Storage",
        "cookie",
        "indexedDB",
        "config.toml",
        "127.0.0.1:3001",
        "src=\"",
        "http://",
        "https://",
    ] {
        assert!(!page.body.contains(data), "{data}");
    }
}

#[tokio::test]
async fn too_large_a_header_section_is_refused() {
    let (_running, address) = start_tcp(Arc::new(Told::new(None)));
    let large = format!("X-Large: {}", "x".repeat(20_000));
    assert_eq!(
        ask(address, "GET /healthz", &[&large], "").await.status,
        431
    );
    let many: Vec<String> = (0..100).map(|number| format!("X-{number}: x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(ask(address, "GET /healthz", &many, "").await.status, 431);
}

/// Time is paused: it passes only while no task has anything to do.
#[tokio::test(start_paused = true)]
async fn silent_connections_are_cut_and_keep_no_client_out() {
    let (_running, address) = start_tcp(Arc::new(Told::new(None)));
    let start = renewd::terms::clock::timer_now();
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\n")
                .await
                .unwrap();
        }
        silent.push(stream);
    }
    for target in ["GET /healthz", "GET /readyz", "GET /metrics"] {
        assert_eq!(ask(address, target, &[], "").await.status, 200);
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waits for them");
    for mut stream in silent {
        assert!(stream.read(&mut [0; 1]).await.is_ok_and(|read| read == 0));
    }
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn requests_that_take_long_leave_places_for_probes() {
    let gate = Arc::new(Notify::new());
    let mut daemon = Told::new(Some(TOKEN));
    daemon.gate = Some(Arc::clone(&gate));
    let daemon = Arc::new(daemon);
    let (running, address) = start_tcp(Arc::clone(&daemon));
    let reload = request("POST /-/reload", &[AUTHORIZED, JSON], "{}");
    let mut reloading = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(reload.as_bytes()).await.unwrap();
        within_deadline(daemon.reloading.notified()).await;
        reloading.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(ask(address, "GET /healthz", &[], "").await.status, 200);
        assert_eq!(ask(address, "GET /readyz", &[], "").await.status, 200);
    }
    let refused = ask(address, "GET /metrics", &[], "").await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (503, Some("overloaded"))
    );
    drop(reloading.pop());
    for _ in 0..64 {
        gate.notify_one();
        within_deadline(daemon.reloaded.notified()).await;
    }
    within_deadline(async { while ask(address, "GET /metrics", &[], "").await.status != 200 {} })
        .await;
    drop(running);
}

async fn ask_socket(path: &Path, target: &str, headers: &[&str], body: &str) -> Answered {
    let stream = UnixStream::connect(path).await.unwrap();
    exchange(stream, &request(target, headers, body)).await
}

#[tokio::test]
async fn a_unix_socket_lets_its_group_in_without_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let daemon = Arc::new(Told::new(None));
    let listen = Listen::Unix(path.clone());
    let running = start(&listen, Arc::clone(&daemon));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "{mode:o}");

    let status = ask_socket(&path, "GET /v1/status", &["Host: anything"], "").await;
    assert_eq!(status.status, 200);
    assert_eq!(
        ask_socket(&path, "POST /-/reload", &[JSON], "{}")
            .await
            .status,
        200
    );
    let strange = ["Origin: http://evil.example", JSON];
    assert_eq!(
        ask_socket(&path, "POST /-/reload", &strange, "{}")
            .await
            .status,
        403
    );
    assert_eq!(daemon.reloads.load(Ordering::SeqCst), 1);

    // A second daemon doesn't take a live one's socket away; a stopped one's is gone.
    assert!(admin::bind(&listen).is_err());
    running.stop.send(()).unwrap();
    running.serving.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _running = start(&Listen::Unix(path.clone()), Arc::new(Told::new(None)));
    assert_eq!(ask_socket(&path, "GET /healthz", &[], "").await.status, 200);
}

#[tokio::test]
async fn stopping_answers_what_is_under_way_and_accepts_no_more() {
    let gate = Arc::new(Notify::new());
    let mut daemon = Told::new(Some(TOKEN));
    daemon.gate = Some(Arc::clone(&gate));
    let daemon = Arc::new(daemon);
    let (running, address) = start_tcp(Arc::clone(&daemon));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = request("POST /-/reload", &[AUTHORIZED, JSON], "{}");
    stream.write_all(text.as_bytes()).await.unwrap();
    within_deadline(daemon.reloading.notified()).await;
    running.stop.send(()).unwrap();
    gate.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    running.serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
