//! The commands that ask a running daemon, and those that describe the program itself.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::commands::{command, configuration_of, run};
use crate::support::express::{Express, Version};
use crate::support::lifecycle::replace_file;
use crate::support::renewd::{ADMIN_TOKEN, APP_CERTIFICATE, JWT_SECRET, Renewd, Settings};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_health_of_a_daemon_is_an_exit_status() {
    let backend = Express::start(Version::Five, &[]);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address),
        ..Settings::default()
    });
    // A probe has no token: it needs the admin listener's address alone.
    for (arguments, told) in [
        (&["health"][..], "ready\n"),
        (&["health", "--tokens"], "ready\n"),
        (&["health", "--live"], "live\n"),
    ] {
        let expected = (0, told.to_owned(), String::new());
        assert_eq!(command(&renewd, arguments), expected, "{arguments:?}");
    }
    let (status, told, _) = command(&renewd, &["health", "--json"]);
    assert_eq!((status, &parsed(&told)["reason"]), (0, &json!("ok")));

    drop(backend);
    assert_ne!(
        renewd
            .client()
            .send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap()
            .status,
        200
    );
    renewd.eventually("the backend counts as down", |renewd| {
        let (status, told, _) = command(renewd, &["health"]);
        (status, told.as_str()) == (1, "not ready: no upstream reachable\n")
    });
    assert_eq!(command(&renewd, &["health", "--live"]).0, 0);

    let file = configuration_of(&renewd);
    drop(renewd);
    assert!(!file.exists(), "the file went with the daemon");
    assert_eq!(run(&["health", "--config", file.to_str().unwrap()]).0, 78);
}

#[test]
fn no_daemon_is_no_health() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    // Nobody listens on port 1.
    fs::write(&file, "[admin]\nlisten = \"127.0.0.1:1\"\n").unwrap();
    for asked in ["health", "status", "reload"] {
        let (status, told, said) = run(&[asked, "--config", file.to_str().unwrap()]);
        assert_eq!((status, told.as_str()), (1, ""), "{asked}");
        assert!(said.contains("no renewd answers at 127.0.0.1:1"), "{said}");
    }
    let (status, _, said) = run(&["config", "show", "--config", file.to_str().unwrap()]);
    assert_eq!(status, 1);
    assert!(said.contains("--file"), "{said}");
}

#[test]
fn a_reload_reports_what_it_changed_and_what_was_wrong() {
    let renewd = Renewd::start(&Settings::default());
    let file = renewd.file("config.toml");
    let valid = fs::read_to_string(&file).unwrap();
    let (status, told, _) = command(&renewd, &["reload"]);
    assert_eq!((status, told.as_str()), (0, "reloaded; nothing changed\n"));

    replace_file(
        &file,
        &valid.replacen("[token]", "[token]\nlifetime = \"soon\"", 1),
    );
    let (status, told, said) = command(&renewd, &["reload"]);
    assert_eq!((status, told.as_str()), (78, ""));
    for part in [
        "error: `token.lifetime`: ",
        "config.toml:",
        " = help: ",
        "stays in force",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (status, told, _) = command(&renewd, &["reload", "--json"]);
    assert_eq!(
        (status, &parsed(&told)["code"]),
        (78, &json!("invalid_config"))
    );
    let (status, told, _) = command(&renewd, &["status"]);
    assert_eq!(status, 0);
    assert!(told.contains("`renewd check` says why"), "{told}");

    replace_file(&file, &valid);
    assert_eq!(command(&renewd, &["reload"]).0, 0);
}

#[test]
fn the_status_is_a_page_for_people_and_the_daemons_own_for_programs() {
    let renewd = Renewd::start(&Settings::default());
    let (status, told, said) = command(&renewd, &["status"]);
    assert_eq!((status, said.as_str()), (0, ""));
    for part in [
        "is running since ",
        "mode           enforce\n",
        "BACKEND",
        "SOURCE",
        "streams  up\n",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(
        !told.contains('\u{1b}'),
        "colours where no terminal is: {told}"
    );
    let (status, told, _) = command(&renewd, &["status", "--json"]);
    assert_eq!(status, 0);
    let (told, asked) = (parsed(&told), renewd.status());
    assert_eq!(told["config"], asked["config"]);

    let wrong = fs::read_to_string(configuration_of(&renewd)).unwrap();
    fs::write(renewd.file("other-token"), "another-token-of-enough-bytes").unwrap();
    let wrong = wrong.replacen("\"admin-token\"", "\"other-token\"", 1);
    fs::write(renewd.file("wrong.toml"), wrong).unwrap();
    let file = renewd.file("wrong.toml");
    let (status, _, said) = run(&["status", "--config", file.to_str().unwrap()]);
    assert_eq!(status, 1, "{said}");
}

/// The command's output on a terminal, which `script` is.
fn on_a_terminal(renewd: &Renewd, no_color: Option<&str>) -> String {
    let file = configuration_of(renewd);
    let line = format!(
        "{} status --config {}",
        env!("CARGO_BIN_EXE_renewd"),
        file.display()
    );
    let mut command = Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null())
        .env("TERM", "xterm");
    command.env_remove("NO_COLOR");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn colours_are_for_terminals_and_no_color_keeps_them_away() {
    let renewd = Renewd::start(&Settings::default());
    assert!(on_a_terminal(&renewd, None).contains("\u{1b}[32mrunning\u{1b}[0m"));
    assert!(!on_a_terminal(&renewd, Some("1")).contains("\u{1b}[32m"));
}

#[test]
fn the_configuration_in_force_is_shown_without_its_secrets() {
    let renewd = Renewd::start(&Settings {
        token: "lifetime = \"40m\"".to_owned(),
        ..Settings::default()
    });
    let file = renewd.file("config.toml");
    let valid = fs::read_to_string(&file).unwrap();
    let changed = valid
        .replacen("lifetime = \"40m\"", "lifetime = \"50m\"", 1)
        .replacen("workers = 2", "workers = 3", 1);
    replace_file(&file, &changed);
    assert_eq!(command(&renewd, &["reload"]).0, 0);
    let asked = configuration_of(&renewd);
    let asked = ["--config", asked.to_str().unwrap()];
    // Not in force.
    replace_file(&file, "[server");

    let (status, told, _) = run(&[&["config", "show"], &asked[..]].concat());
    assert_eq!(status, 0);
    for line in [
        "# The new value of server.workers waits for a restart.",
        "workers = 2",
        "lifetime = \"50m\"",
        "refresh_before = \"10m\"  # default",
        "app_certificate = \"[redacted]\"",
        "token_file = \"admin-token\"",
        "subject = { burst = 20, per = \"1m\", requests = 60 }  # default",
    ] {
        assert!(told.lines().any(|told| told == line), "{line} in {told}");
    }
    let (status, json, _) = run(&[&["config", "show", "--json"], &asked[..]].concat());
    assert_eq!(
        (status, &parsed(&json)["restart_required"]),
        (0, &json!(["server.workers"]))
    );
    for secret in [APP_CERTIFICATE, JWT_SECRET, ADMIN_TOKEN] {
        assert!(!told.contains(secret) && !json.contains(secret), "{secret}");
    }
    assert_eq!(renewd.ask_admin_as("", "GET", "/v1/config", "").status, 401);

    let shown = |arguments: &[&str]| run(&[&["config", "show", "--file"], arguments].concat());
    let (status, _, said) = shown(&["--config", file.to_str().unwrap()]);
    assert_eq!(status, 78, "{said}");
    replace_file(&file, &changed);
    let (status, told, _) = shown(&["--config", file.to_str().unwrap()]);
    assert_eq!(status, 0);
    assert!(told.contains("\nworkers = 3\n"), "{told}");
}

#[test]
fn every_shell_gets_completions_and_every_command_a_page() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, script, _) = run(&["completions", shell]);
        assert_eq!(status, 0, "{shell}");
        assert!(script.contains("revocations"), "{shell}: {script}");
    }
    assert_eq!(run(&["completions", "tcsh"]).0, 64);
    let (status, page, _) = run(&["man"]);
    assert_eq!(status, 0);
    assert!(page.contains(".TH renewd 1"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(run(&["man", "--directory", path]).0, 0);
    for page in [
        "renewd.1",
        "renewd-run.1",
        "renewd-token-mint.1",
        "renewd-config-show.1",
    ] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
    assert_eq!(run(&["man", "--directory", "/nowhere"]).0, 1);
}
