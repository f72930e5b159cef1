//! The unit files, by systemd's own judgement and against what the contract promises of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNITS: [&str; 3] = ["renewd.service", "renewd@.service", "renewd.socket"];

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error} (Debian: systemd, which tests/run installs)")
    })
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The values of `key` in `unit`, in order.
fn values(unit: &str, key: &str) -> Vec<String> {
    std::fs::read_to_string(units().join(unit))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_sandbox_leaves_an_exposure_of_at_most_one_and_a_half() {
    let output = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(units().join("renewd.service")));
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn systemd_finds_nothing_to_complain_about() {
    // The verdict of systemd-analyze includes that the programs exist, so that the built one stands in the place of the
    // installed one.
    let directory = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = std::fs::read_to_string(units().join(unit)).unwrap();
        let text = text.replace("/usr/bin/renewd", env!("CARGO_BIN_EXE_renewd"));
        std::fs::write(directory.path().join(unit), text).unwrap();
    }
    let output = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(UNITS.map(|unit| directory.path().join(unit))));
    // An unknown key is a message and no failure.
    assert!(
        output.status.success() && said(&output).is_empty(),
        "{}",
        said(&output)
    );
}

#[test]
fn sysusers_makes_the_user_that_the_service_runs_as_without_a_login() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let output = run(Command::new("systemd-sysusers")
        .arg(format!("--root={}", root.path().display()))
        .arg("-")
        .stdin(std::fs::File::open(units().join("renewd.sysusers.conf")).unwrap()));
    assert!(output.status.success(), "{}", said(&output));
    let users = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let [user] = values("renewd.service", "User").try_into().unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with(&format!("{user}:")))
        .unwrap_or_else(|| panic!("{users}"));
    assert!(line.ends_with("/nologin"), "{line}");
}

#[test]
fn a_reload_is_refused_by_check_before_the_daemon_hears_of_it() {
    let [run] = values("renewd.service", "ExecStart").try_into().unwrap();
    let steps = values("renewd.service", "ExecReload");
    let [nothing, check, hang_up] = steps.try_into().unwrap();
    let configuration = "--config /etc/renewd/config.toml";
    assert_eq!(
        run,
        format!("/usr/bin/renewd run {configuration} --fallback")
    );
    assert_eq!(
        nothing, "/bin/true",
        "systemd 252 gives the first no credentials"
    );
    let credentials = "/run/renewd/credentials";
    assert_eq!(
        check,
        format!(
            "/usr/bin/env CREDENTIALS_DIRECTORY={credentials} /usr/bin/renewd check {configuration}"
        )
    );
    assert_eq!(
        values("renewd.service", "BindReadOnlyPaths"),
        [format!("-/run/credentials/renewd.service:{credentials}")]
    );
    assert_eq!(hang_up, "/bin/sh -c 'kill -HUP $MAINPID'");
}

#[test]
fn the_service_keeps_to_what_the_contract_promises() {
    for (key, value) in [
        // `notify-reload` would fall back to `simple` on systemd 252.
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("Restart", "always"),
        ("RestartPreventExitStatus", "64 78"),
        ("StartLimitIntervalSec", "0"),
        ("LogRateLimitIntervalSec", "0"),
        ("LimitCORE", "0"),
        ("LimitNOFILE", "65536"),
        ("StateDirectory", "renewd"),
        ("StateDirectoryMode", "0700"),
        ("CapabilityBoundingSet", ""),
    ] {
        assert_eq!(values("renewd.service", key), [value], "{key}");
    }
    let [stop] = values("renewd.service", "TimeoutStopSec")
        .try_into()
        .unwrap();
    let stop = humantime::parse_duration(&stop).unwrap();
    assert!(
        stop.as_secs() > 30,
        "systemd must not kill before server.drain_timeout (30 s) is over"
    );
    // Unknown to systemd 252, where it would leave every credential out.
    assert!(values("renewd.service", "ImportCredential").is_empty());
}

#[test]
fn the_unit_of_a_second_project_differs_in_names_alone() {
    let settings = |unit: &str| -> Vec<String> {
        let text = std::fs::read_to_string(units().join(unit)).unwrap();
        let (_, text) = text.split_once("[Unit]").unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (one, another) = (settings("renewd.service"), settings("renewd@.service"));
    assert_eq!(one.len(), another.len());
    for (one, another) in one.iter().zip(&another) {
        let named = another
            .replace(" for %i", "")
            .replace("/etc/renewd/%i.toml", "/etc/renewd/config.toml")
            .replace("/etc/renewd/%i.environment", "/etc/renewd/environment")
            .replace("/run/credentials/%n", "/run/credentials/renewd.service")
            .replace("renewd.%i.", "renewd.")
            .replace("renewd/%i", "renewd")
            .replace("renewd-%i", "renewd");
        assert_eq!(&named, one);
    }
}

#[test]
fn the_directories_that_the_operator_writes_into_are_made_for_root() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc")).unwrap();
    let output = run(Command::new("systemd-tmpfiles")
        .arg(format!("--root={}", root.path().display()))
        .arg("--create")
        .arg(units().join("renewd.tmpfiles.conf")));
    assert!(output.status.success(), "{}", said(&output));
    let mode = |path: &str| {
        let metadata = std::fs::metadata(root.path().join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("etc/renewd"), mode("etc/credstore")), (0o755, 0o700));
}

#[test]
fn the_socket_has_the_name_that_its_first_lines_tell_the_operator_to_listen_on() {
    let [name] = values("renewd.socket", "FileDescriptorName")
        .try_into()
        .unwrap();
    let text = std::fs::read_to_string(units().join("renewd.socket")).unwrap();
    assert!(text.contains(&format!("listen = [\"systemd:{name}\"]")));
    assert_eq!(values("renewd.socket", "NoDelay"), ["true"]);
    assert_eq!(values("renewd.socket", "RequiredBy"), ["renewd.service"]);
    assert!(
        values("renewd.service", "Requires").is_empty(),
        "the service serves without a socket too"
    );
}
