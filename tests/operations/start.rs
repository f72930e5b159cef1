//! The start: the faults that keep the daemon from it, with their exit codes and messages, and the faults that don't.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use renewd::terms::version::{COMMIT, VERSION};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::lifecycle::{replace_file, with_lifetime};
use crate::support::raw::Client;
use crate::support::renewd::{
    APP_CERTIFICATE, Renewd, Settings, configuration, private_file, spawn_under, under, write_files,
};

fn directory(settings: &Settings) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), settings);
    directory
}

fn renewd(arguments: &[&str], directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_renewd"));
    command.args(arguments).current_dir(directory);
    command.env("STATE_DIRECTORY", directory.join("state"));
    command.output().unwrap()
}

/// Exit code and stderr of a daemon that doesn't start on `config.toml`.
fn refused(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let run = ["run", "--config", "config.toml"];
    let output = renewd(&[&run, arguments].concat(), directory);
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn every_error_of_a_bad_configuration_is_said_at_once() {
    let directory = directory(&Settings {
        token: "lifetime = \"forever\"".to_owned(),
        server: "worker = 3".to_owned(),
        tables: "[polizy]\n".to_owned(),
        ..Settings::default()
    });
    let file = directory.path().join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    private_file(
        &file,
        &text.replace("format = \"json\"", "format = \"auto\""),
    );
    let (code, said) = refused(directory.path(), &[]);
    assert_eq!(code, Some(78), "{said}");
    for expected in [
        "error: `server.worker`: unknown key",
        "did you mean `workers`?",
        "error: `token.lifetime`",
        "error: `polizy`",
        "--> config.toml:",
        "nothing was started",
    ] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    assert!(said.ends_with('\n'), "{said:?}");

    let check = renewd(&["check", "--config", "config.toml"], directory.path());
    assert_eq!(check.status.code(), Some(78));
    let checked = String::from_utf8(check.stderr).unwrap();
    let findings = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("error:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(findings(&checked), findings(&said), "check and run agree");
}

#[test]
fn what_keeps_it_from_starting_is_said_in_the_format_that_is_asked_for() {
    let bad = directory(&Settings {
        token: "lifetime = \"forever\"".to_owned(),
        ..Settings::default()
    });
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let busy = directory(&Settings {
        server: format!("listen = [\"{address}\"]"),
        ..Settings::default()
    });
    // The same holds where the text can't be read to its end.
    let cut = directory(&Settings::default());
    let text = configuration(&Settings::default()) + "[polizy\n";
    private_file(&cut.path().join("config.toml"), &text);
    for (directory, status, expected) in [
        (&bad, 78, "token.lifetime: \"forever\" is not a duration"),
        (&busy, 1, "can't listen on"),
        (&cut, 78, "not TOML: "),
    ] {
        let (code, said) = refused(directory.path(), &[]);
        assert_eq!(code, Some(status), "{said}");
        let mut messages = Vec::new();
        for line in said.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect(line);
            if line["level"] == "error" {
                messages.push(line["msg"].as_str().unwrap().to_owned());
            }
        }
        let found = messages.iter().any(|message| message.contains(expected));
        assert!(found, "{messages:?}");
    }
}

#[test]
fn what_starts_passes_the_check() {
    let directory = directory(&Settings {
        tables: "[cors]\nallowed_origins = [\"https://app.example.com\"]\n".to_owned(),
        ..Settings::default()
    });
    let check = renewd(
        &["check", "--strict", "--config", "config.toml"],
        directory.path(),
    );
    assert_eq!(
        check.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
}

#[test]
fn a_missing_configuration_is_an_invalid_one() {
    let directory = tempfile::tempdir().unwrap();
    let (code, said) = refused(directory.path(), &[]);
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("config.toml") && said.contains("can't be read"),
        "{said}"
    );
}

#[test]
fn a_wrong_command_line_is_told_apart_from_a_wrong_file() {
    let directory = directory(&Settings::default());
    for arguments in [&["run", "--confg", "x"][..], &["serve"], &[], &["run", "x"]] {
        let output = renewd(arguments, directory.path());
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}

#[test]
fn help_says_what_each_command_is_for() {
    let directory = tempfile::tempdir().unwrap();
    let help = |arguments: &[&str]| {
        let output = renewd(arguments, directory.path());
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&["--help"]);
    for command in ["run", "check", "demo", "token"] {
        assert!(all.contains(&format!("\n  {command} ")), "{all}");
        assert!(help(&[command, "--help"]).contains("Usage: renewd"));
    }
    assert!(help(&["run", "--help"]).contains("--fallback"));
    assert_eq!(
        help(&["--version"]),
        format!("renewd {VERSION} (commit {COMMIT})\n")
    );
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let public = directory(&Settings {
        server: format!("listen = [\"{address}\"]"),
        ..Settings::default()
    });
    let (code, said) = refused(public.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!(
            "can't listen on {address}: Address already in use"
        )),
        "{said}"
    );

    let admin = directory(&Settings::default());
    let text = configuration(&Settings::default()).replace(
        "listen = \"127.0.0.1:0\"",
        &format!("listen = \"{address}\""),
    );
    private_file(&admin.path().join("config.toml"), &text);
    let (code, said) = refused(admin.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("`ss -lntxp`"), "{said}");
    assert!(
        said.contains(&format!(
            "can't listen on {address} (admin.listen): Address already in use"
        )),
        "{said}"
    );
}

#[test]
fn a_second_daemon_on_one_state_directory_is_refused_and_told_of_the_first() {
    let first = Renewd::start(&Settings::default());
    let (code, said) = refused(first.directory.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains("state.directory"), "{said}");
    assert_eq!(first.ask_for_token().status, 200);
}

#[test]
fn without_a_usable_state_directory_it_serves_and_says_so() {
    let directory = directory(&Settings::default());
    // A file is in its place; permissions would not keep root out.
    fs::write(directory.path().join("state"), "").unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(renewd.ask_for_token().status, 200);
    assert_eq!(renewd.whole("renewd_state_writable"), 0);
    renewd.log().wait("error", |line| {
        let said = line["msg"].as_str()?;
        (line["level"] == "error" && said.contains("state directory")).then_some(())
    });
    assert_eq!(renewd.reload().status, 200);
    assert_eq!(
        renewd.whole("renewd_state_writable"),
        0,
        "a reload opens no directory"
    );
}

#[test]
fn a_state_directory_in_order_is_writable_in_the_metrics() {
    let renewd = Renewd::start(&Settings::default());
    assert_eq!(renewd.whole("renewd_state_writable"), 1);
    assert_eq!(renewd.reload().status, 200);
    assert_eq!(renewd.whole("renewd_state_writable"), 1);
}

#[test]
fn a_configuration_that_could_not_be_kept_at_the_start_is_kept_when_it_can_be() {
    let directory = directory(&Settings::default());
    // The disk seems full: the file that was begun can't take the old one's place.
    let kept = directory.path().join("state/last-valid.toml");
    fs::create_dir_all(kept.join("full")).unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(renewd.whole("renewd_state_writable"), 0);
    fs::remove_dir_all(&kept).unwrap();
    renewd.eventually("it is kept without a reload", |renewd| {
        renewd.whole("renewd_state_writable") == 1
    });
    assert!(kept.is_file());
}

/// A directory where a daemon ran on these settings, and no more does.
fn ran_once(settings: &Settings) -> TempDir {
    let mut renewd = Renewd::start(settings);
    renewd.signal(Signal::TERM);
    assert_eq!(renewd.wait().code(), Some(0));
    std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap())
}

fn fall_back(directory: TempDir) -> Renewd {
    let state = directory.path().join("state");
    Renewd::start_in(directory, &["--fallback"], |command| {
        command.env("STATE_DIRECTORY", state);
    })
}

#[test]
fn the_last_valid_configuration_stands_in_for_an_invalid_one_and_says_so_until_it_is_mended() {
    let directory = ran_once(&with_lifetime("20m"));
    let text = configuration(&with_lifetime("forever"));
    private_file(&directory.path().join("config.toml"), &text);
    let renewd = fall_back(directory);
    assert_eq!(renewd.lifetime(), 1200);
    assert_eq!(renewd.whole("renewd_config_fallback"), 1);
    assert_eq!(renewd.whole("renewd_config_last_reload_successful"), 0);
    let status = renewd.status();
    assert_eq!(status["config"]["fallback"], true);
    assert_eq!(status["config"]["problems"][0]["key"], "token.lifetime");
    let said = |part: &str| {
        renewd.log().wait(part, |line| {
            line["msg"].as_str()?.contains(part).then_some(())
        });
    };
    said("token.lifetime");
    said("serving the last valid configuration");

    // Another wrong file leaves it where it is.
    let text = configuration(&with_lifetime("always"));
    replace_file(&renewd.file("config.toml"), &text);
    assert_eq!(renewd.reload().status, 422);
    assert_eq!(renewd.whole("renewd_config_fallback"), 1);
    assert_eq!(renewd.status()["config"]["fallback"], true);

    renewd.configure(&with_lifetime("25m"));
    renewd.eventually("it leaves fallback", |renewd| {
        renewd.whole("renewd_config_fallback") < 1
    });
    assert_eq!(renewd.lifetime(), 1500);
    assert_eq!(renewd.whole("renewd_config_last_reload_successful"), 1);
    assert_eq!(renewd.status()["config"]["fallback"], false);
    assert_eq!(renewd.status()["config"]["problems"], json!([]));
}

#[test]
fn fallback_ends_when_a_file_comes_that_the_configuration_waits_for() {
    let directory = ran_once(&with_lifetime("20m"));
    let text = configuration(&with_lifetime("25m")).replace(
        &format!("app_certificate = \"{APP_CERTIFICATE}\""),
        "app_certificate_file = \"certificate\"",
    );
    private_file(&directory.path().join("config.toml"), &text);
    let renewd = fall_back(directory);
    assert_eq!(renewd.lifetime(), 1200);
    private_file(&renewd.file("certificate"), APP_CERTIFICATE);
    renewd.eventually("it leaves fallback", |renewd| {
        renewd.whole("renewd_config_fallback") < 1
    });
    assert_eq!(renewd.lifetime(), 1500);
}

#[test]
fn what_a_reload_applied_is_what_a_later_start_falls_back_to() {
    let mut renewd = Renewd::start(&with_lifetime("20m"));
    renewd.reconfigure(&with_lifetime("25m"));
    replace_file(&renewd.file("config.toml"), "");
    assert_eq!(renewd.reload().status, 422);
    renewd.signal(Signal::TERM);
    assert_eq!(renewd.wait().code(), Some(0));
    let directory = std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap());
    assert_eq!(fall_back(directory).lifetime(), 1500);
}

#[test]
fn fallback_is_asked_for_and_needs_something_to_fall_back_to() {
    let directory = ran_once(&Settings::default());
    private_file(&directory.path().join("config.toml"), "");
    let (code, said) = refused(directory.path(), &[]);
    assert_eq!(code, Some(78), "{said}");

    fs::remove_dir_all(directory.path().join("state")).unwrap();
    let (code, said) = refused(directory.path(), &["--fallback"]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("the file is empty"), "{said}");
    assert!(said.contains("no last valid configuration"), "{said}");
}

#[test]
fn the_last_valid_configuration_of_another_file_is_not_served() {
    let directory = ran_once(&Settings::default());
    private_file(&directory.path().join("other.toml"), "");
    let other = ["run", "--config", "other.toml", "--fallback"];
    let output = renewd(&other, directory.path());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("it is a copy of another file") && said.contains("/config.toml"),
        "{said}"
    );

    // A build that didn't write down the file's path left such a copy.
    let kept = directory.path().join("state/last-valid.toml");
    private_file(&kept, &configuration(&Settings::default()));
    private_file(&directory.path().join("config.toml"), "");
    let (code, said) = refused(directory.path(), &["--fallback"]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("which file it is a copy of"), "{said}");
}

#[test]
fn fallback_looks_where_it_is_told_from_outside_the_file_and_nowhere_else() {
    let directory = ran_once(&with_lifetime("20m"));
    private_file(&directory.path().join("config.toml"), "");
    let output = Command::new(env!("CARGO_BIN_EXE_renewd"))
        .args(["run", "--config", "config.toml", "--fallback"])
        .current_dir(directory.path())
        .env_remove("STATE_DIRECTORY")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("--state-directory"), "{said}");

    let state = directory.path().join("state");
    let arguments = ["--fallback", "--state-directory", state.to_str().unwrap()];
    let renewd = Renewd::start_in(directory, &arguments, |command| {
        command.env("STATE_DIRECTORY", "/nonexistent");
    });
    assert_eq!(renewd.lifetime(), 1200);
    assert_eq!(renewd.whole("renewd_config_fallback"), 1);
}

#[test]
fn fallback_with_a_valid_file_is_a_usual_start() {
    let directory = ran_once(&with_lifetime("20m"));
    private_file(
        &directory.path().join("config.toml"),
        &configuration(&with_lifetime("25m")),
    );
    let renewd = fall_back(directory);
    assert_eq!(renewd.lifetime(), 1500);
    assert_eq!(renewd.whole("renewd_config_fallback"), 0);
    assert_eq!(renewd.whole("renewd_config_last_reload_successful"), 1);
}

#[test]
fn a_start_waits_for_no_peer() {
    let directory = directory(&Settings::default());
    // RFC 2606: never resolves.
    let text = configuration(&Settings::default())
        .replace("http://127.0.0.1:1", "http://backend.invalid:3001");
    private_file(&directory.path().join("config.toml"), &text);
    fs::remove_file(directory.path().join("streams.toml")).unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    let ready = renewd.ask_admin("GET", "/readyz", "");
    assert_eq!(
        (ready.status, ready.json()["reason"].clone()),
        (200, json!("degraded"))
    );
    assert_eq!(renewd.ask_for_token().status, 503, "no stream source");
    let request = b"GET /health HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let answer: Value = Client::new(renewd.public).send(request).unwrap().json();
    assert_eq!(answer["code"], "upstream_unreachable");
}

#[test]
fn a_start_with_database_store_and_name_servers_down_opens_its_port_at_once() {
    let sources = "[mongodb]\nuri = \"mongodb+srv://app:hunter2@cluster.example.com/live\"\n\n\
        [accounts]\nsource = \"mongodb\"\ncollection = \"users\"\n\n[streams]\nsource = \"mongodb\"\n";
    let directory = directory(&Settings {
        sources: Some(sources.to_owned()),
        tables: "[redis]\nurl = \"redis://store.example.com:6379\"\n".to_owned(),
        ..Settings::default()
    });
    let root = directory.path().to_owned();
    // RFC 5737: nobody has the address, and the resolver waits longer than the test.
    let resolver = "nameserver 192.0.2.1\noptions timeout:30 attempts:5\n";
    fs::write(root.join("resolv.conf"), resolver).unwrap();
    let Some(line) = under("mount --bind resolv.conf /etc/resolv.conf", &root) else {
        return;
    };
    let config = root.join("config.toml");
    let (child, log) = spawn_under(&line, &["run", "--config", config.to_str().unwrap()]);
    let mut renewd = Renewd::ready(child, log, directory);
    assert_eq!(renewd.ask_for_token().status, 503);
    assert_eq!(renewd.ask_admin("GET", "/readyz", "").status, 200);
    renewd.signal(Signal::TERM);
    assert_eq!(renewd.wait().code(), Some(0));
}
