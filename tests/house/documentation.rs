//! README.md and the pages below docs/ are held to the code: every name in them exists, every configuration loads, and
//! every answer is given.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that lacks something fails

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support;
use crate::support::environment::{self, FixedEnvironment};
use crate::support::pages::{
    CLIENTS, INSTALL, OPERATIONS, PAGES, README, RUNBOOK, blocks, blocks_of, prose, section,
};
use crate::support::renewd::{
    ADMIN_TOKEN, APP_CERTIFICATE, JWT_SECRET, Renewd, Settings, login, private_file, write_files,
};
use crate::support::source::rust_files;
use renewd::config;
use renewd::config::keys::built;
use renewd::config::model::DecisionMode;
use renewd::telemetry::labels::Endpoint;
use renewd::telemetry::metrics::families;
use renewd::terms::outcome::{Outcome, UnauthenticatedReason};
use serde_json::Value;

const ALERTS: &str = include_str!("../../monitoring/alerts.yml");
const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Paths that renewd doesn't answer: the backend's, and directories that the unit's sandbox hides.
const NOT_OURS: [&str; 8] = [
    // A token with more behind it.
    "/007…/path",
    "/start",
    "/active",
    "/:id",
    "/join",
    "//",
    "/home",
    "/tmp",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The texts in backticks outside the blocks.
fn names() -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for line in PAGES.iter().flat_map(|(_, page)| prose(page)) {
        let parts: Vec<&str> = line.split('`').collect();
        assert!(parts.len() % 2 == 1, "a name is broken over lines: {line}");
        names.extend(parts.into_iter().skip(1).step_by(2));
    }
    names
}

fn is_word(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    !text.is_empty() && text.bytes().all(word)
}

fn renewd(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_renewd"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_two_commands_exist() {
    let shown = blocks_of(README, "sh");
    assert!(shown.contains(&"cargo run --release -- demo"));
    assert!(shown.contains(&"tests/run"));
    renewd(&["demo", "--help"]);
    let mode = std::fs::metadata(root().join("tests/run"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o111, "tests/run is executable");
}

#[test]
fn every_file_it_names_is_there() {
    let text = blocks("sh").join("\n") + &names().into_iter().collect::<Vec<_>>().join("\n");
    let ours = |word: &&str| {
        [
            "systemd/",
            "monitoring/",
            "tests/",
            "docs/",
            "config.example",
        ]
        .iter()
        .any(|start| word.starts_with(start))
    };
    let files: Vec<&str> = text.split_whitespace().filter(ours).collect();
    assert!(files.len() > 4, "{files:?}");
    for file in files {
        let file = file.trim_end_matches('*');
        assert!(root().join(file).exists(), "{file}");
    }
}

#[test]
fn every_key_it_names_is_read() {
    let tables: BTreeSet<&str> = built()
        .iter()
        .filter_map(|key| key.path.split('.').next())
        .collect();
    let mut found = 0;
    for name in names() {
        let key = name.split(" = ").next().unwrap();
        let Some((table, _)) = key.split_once('.') else {
            continue;
        };
        if !tables.contains(table) || !key.split('.').all(is_word) {
            continue;
        }
        found += 1;
        let inside = format!("{key}.");
        let known = built()
            .iter()
            .any(|built| built.path == key || built.path.starts_with(&inside));
        assert!(known, "{name}");
    }
    assert!(found > 25, "{found}");
}

#[test]
fn every_word_with_an_underscore_is_a_key_a_code_or_a_metric() {
    let keys = built().iter().flat_map(|key| key.path.split('.'));
    let codes = Outcome::ALL.iter().map(|outcome| outcome.as_str());
    // The answers of the admin listener and the forwarder, as `src/` writes them.
    let others = [
        "method_not_allowed",
        "not_found",
        "upstream_unreachable",
        "upstream_invalid",
        "upstream_timeout",
        "no_admin_token",
        "first_issued",
        "not_possible",
    ];
    let foreign = [
        "agora_rtc_engine",
        "node_modules",
        "rule_files",
        "runbook_url",
        "scrape_configs",
    ];
    let reasons = UnauthenticatedReason::ALL.map(UnauthenticatedReason::as_str);
    let mut known: BTreeSet<&str> = keys.chain(codes).chain(others).chain(foreign).collect();
    known.extend(reasons);
    known.extend(families::ALL.iter().map(|family| family.name));
    for name in names() {
        let word = name.split([' ', '{']).next().unwrap();
        if is_word(word) && word.contains('_') {
            assert!(known.contains(word), "{name}");
        }
    }
}

#[test]
fn every_reason_of_a_refused_login_is_explained_and_no_other() {
    let (_, table) = INSTALL.split_once("| `reason` | the login |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let explained: BTreeSet<&str> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let reasons = UnauthenticatedReason::ALL.map(UnauthenticatedReason::as_str);
    assert_eq!(explained, BTreeSet::from(reasons));
}

#[test]
fn every_metric_it_names_exists() {
    let mut found = 0;
    let words = |page: &'static str| page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    for name in PAGES.iter().flat_map(|(_, page)| words(page)) {
        // The nftables table has renewd's name.
        if name.starts_with("renewd_") && name != "renewd_backend" {
            found += 1;
            assert!(
                families::ALL.iter().any(|family| family.name == name),
                "{name}"
            );
        }
    }
    assert!(found > 5, "{found}");
}

#[test]
fn the_runbook_has_a_section_for_every_alert_and_no_page_names_another() {
    let alerts = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: BTreeSet<&str> = alerts.collect();
    let headings = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(headings.collect::<BTreeSet<_>>(), alerts);
    let words = PAGES
        .iter()
        .flat_map(|(_, page)| page.split(|c: char| !c.is_ascii_alphanumeric()));
    for word in words.filter(|word| word.len() > 6 && word.starts_with("Renewd")) {
        assert!(alerts.contains(word), "{word}");
    }
    for alert in alerts {
        let section = section(RUNBOOK, &format!("## {alert}"));
        for part in ["Means", "Look", "Type"] {
            assert!(section.contains(&format!("**{part}.**")), "{alert}: {part}");
        }
    }
}

#[test]
fn every_alert_leads_to_its_section_of_the_runbook() {
    let (mut alert, mut alerts, mut links) = ("", 0, 0);
    for line in ALERTS.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alert = name;
            alerts += 1;
        } else if let Some(url) = line.strip_prefix("runbook_url: ") {
            let anchor = alert.to_lowercase();
            let page = "file:///usr/share/doc/renewd/docs/runbook.md";
            assert_eq!(url, format!("{page}#{anchor}"));
            links += 1;
        } else if line.starts_with("annotations: *") {
            // The rule has the annotations of an earlier one of the same alert.
            links += 1;
        }
    }
    assert_eq!(links, alerts);
}

#[test]
fn every_flag_and_command_it_names_is_taken() {
    let mut help = renewd(&["--help"]);
    for command in [
        &["run"][..],
        &["check"],
        &["revoke"],
        &["explain"],
        &["config", "show"],
        &["health"],
        &["token", "mint"],
        &["token", "inspect"],
    ] {
        help += &renewd(&[command, &["--help"]].concat());
    }
    for name in names() {
        if let Some(arguments) = name.strip_prefix("renewd ") {
            let first = arguments.split(' ').next().unwrap();
            let command = |line: &str| line.trim_start().starts_with(&format!("{first} "));
            assert!(help.lines().any(command), "{name}");
        }
        let ours = name.starts_with("renewd ") || name.starts_with("--");
        for flag in name
            .split(' ')
            .filter(|word| ours && word.starts_with("--"))
        {
            assert!(help.contains(flag), "{name}");
        }
    }
}

/// The commands of renewd in the blocks for a shell, each as its arguments.
fn shown_commands() -> Vec<Vec<&'static str>> {
    let lines = blocks("sh").into_iter().flat_map(str::lines);
    let commands =
        lines.filter_map(|line| line.trim_start_matches("exec ").strip_prefix("renewd "));
    commands
        .map(|line| {
            line.split(['#', '&'])
                .next()
                .unwrap()
                .split_whitespace()
                .collect()
        })
        .collect()
}

#[test]
fn every_command_it_shows_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    // No configuration of this machine must be used.
    let missing = directory.path().join("missing.toml");
    let commands = shown_commands();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let arguments = command
            .iter()
            .filter(|word| !["--config", "config.toml"].contains(word));
        let output = Command::new(env!("CARGO_BIN_EXE_renewd"))
            .args(arguments)
            .arg("--config")
            .arg(&missing)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{command:?}: {said}");
    }
}

fn in_backticks(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn its_commands_are_those_that_help_lists() {
    let said = in_backticks(section(OPERATIONS, "## Commands"));
    let help = renewd(&["--help"]);
    let (_, listed) = help.split_once("Commands:\n").unwrap();
    let listed = listed.lines().take_while(|line| !line.is_empty());
    let listed = listed.filter_map(|line| line.split_whitespace().next());
    for command in listed.filter(|command| *command != "help") {
        let named = |name: &&str| name.starts_with(&format!("renewd {command}"));
        assert!(said.iter().any(named), "{command}");
    }
}

#[test]
fn it_says_what_every_endpoint_and_class_of_token_requests_is() {
    let said = in_backticks(section(OPERATIONS, "## Metrics"));
    for endpoint in Endpoint::ALL {
        assert!(said.contains(endpoint.as_str()), "{endpoint:?}");
    }
    for outcome in Outcome::ALL {
        assert!(said.contains(outcome.class().as_str()), "{outcome:?}");
    }
}

#[test]
fn the_targets_it_calls_refused_are_refused_and_the_others_pass() {
    let daemon = Renewd::start(&Settings::default());
    for (target, status) in [
        (&b"/a<b"[..], 400),
        (b"/a>b", 400),
        (b"/a?b<c", 400),
        (b"/a`b", 400),
        (b"/a?b\"c", 400),
        // The usual test configuration has a backend that refuses every connection.
        ("/caf\u{e9}".as_bytes(), 502),
        (b"/a?b\xff", 400),
    ] {
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let answer = daemon.client().send(&request).unwrap();
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(target));
    }
}

#[test]
fn the_least_that_gives_tokens_gives_one_and_says_503_without_its_streams() {
    let shown = blocks("toml");
    let least = shown
        .iter()
        .find(|block| block.contains("[agora]"))
        .unwrap();
    let least = least.replace("/etc/renewd/streams.toml", "streams.toml");
    let least = least.replace("astrologerId", "sub");
    let beside = "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
        [state]\ndirectory = \"\"\n[log]\nformat = \"json\"\n";
    for (streams, status) in [(true, 200), (false, 503)] {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path(), &Settings::default());
        private_file(
            &directory.path().join("config.toml"),
            &format!("{least}\n{beside}"),
        );
        if !streams {
            std::fs::remove_file(directory.path().join("streams.toml")).unwrap();
        }
        let daemon = Renewd::start_in(directory, &[], |command| {
            command
                .env("AGORA_APP_CERTIFICATE", APP_CERTIFICATE)
                .env("JWT_SECRET", JWT_SECRET);
        });
        let body = r#"{"channelName":"live_show"}"#;
        let answer = daemon.post("/api/live/token", &login("viewer"), body);
        assert_eq!(answer.status, status);
    }
}

#[test]
fn every_path_it_names_is_answered() {
    let daemon = Renewd::start(&Settings::default());
    let loaded = load(EXAMPLE);
    let owned = [loaded.routes.token, loaded.routes.refresh].concat();
    let mut admin = 0;
    for path in names().into_iter().filter(|name| name.starts_with('/')) {
        let file = ["/etc/", "/var/", "/usr/"]
            .iter()
            .any(|start| path.starts_with(start));
        // `tests/forwarding/spellings.rs` is about the spellings of an owned path.
        let spelling = path.contains("//");
        if file || spelling || NOT_OURS.contains(&path) || owned.iter().any(|owned| owned == path) {
            continue;
        }
        admin += 1;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let answer = support::raw::Client::new(daemon.admin).send(request.as_bytes());
        assert_ne!(answer.unwrap().status, 404, "{path}");
    }
    assert!(admin >= 6, "{admin}");
    for path in owned {
        assert!(names().contains(path.as_str()), "{path} isn't named");
    }
}

/// The status column of the code's row in the table of refusals.
fn status_of(code: &str) -> &'static str {
    let code = format!("`{code}`");
    let rows = CLIENTS.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (status, codes) = (cells.next()?, cells.next()?);
        let is_row = status.starts_with(|c: char| c.is_ascii_digit());
        (is_row && codes.contains(&code)).then_some(status)
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 1, "rows of {code}");
    rows[0]
}

#[test]
fn its_table_of_refusals_has_every_code() {
    for outcome in Outcome::ALL {
        if outcome.as_str() != "ok" {
            status_of(outcome.as_str());
        }
    }
}

#[test]
fn its_table_of_refusals_has_the_statuses_that_are_sent() {
    let daemon = Renewd::start(&Settings::default());
    let viewer = login("viewer");
    let good = r#"{"channelName":"live_show","uid":77}"#;
    let taken = daemon.post("/api/live/token", &viewer, good);
    assert_eq!(taken.status, 200);
    let long = format!(
        r#"{{"channelName":"live_show","uid":7,"x":"{}"}}"#,
        "x".repeat(17_000)
    );
    let publish = r#"{"channelName":"live_show","uid":7,"role":"host"}"#;
    let (other, troll) = (login("other"), login("troll"));
    let expired = support::renewd::jwt(&serde_json::json!({"sub": "viewer", "exp": 1}));
    for (path, login, body) in [
        ("/api/live/token", viewer.as_str(), "{}"),
        ("/api/live/token", "nonsense", good),
        ("/api/live/token", &expired, good),
        ("/api/live/token", &viewer, publish),
        ("/api/live/token", &troll, good),
        (
            "/api/live/token",
            &viewer,
            r#"{"channelName":"live_over","uid":7}"#,
        ),
        ("/api/live/toke%6e", &viewer, good),
        ("/api/live/token", &other, good),
        ("/api/live/token", &viewer, &long),
    ] {
        let answer = daemon.post(path, login, body);
        let body = answer.json();
        let shown = status_of(body["code"].as_str().unwrap());
        assert!(
            shown.contains(&answer.status.to_string()),
            "{} {body}",
            answer.status
        );
    }
}

fn load(text: &str) -> config::model::Config {
    let mut environment = FixedEnvironment::default();
    let certificate = environment::CERTIFICATE.to_owned();
    environment
        .variables
        .insert("AGORA_APP_CERTIFICATE", certificate);
    environment.variables.insert("PORT", "8080".to_owned());
    match config::load(text, Path::new("/etc/renewd/config.toml"), &environment) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

#[test]
fn every_configuration_it_shows_loads() {
    let shown = blocks("toml");
    let whole = shown
        .iter()
        .find(|block| block.contains("[agora]"))
        .unwrap();
    load(whole);
    for block in &shown {
        if block.contains("[[stream]]") {
            let streams = config::streams_file::parse(block, Path::new("streams.toml")).unwrap();
            assert_eq!(streams.len(), 1);
        } else if block.starts_with("[token]") {
            load(&whole.replacen("[token]\n", &format!("{block}\n"), 1));
        } else if block != whole {
            load(&format!("{whole}\n{block}"));
        }
    }
    assert!(shown.len() >= 13, "{}", shown.len());
}

#[test]
fn its_javascript_is_javascript() {
    let shown = blocks("js");
    assert!(shown.len() >= 2);
    for block in shown {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("shown.js");
        std::fs::write(&file, block).unwrap();
        let checked = Command::new("node").arg("--check").arg(&file).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
}

/// Every key with its path: the part that stays the same from one answer to the next.
fn shape(value: &Value) -> String {
    fn describe(value: &Value, path: &str, shape: &mut String) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    describe(value, &format!("{path}.{key}"), shape);
                }
            }
            Value::String(_) => drop(writeln!(shape, "{path}: text")),
            Value::Array(_) => drop(writeln!(shape, "{path}: list")),
            Value::Number(_) => drop(writeln!(shape, "{path}: number")),
            other => drop(writeln!(shape, "{path}: {other}")),
        }
    }
    let mut text = String::new();
    describe(value, "", &mut text);
    text
}

/// A block's line that asks for `path`, run against the daemon; its answer.
fn run(daemon: &Renewd, path: &str, login: &str) -> Value {
    let shown = blocks("sh");
    let line = shown
        .iter()
        .find(|block| block.starts_with("curl ") && block.contains(path))
        .unwrap();
    let token_file = daemon.file("admin-token").display().to_string();
    let line = line
        .replace("localhost:3000", &daemon.public.to_string())
        .replace("127.0.0.1:9464", &daemon.admin.to_string())
        .replace("/etc/renewd/admin-token", &token_file)
        .replace("curl ", "curl -s ");
    let output = Command::new("bash")
        .args(["-c", &line])
        .env("LOGIN", login)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn its_requests_are_answered_as_it_shows() {
    let daemon = Renewd::start(&Settings::default());
    let shown: Vec<Value> = blocks("json")
        .iter()
        .map(|block| serde_json::from_str(block).unwrap())
        .collect();
    let [minted, refused, reloaded] = shown.try_into().unwrap();

    let answer = run(&daemon, "/api/live/token", &login("viewer"));
    assert_eq!(shape(&answer), shape(&minted));
    for key in ["channelName", "uid", "role", "expiresIn"] {
        assert_eq!(answer["data"][key], minted["data"][key], "{key}");
    }

    let publisher = r#"{"channelName":"live_show","uid":78,"role":"publisher"}"#;
    let answer = daemon.post("/api/live/token", &login("viewer"), publisher);
    assert_eq!((answer.status, answer.json()), (403, refused));

    assert_eq!(
        std::fs::read_to_string(daemon.file("admin-token")).unwrap(),
        ADMIN_TOKEN
    );
    let answer = run(&daemon, "/-/reload", "");
    assert_eq!(shape(&answer), shape(&reloaded));
}

/// A page that renews as docs/clients.md says: its first attempt finds no network, and later somebody else has its uid.
const PAGE: &str = r"
const [origin, viewer, other] = process.argv.slice(2);
let login = viewer;
const post = () => fetch(`${origin}/api/live/refresh-token`, {
  method: 'POST',
  headers: { Authorization: `Bearer ${login}`, 'Content-Type': 'application/json' },
  body: JSON.stringify({ channelName: 'live_show', uid: 77 }),
});
const handlers = {};
let close;
const client = {
  on: (name, handler) => { handlers[name] = handler; },
  off: (name) => delete handlers[name],
  renewToken: async (token) => console.log(token.slice(0, 3)),
};
const refused = (code) => { console.log(code); close(); };
let attempts = 0;
const sometimes = () => (attempts++ === 0 ? Promise.reject(new Error('no network')) : post());
(async () => {
  const { data } = await (await post()).json();
  close = keepFresh(client, data, sometimes, refused);
  await handlers['token-privilege-will-expire']();
  login = other;
  await handlers['token-privilege-will-expire']();
})();
";

#[test]
fn a_page_that_renews_as_it_shows_gets_tokens_and_says_why_there_are_none() {
    let daemon = Renewd::start(&Settings::default());
    let shown = blocks_of(CLIENTS, "js").concat();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.js");
    std::fs::write(&file, shown + PAGE).unwrap();
    let output = Command::new("node")
        .arg(&file)
        .arg(format!("http://{}", daemon.public))
        .args([login("viewer"), login("other")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"007\nuid_taken\n", "{said}");
}

#[test]
fn every_header_with_an_x_is_known_to_the_code() {
    let code = rust_files("src").into_iter().map(|file| file.text);
    let code: String = code.collect::<String>().to_lowercase();
    let mut found = 0;
    for name in names() {
        let name = name.to_lowercase();
        if name.starts_with("x-") && !name.contains('*') {
            found += 1;
            assert!(code.contains(&name), "{name}");
        }
    }
    assert!(found >= 4, "{found}");
}

#[test]
fn every_line_of_the_log_that_the_runbook_looks_for_is_written() {
    let code = rust_files("src").into_iter().map(|file| file.text);
    let code: String = code.collect();
    let mut found = 0;
    for block in blocks_of(RUNBOOK, "sh") {
        let lines = block.lines().filter(|line| line.starts_with("journalctl "));
        for pattern in lines.flat_map(|line| line.split("| grep ").skip(1)) {
            let pattern = pattern.trim_start_matches(|c| c != '\'');
            let pattern = pattern.split('\'').nth(1).unwrap();
            found += 1;
            // Fields of events are written apart: the name, and the value where it stands in the code.
            let parts = pattern.split(['=', '[']).filter(|part| !part.contains(']'));
            for part in parts {
                assert!(code.contains(part), "{pattern}");
            }
        }
    }
    assert!(found > 8, "{found}");
}

#[test]
fn every_query_it_shows_is_one_of_prometheus() {
    let queries = blocks("promql");
    assert!(queries.len() >= 6, "{queries:?}");
    let mut rules = "groups:\n  - name: shown\n    rules:\n".to_owned();
    for query in queries {
        let query = query.replace('\n', " ");
        let _ = writeln!(
            rules,
            "      - record: shown\n        expr: >-\n          {query}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let checked = Command::new("promtool")
        .args(["check", "rules", "--lint=none"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn the_runbooks_way_out_makes_renewd_a_plain_proxy_whatever_the_mode_was() {
    let shown = blocks_of(RUNBOOK, "sh");
    let block = shown
        .iter()
        .find(|block| block.starts_with("sed "))
        .unwrap();
    let line = block.lines().next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let observing = EXAMPLE.replacen("# mode = \"enforce\"", "mode = \"observe\"", 1);
    for text in [EXAMPLE, &observing] {
        std::fs::write(&file, text).unwrap();
        let line = line.replace("/etc/renewd/config.toml", &file.display().to_string());
        let edited = Command::new("bash").args(["-c", &line]).status().unwrap();
        assert!(edited.success());
        let config = load(&std::fs::read_to_string(&file).unwrap());
        assert_eq!(config.decision.mode, DecisionMode::Off);
    }
}
