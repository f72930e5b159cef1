//! A reload names what it changed: every table, every secret.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use renewd::config::diff::{ConfigChanges, changes};
use renewd::config::keys::built;
use renewd::config::model::Config;

use crate::config::{base_and, base_without, fixtures, load, load_with};
use crate::support::environment::FixedEnvironment;

/// Values that some key takes, most of them in the place of another one.
const CANDIDATES: [&str; 35] = [
    "true",
    "false",
    "0",
    "1",
    "7",
    "2048",
    "\"1s\"",
    "\"7s\"",
    "\"90s\"",
    "\"11m\"",
    "\"2h\"",
    "\"4KiB\"",
    "\"off\"",
    "\"debug\"",
    "\"stderr\"",
    "\"logfmt\"",
    "\"enforce\"",
    "\"publisher\"",
    "\"reject\"",
    "\"007\"",
    "\"unavailable\"",
    "\"allow\"",
    "\"deny\"",
    "\"redis://127.0.0.1:7\"",
    "\"replace\"",
    "\"/other\"",
    "\"other\"",
    "\"127.0.0.1:7\"",
    "\"ffffffffffffffffffffffffffffffff\"",
    "\"http://127.0.0.1:3001/other\"",
    "[]",
    "[\"/other\"]",
    "[\"GET\"]",
    "[\"10.0.0.0/8\"]",
    "[\"http://127.0.0.1:7\"]",
];

/// Tables that a change in `[table]` may show in; the last ones are only heard of after a restart.
fn names(changes: &ConfigChanges) -> Vec<&'static str> {
    let hot = changes.changed.iter();
    hot.chain(&changes.restart_required).copied().collect()
}

/// Whether a finding of `diff` speaks of this key.
fn speaks_of(name: &str, path: &str) -> bool {
    path.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The fixtures that between them have every table, and the example.
fn texts() -> Vec<String> {
    let example = include_str!("../../config.example.toml");
    let wanted = ["everything.toml", "http_sources.toml", "mongodb.toml"];
    let fixtures = fixtures("valid").into_iter();
    let chosen = fixtures.filter(|(path, _)| wanted.iter().any(|name| path.ends_with(name)));
    // The keys of this table are read anew for each variation, which takes long; they have a test of their own.
    let texts = chosen.map(|(_, text)| without_table(&text, "server.tls"));
    texts.chain([example.to_owned()]).collect()
}

fn without_table(text: &str, name: &str) -> String {
    let Some((before, rest)) = text.split_once(&format!("[{name}]\n")) else {
        return text.to_owned();
    };
    let after = rest.find("\n[").map_or("", |next| &rest[next..]);
    [before, after].concat()
}

/// For each `key = value` line the path of its key, and the texts with every candidate in its place.
fn variations(text: &str) -> impl Iterator<Item = (String, impl Iterator<Item = String>)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned() + ".";
        }
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        if let Some((key, value)) = bare.split_once(" = ")
            && key.bytes().all(is_key)
        {
            found.push((number, key, kind(value), format!("{section}{key}")));
        }
    }
    found.into_iter().map(move |(number, key, wanted, path)| {
        let with = move |candidate: &str| {
            let changed = format!("{key} = {candidate}");
            let mut lines: Vec<&str> = text.lines().collect();
            lines[number] = &changed;
            lines.join("\n")
        };
        let fitting = CANDIDATES.into_iter();
        let fitting = fitting.filter(move |candidate| kind(candidate) == wanted);
        (path, fitting.map(with))
    })
}

/// Which values are of one kind, by their first character.
fn kind(value: &str) -> char {
    match value.chars().next() {
        Some('0'..='9') => '0',
        Some('t' | 'f') => 't',
        first => first.unwrap_or_default(),
    }
}

#[test]
fn a_reload_names_every_table_that_changed() {
    let mut named = BTreeSet::new();
    for text in texts() {
        let running = load(&text).unwrap().config;
        for (path, texts) in variations(&text) {
            let read = texts.into_iter().filter_map(|text| load(&text).ok());
            let read = read.map(|loaded| loaded.config);
            let Some(read) = { read }.find(|read| *read != running) else {
                continue;
            };
            let names = names(&changes(&running, &read));
            let right = names.iter().any(|name| speaks_of(name, &path));
            assert!(right, "{path}: {names:?}");
            named.extend(names);
        }
    }
    let tables = built()
        .iter()
        .map(|key| key.path.rsplit_once('.').unwrap().0);
    let unnamed: Vec<&str> = tables
        .filter(|table| {
            !named
                .iter()
                .any(|name| speaks_of(table, name) || speaks_of(name, table))
        })
        .collect();
    assert!(
        unnamed.is_empty(),
        "no change of these was tried: {unnamed:?}"
    );
}

/// A configuration whose secret of this path is read from `/credentials/changing`, or is the literal.
fn with_secret(path: &str, literal: &str) -> String {
    let value = if path.ends_with("_file") {
        "\"/credentials/changing\"".to_owned()
    } else {
        format!("{literal:?}")
    };
    let entries = format!("{} = {value}", path.rsplit_once('.').unwrap().1);
    match path.rsplit_once('.').unwrap().0 {
        "auth.jwt.keys" => format!(
            "{}auth.jwt.keys = [{{ algorithm = \"HS256\", {entries} }}]\n",
            base_without("auth.jwt.secret")
        ),
        "auth.jwt" => format!("{}{path} = {value}\n", base_without("auth.jwt.secret")),
        "streams.headers" => format!(
            "{}streams.source = \"http\"\nstreams.url = \"https://h.example/{{channel}}\"\naccounts.source = \"none\"\n\
             streams.headers = [{{ name = \"x\", {entries} }}]\n",
            base_without("")
        ),
        "agora.rest" => format!(
            "{}agora.rest.customer_id = \"id\"\n{path} = {value}\n",
            base_without("")
        ),
        "agora" if path.starts_with("agora.app_") => {
            format!(
                "{}{path} = {value}\n",
                base_without("agora.app_certificate")
            )
        }
        _ => base_and(path, &value),
    }
}

/// Two values of a secret.
fn pair(path: &str) -> [&'static str; 2] {
    if path.contains("certificate") {
        [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        ]
    } else if path.starts_with("redis.url") {
        [
            "redis://app:hunter2@h:6379",
            "redis://app:hunter2-new@h:6379",
        ]
    } else if path.contains("uri") {
        [
            "mongodb://app:hunter2@h/db",
            "mongodb://app:hunter2-new@h/db",
        ]
    } else {
        [
            "hunter2-hunter2-hunter2-hunter2-a",
            "hunter2-hunter2-hunter2-hunter2-b",
        ]
    }
}

fn with_content(text: &str, content: &str) -> Config {
    let mut environment = FixedEnvironment::default();
    let path = Path::new("/credentials/changing").to_path_buf();
    environment.files.insert(path, content.to_owned());
    let loaded = load_with(text, &environment);
    loaded
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
        .config
}

#[test]
fn a_reload_names_the_table_of_every_secret_that_changed() {
    let secrets = built()
        .iter()
        .filter(|key| key.secret)
        .map(|key| key.path.as_str());
    // The certificate and its key have to fit together; they are tested below.
    for path in secrets.filter(|path| *path != "server.tls.private_key_file") {
        let [one, other] = pair(path);
        let running = with_content(&with_secret(path, one), one);
        let read = with_content(&with_secret(path, other), other);
        let names = names(&changes(&running, &read));
        assert_eq!(names.len(), 1, "{path}: {names:?}");
        assert!(speaks_of(names[0], path), "{path}: {names:?}");
    }
}

#[test]
fn a_reload_names_the_server_for_another_certificate_in_the_same_files() {
    let directory = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let file = |ending: &str| directory.path().join(format!("{name}.{ending}"));
        let status = Command::new("openssl")
            .args(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=h"
                    .split(' '),
            )
            .arg("-keyout")
            .arg(file("key"))
            .arg("-out")
            .arg(file("pem"))
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        let read = |ending| std::fs::read_to_string(file(ending)).unwrap();
        let mut environment = FixedEnvironment::default();
        environment
            .files
            .insert("/etc/renewd/tls.pem".into(), read("pem"));
        environment
            .files
            .insert("/etc/renewd/tls.key".into(), read("key"));
        let text = base_and("server.tls.certificate_file", "\"tls.pem\"")
            + "server.tls.private_key_file = \"tls.key\"\n";
        load_with(&text, &environment).unwrap().config
    };
    let changes = changes(&made("one"), &made("other"));
    assert_eq!(changes.changed, ["server"]);
}
