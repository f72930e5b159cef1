//! A configuration is taken whole or refused with every error in it; none gives a secret away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may panic in its helpers too

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::environment::{CERTIFICATE, FixedEnvironment, OTHER_CERTIFICATE};
use renewd::cli::check::{self, CheckArguments};
use renewd::config::keys::built;
use renewd::config::model::{Config, Listen};
use renewd::config::{self, ConfigErrors, Loaded, diff};

/// The required keys, dotted, so that any other key can be put beside them.
pub(crate) const BASE: [(&str, &str); 4] = [
    ("upstream.servers", "[\"http://127.0.0.1:3001\"]"),
    ("agora.app_id", "\"0123456789abcdef0123456789abcdef\""),
    ("agora.app_certificate", "\"credential:agora_certificate\""),
    ("auth.jwt.secret", "\"env:JWT_SECRET\""),
];

pub(crate) fn load_with(
    text: &str,
    environment: &FixedEnvironment,
) -> Result<Loaded, ConfigErrors> {
    config::load(text, Path::new("/etc/renewd/config.toml"), environment)
}

pub(crate) fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    load_with(text, &FixedEnvironment::default())
}

fn valid(text: &str) -> Config {
    load(text)
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
        .config
}

pub(crate) fn base_without(path: &str) -> String {
    let mut text = String::new();
    for (key, value) in BASE.iter().filter(|(key, _)| *key != path) {
        text += &[key, " = ", value, "\n"].concat();
    }
    text
}

/// The required keys and one more, in its place if it is one of them.
pub(crate) fn base_and(path: &str, value: &str) -> String {
    if let Some(name) = path.strip_prefix("auth.jwt.keys.") {
        let base = base_without("auth.jwt.secret");
        return format!("{base}auth.jwt.keys = [{{ {name} = {value} }}]\n");
    }
    if let Some(name) = path.strip_prefix("routes.block.") {
        let base = base_without("");
        return format!("{base}routes.block = [{{ {name} = {value} }}]\n");
    }
    for list in [
        "token.tier",
        "accounts.deny_when",
        "streams.headers",
        "reissue.rule",
        "reissue.socket",
    ] {
        let name = path
            .strip_prefix(list)
            .and_then(|rest| rest.strip_prefix('.'));
        if let Some(name) = name {
            let base = base_without("");
            return format!("{base}{list} = [{{ {name} = {value} }}]\n");
        }
    }
    format!("{}{path} = {value}\n", base_without(path))
}

/// A finding's key without positions in lists of tables, as the table of keys has it.
fn without_positions(key: &str) -> String {
    [
        "keys",
        "block",
        "tier",
        "rule",
        "socket",
        "deny_when",
        "headers",
    ]
    .into_iter()
    .fold(key.to_owned(), |key, list| {
        key.replace(&format!("{list}[0]"), list)
    })
}

pub(crate) fn fixtures(kind: &str) -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config")
        .join(kind);
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// A fixture is read as `config.toml`, so that the expected text doesn't depend on where the tests are.
/// `RENEWD_UPDATE_EXPECTED=1` writes the findings into the `.stderr` beside the fixture.
pub(crate) fn compare(path: &Path, found: &str) {
    let expected_path = path.with_extension("stderr");
    if std::env::var_os("RENEWD_UPDATE_EXPECTED").is_some() {
        fs::write(&expected_path, format!("{found}\n")).unwrap();
    }
    let expected = fs::read_to_string(&expected_path).unwrap_or_default();
    assert_eq!(expected.trim_end(), found, "{}", path.display());
}

fn shows_a_secret(text: &str) -> bool {
    ["hunter2", CERTIFICATE, OTHER_CERTIFICATE]
        .iter()
        .any(|secret| text.contains(secret))
}

#[test]
fn every_invalid_file_is_refused_with_what_stands_beside_it() {
    let fixtures = fixtures("invalid");
    assert!(fixtures.len() >= 10);
    for (path, text) in fixtures {
        let environment = FixedEnvironment {
            world_readable: Some(
                path.ends_with("literal_secret_for_everybody.toml")
                    || path.ends_with("tls_key_for_everybody.toml"),
            ),
            ..FixedEnvironment::default()
        };
        let origin = Path::new("config.toml");
        let Err(errors) = config::load(&text, origin, &environment) else {
            panic!("{} was taken", path.display());
        };
        let shown = errors.to_string();
        assert!(!shows_a_secret(&shown), "{shown}");
        assert!(!shows_a_secret(&format!("{errors:?}")), "{errors:?}");
        compare(&path, &shown);
    }
}

#[test]
fn every_valid_file_is_taken_with_the_warnings_beside_it() {
    let fixtures = fixtures("valid");
    assert!(fixtures.len() >= 4);
    for (path, text) in fixtures {
        let origin = Path::new("/etc/renewd/config.toml");
        let loaded = config::load(&text, origin, &FixedEnvironment::default())
            .unwrap_or_else(|errors| panic!("{}\n{errors}", path.display()));
        assert!(!shows_a_secret(&format!("{loaded:?}")), "{loaded:?}");
        let shown: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let shown = shown.join("\n\n");
        assert!(!shows_a_secret(&shown), "{shown}");
        compare(&path, &shown);
    }
}

#[test]
fn every_key_that_is_built_is_read() {
    for key in built() {
        let errors = load(&base_and(&key.path, "[[]]")).expect_err(&key.path);
        let name = key.path.rsplit('.').next().unwrap();
        let about_it = errors.errors.iter().any(|error| {
            let said = without_positions(&error.key);
            said.trim_end_matches("[0]") == key.path && error.message != "unknown key"
        });
        assert!(about_it, "{name}: {errors}");
    }
}

#[test]
fn required_keys_are_missed_one_by_one() {
    for (path, _) in BASE {
        let errors = load(&base_without(path)).expect_err(path);
        let said = &errors.errors[0];
        assert_eq!(
            (said.key.as_str(), said.message.as_str()),
            (path, "missing")
        );
        assert_eq!(errors.errors.len(), 1, "{errors}");
    }
}

#[test]
fn a_half_written_or_damaged_file_never_panics_and_never_shows_a_secret() {
    let text = format!(
        "[server]\nworkers = 1\n[upstream]\nservers = [\"http://b:1\"]\n[agora]\n\
         app_id = \"0123456789abcdef0123456789abcdef\"\napp_certificate = \"{CERTIFICATE}\"\n\
         [auth.jwt]\nkeys = [{{ id = \"a\", algorithm = \"HS256\", secret = '''hunter2''' }}]\n"
    );
    assert!(text.is_ascii());
    let unharmed = |damaged: &str| {
        if let Err(errors) = load(damaged) {
            assert!(!shows_a_secret(&errors.to_string()), "{damaged}\n{errors}");
        }
    };
    for at in 0..text.len() {
        let (before, after) = text.split_at(at);
        unharmed(before);
        for character in "\"'[]{}=\n#.\0\u{e9}".chars() {
            unharmed(&format!("{before}{character}{after}"));
            unharmed(&format!("{before}{character}{}", &after[1..]));
        }
    }
}

#[test]
fn a_port_may_come_from_the_environment() {
    let config = valid(&base_and("server.listen", "[\"env:PORT\"]"));
    assert_eq!(
        config.server.listen,
        [Listen::Tcp("[::]:8080".parse().unwrap())]
    );
}

#[test]
fn secrets_are_trimmed_and_their_files_named_for_watching() {
    let loaded = load(&base_and("admin.token_file", "\"admin-token\"")).unwrap();
    assert_eq!(
        loaded.config.agora.app_certificate.expose(),
        CERTIFICATE.as_bytes()
    );
    let token = loaded.config.admin.token.unwrap();
    assert_eq!(token.expose(), b"hunter2-admin");
    let files = [
        "/credentials/agora_certificate",
        "/etc/renewd/admin-token",
        "/etc/renewd/streams.toml",
    ];
    assert_eq!(loaded.files, files.map(PathBuf::from));
}

#[test]
fn certificates_that_only_verify_may_be_left_empty_and_are_watched() {
    let none = valid(&base_and("agora.previous_certificate", "\"\""));
    assert_eq!(none, valid(&base_without("")));
    let file = "\"/credentials/other_certificate\"";
    let both = base_and("agora.previous_certificate", "\"\"");
    let errors = load(&format!("{both}agora.previous_certificate_file = {file}\n"));
    assert!(errors.unwrap_err().to_string().contains("is given too"));
    let loaded = load(&base_and("agora.backend_certificate_file", file)).unwrap();
    let decoy = loaded.config.agora.backend_certificate.unwrap();
    assert_eq!(decoy.expose(), OTHER_CERTIFICATE.as_bytes());
    assert!(
        loaded
            .files
            .contains(&"/credentials/other_certificate".into())
    );
}

#[test]
fn the_hash_follows_the_text_but_not_the_secrets_in_it() {
    let hash = |text: &str| load(text).unwrap().hash;
    let literal = |secret: &str| base_and("auth.jwt.secret", &format!("{secret:?}"));
    let one = hash(&literal("hunter2-hunter2-a"));
    assert_eq!(one, hash(&literal("hunter2-hunter2-b")));
    let more = format!("{}# more\n", literal("hunter2-hunter2-a"));
    assert_ne!(one, hash(&more));
    assert!(one < 1 << 48);
}

#[test]
fn what_waits_for_a_restart_is_named_and_everything_else_is_hot() {
    let running = valid(&base_without(""));
    let cases = [
        ("server.listen", "[\"[::]:1\"]"),
        ("server.workers", "9"),
        ("admin.listen", "\"127.0.0.1:1\""),
        ("state.directory", "\"\""),
    ];
    // A table as a whole.
    let read = valid(&base_and("redis.url", "\"redis://h:1\""));
    let changes = diff::changes(&running, &read);
    assert_eq!(changes.restart_required, ["redis"]);
    assert!(changes.changed.is_empty());
    assert_eq!(diff::effective(&running, read), running);
    for (path, value) in cases {
        let read = valid(&base_and(path, value));
        let changes = diff::changes(&running, &read);
        assert_eq!(changes.restart_required, [path]);
        assert!(changes.changed.is_empty(), "{path} takes no effect");
        assert_eq!(diff::effective(&running, read), running, "{path}");
    }
    let read = valid(&base_and("token.lifetime", "\"30m\""));
    let changes = diff::changes(&running, &read);
    assert_eq!(changes.changed, ["token"]);
    assert!(changes.restart_required.is_empty());
    assert_eq!(diff::effective(&running, read.clone()), read);
    assert!(diff::changes(&running, &running).changed.is_empty());
}

pub(crate) struct Check {
    directory: tempfile::TempDir,
}

impl Check {
    pub(crate) fn of(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(directory.path().join("streams.toml"), "stream = []\n").unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run(&self, strict: bool, json: bool) -> (u8, String, String) {
        let arguments = CheckArguments {
            config: self.path("config.toml"),
            strict,
            json,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = check::run(&arguments, &mut stdout, &mut stderr);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(stdout), text(stderr))
    }
}

pub(crate) fn base_with_streams() -> String {
    format!(
        "{}streams.file = \"streams.toml\"\ncors.allowed_origins = []\n",
        base_without("")
    )
}

#[test]
fn check_warns_while_nothing_is_said_of_browsers_and_run_does_not() {
    let unset = base_with_streams().replace("cors.allowed_origins = []\n", "");
    let (code, _, stderr) = Check::of(&unset).run(false, false);
    assert_eq!(code, 0);
    assert!(
        stderr.contains("warning: `cors.allowed_origins`: unset"),
        "{stderr}"
    );
    assert!(load(&base_without("")).unwrap().warnings.is_empty());
    let (code, _, stderr) = Check::of(&base_with_streams()).run(true, false);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn check_notes_what_only_the_unit_has_and_says_valid() {
    let text = base_with_streams().replace("env:JWT_SECRET", "env:RENEWD_TEST_UNSET");
    let (code, stdout, stderr) = Check::of(&text).run(true, false);
    assert_eq!(code, 0);
    let (shares, verdict) = stdout.split_once('\n').unwrap();
    assert_eq!(verdict, "configuration is valid\n");
    let told = [
        "client connections",
        "requests to the backend",
        "tunnels",
        "everything else",
    ];
    assert!(told.iter().all(|share| shares.contains(share)), "{shares}");
    assert!(
        stderr.contains("note: `auth.jwt.secret`: not checked:"),
        "{stderr}"
    );
    assert!(
        stderr.contains("note: `agora.app_certificate`: not checked:"),
        "{stderr}"
    );
}

#[test]
fn check_says_whose_tokens_are_still_renewed_here() {
    for (decision, key) in [
        ("mode = \"off\"", "decision.mode"),
        ("mode = \"observe\"", "decision.mode"),
        ("enforce_percent = 99", "decision.enforce_percent"),
    ] {
        let text = base_with_streams() + "\n[decision]\n" + decision;
        let (code, _, stderr) = Check::of(&text).run(true, false);
        let note = format!("note: `{key}`: publishers who hold tokens given here");
        assert_eq!((code, stderr.contains(&note)), (0, true), "{stderr}");
        let (code, _, stderr) = Check::of(&(text + "\ndrain_holders = false\n")).run(true, false);
        assert_eq!(
            (code, stderr.contains("publishers")),
            (0, false),
            "{stderr}"
        );
    }
}

#[test]
fn what_check_lets_pass_for_the_unit_run_refuses() {
    let text = base_without("").replace("env:JWT_SECRET", "env:RENEWD_TEST_UNSET");
    let environment = FixedEnvironment {
        credentials_directory: None,
        ..FixedEnvironment::default()
    };
    let errors = load_with(&text, &environment).unwrap_err();
    let keys: Vec<&str> = errors
        .errors
        .iter()
        .map(|error| error.key.as_str())
        .collect();
    assert_eq!(keys, ["agora.app_certificate", "auth.jwt.secret"]);
}

#[test]
fn check_warns_of_a_broken_streams_file_and_strict_refuses_it() {
    let check = Check::of(&base_with_streams());
    fs::write(check.path("streams.toml"), "[[stream]]\nlive = 1\n").unwrap();
    let (code, _, stderr) = check.run(false, false);
    assert_eq!(code, 0);
    assert!(
        stderr.contains("warning: `stream[0].channel`: missing"),
        "{stderr}"
    );
    let (code, stdout, stderr) = check.run(true, false);
    assert_eq!((code, stdout.as_str()), (78, ""));
    assert!(
        stderr.ends_with("refused by --strict: 2 warnings\n"),
        "{stderr}"
    );
}

#[test]
fn check_refuses_a_literal_secret_that_everybody_may_read() {
    let literal = format!("\"{CERTIFICATE}\"");
    let text = base_with_streams().replace("\"credential:agora_certificate\"", &literal);
    let check = Check::of(&text);
    assert_eq!(check.run(false, false).0, 0);
    fs::set_permissions(check.path("config.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, stderr) = check.run(false, false);
    assert_eq!(code, 78);
    assert!(
        stderr.contains("a literal secret in a file that every user can read"),
        "{stderr}"
    );
    assert!(!shows_a_secret(&stderr), "{stderr}");
}

#[test]
fn check_prints_findings_as_json() {
    let (code, stdout, stderr) = Check::of("[server]\nworkers = \"many\"\n").run(false, true);
    assert_eq!((code, stderr.as_str()), (78, ""));
    let findings: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(findings["valid"], false);
    let errors = findings["errors"].as_array().unwrap();
    let error = errors.iter().find(|error| error["key"] == "server.workers");
    let error = error.unwrap();
    assert_eq!((&error["line"], &error["column"]), (&2.into(), &11.into()));
}

#[test]
fn a_file_that_is_missing_or_not_text_is_invalid() {
    let check = Check::of("");
    fs::write(check.path("config.toml"), b"\xff").unwrap();
    let (code, _, stderr) = check.run(false, false);
    assert_eq!(code, 78);
    assert!(stderr.contains("not UTF-8 at byte 0"), "{stderr}");
    fs::remove_file(check.path("config.toml")).unwrap();
    let (code, _, stderr) = check.run(false, false);
    assert_eq!(code, 78);
    assert!(stderr.contains("can't be read"), "{stderr}");
}
