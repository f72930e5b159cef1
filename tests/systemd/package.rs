//! The Debian package through its life in a booted systemd, 252 and 257, and by lintian's judgement. Where namespaces
//! are refused these tests print the reason and end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::support::machine::{Debian, Machine, said};
use crate::support::renewd::{APP_CERTIFICATE, JWT_SECRET};

/// Runs a program that must succeed; gives its standard output.
fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The package of the debug build.
fn package(directory: &Path) -> PathBuf {
    let package = directory.join("renewd.deb");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/package");
    ok(Command::new(script).arg("dev").arg(&package));
    package
}

/// The same package under another version.
fn at_version(package: &Path, version: &str) -> PathBuf {
    let directory = package.parent().unwrap();
    let (tree, other) = (
        directory.join(version),
        directory.join(format!("{version}.deb")),
    );
    ok(Command::new("dpkg-deb")
        .arg("--raw-extract")
        .arg(package)
        .arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let lines = text.lines().map(|line| match line.split_once(": ") {
        Some(("Version", _)) => format!("Version: {version}\n"),
        _ => format!("{line}\n"),
    });
    fs::write(&control, lines.collect::<String>()).unwrap();
    let mut build = Command::new("dpkg-deb");
    build.args(["-Znone", "--root-owner-group", "--build"]);
    ok(build.arg(&tree).arg(&other));
    other
}

/// Holds that the package has what the contract lists.
fn is_complete(package: &Path) {
    let listed = ok(Command::new("dpkg-deb").arg("--contents").arg(package));
    for path in [
        "/usr/bin/renewd",
        "/usr/lib/systemd/system/renewd.service",
        "/usr/lib/systemd/system/renewd@.service",
        "/usr/lib/systemd/system/renewd.socket",
        "/usr/lib/sysusers.d/renewd.conf",
        "/usr/lib/tmpfiles.d/renewd.conf",
        "/usr/share/man/man1/renewd.1.gz",
        "/usr/share/man/man1/renewd-token-mint.1.gz",
        "/usr/share/bash-completion/completions/renewd",
        "/usr/share/zsh/vendor-completions/_renewd",
        "/usr/share/fish/vendor_completions.d/renewd.fish",
        "/usr/share/doc/renewd/README.md",
        "/usr/share/doc/renewd/changelog.gz",
        "/usr/share/doc/renewd/SECURITY.md",
        "/usr/share/doc/renewd/docs/runbook.md",
        "/usr/share/doc/renewd/examples/config.example.toml",
        "/usr/share/doc/renewd/examples/monitoring/alerts.yml",
    ] {
        let is_there = |line: &str| line.ends_with(&format!(" .{path}"));
        assert!(listed.lines().any(is_there), "{path} in\n{listed}");
    }
    // Nothing below /etc: what is there is the operator's, and no upgrade asks about it.
    assert!(!listed.contains(" ./etc/"), "{listed}");
    let judged = Command::new("lintian")
        .args(["--fail-on=error,warning", "--allow-root"])
        .arg(package)
        .output()
        .expect("lintian, which tests/run installs");
    assert!(judged.status.success(), "{}", said(&judged));
}

fn main_pid(machine: &Machine, unit: &str) -> String {
    machine.systemctl(&format!("show --property=MainPID --value {unit}"))
}

fn is_there(machine: &Machine, path: &str) -> bool {
    machine.run(&["test", "-e", path]).status.success()
}

fn dpkg(machine: &Machine, words: &str) -> (bool, String) {
    let words: Vec<&str> = ["dpkg"].into_iter().chain(words.split(' ')).collect();
    let output = machine.run(&words);
    (output.status.success(), said(&output))
}

fn installs(machine: &Machine, package: &str) {
    let (done, told) = dpkg(machine, &format!("--install {package}"));
    assert!(done, "{told}\n{}", machine.journal("cat"));
}

/// Configures a second project, on ports and with secrets of its own.
fn second_project(machine: &Machine) {
    machine.configure(|example| {
        example
            .replacen("[server]\n", "[server]\nlisten = [\"[::]:3100\"]\n", 1)
            .replacen("[admin]\n", "[admin]\nlisten = \"127.0.0.1:9564\"\n", 1)
            .replacen(
                "# directory = \"/var/lib/renewd\"",
                "directory = \"/var/lib/renewd/two\"",
                1,
            )
    });
    machine.shell("mv /etc/renewd/config.toml /etc/renewd/two.toml");
    machine.secret("two.agora_certificate", APP_CERTIFICATE);
    machine.secret("two.jwt_secret", JWT_SECRET);
    machine.secret("two.mongodb_uri", "mongodb://127.0.0.1:27017/two");
    machine.configure(|example| example);
    machine.systemctl("enable --now renewd@two");
    machine.systemctl("reload renewd@two");
    machine.shell("renewd status --config /etc/renewd/two.toml | grep --quiet two.toml");
    machine.shell("test -e /var/lib/renewd/two/lock");
}

/// The package from the first installation to the purge.
fn lives(debian: Debian, first: &Path, later: &Path) {
    let Some(machine) = Machine::boot_bare(debian) else {
        return;
    };
    let (first, later) = (machine.bring(first), machine.bring(later));

    installs(&machine, &first);
    for unit in ["renewd.service", "renewd.socket", "renewd@two.service"] {
        assert!(
            !machine.succeeds(&format!("is-active {unit}")),
            "{unit} started"
        );
        assert!(
            !machine.succeeds(&format!("is-enabled {unit}")),
            "{unit} enabled"
        );
    }
    machine.shell("getent passwd renewd && test -d /etc/renewd && test -d /etc/credstore");

    machine.configured();
    machine.systemctl("enable --now renewd");
    second_project(&machine);
    machine.shell("renewd health && renewd status && renewd config show && renewd reload");

    let before = ["renewd", "renewd@two"].map(|unit| main_pid(&machine, unit));
    installs(&machine, &later);
    let upgraded = ["renewd", "renewd@two"].map(|unit| main_pid(&machine, unit));
    assert!(
        before
            .iter()
            .zip(&upgraded)
            .all(|(before, after)| before != after),
        "not restarted"
    );
    machine.shell("renewd health");

    refuses_a_configuration(&machine, &first, &later);

    // The way back: the former package.
    let running = main_pid(&machine, "renewd");
    installs(&machine, &first);
    assert_ne!(main_pid(&machine, "renewd"), running, "not restarted");
    machine.shell("renewd health && dpkg-query --show renewd | grep --quiet --invert-match 900");

    let (done, told) = dpkg(&machine, "--purge renewd");
    assert!(done, "{told}");
    assert!(!machine.succeeds("is-active renewd") && !machine.succeeds("is-active renewd@two"));
    let gone = ["/usr/bin/renewd", "/var/lib/renewd", "/var/log/renewd"];
    for path in gone
        .into_iter()
        .chain(["/etc/systemd/system/multi-user.target.wants/renewd.service"])
    {
        assert!(!is_there(&machine, path), "{path} stays");
    }
    assert!(
        !machine
            .run(&["getent", "passwd", "renewd"])
            .status
            .success()
    );
    assert!(
        is_there(&machine, "/etc/renewd/config.toml"),
        "the operator wrote it"
    );
}

/// An upgrade to a program that refuses the configuration: the former one goes on, until the file is mended.
fn refuses_a_configuration(machine: &Machine, first: &str, later: &str) {
    let running = ["renewd", "renewd@two"].map(|unit| main_pid(machine, unit));
    machine.configure(|example| example.replacen("[server]\n", "[server]\nnew_key = 1\n", 1));
    let (done, told) = dpkg(machine, &format!("--install {first}"));
    assert!(!done, "{told}");
    for part in [
        "`server.new_key`",
        "refuses the configuration of renewd.service",
        "dpkg --configure renewd",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(main_pid(machine, "renewd"), running[0]);
    assert_ne!(
        main_pid(machine, "renewd@two"),
        running[1],
        "its own configuration is fine"
    );
    machine.configure(|example| example);
    let (done, told) = dpkg(machine, "--configure renewd");
    assert!(done, "{told}");
    assert_ne!(main_pid(machine, "renewd"), running[0]);
    installs(machine, later);
}

#[test]
fn on_systemd_252_and_257_the_package_installs_upgrades_refuses_goes_back_and_purges() {
    let directory = tempfile::tempdir().unwrap();
    // One for all: to build it takes longer than to install it. The machines get it uncompressed.
    let package = package(directory.path());
    let [first, later] = ["0.0.1-1", "900.1-1"].map(|version| at_version(&package, version));
    thread::scope(|threads| {
        threads.spawn(|| lives(Debian::Bookworm, &first, &later));
        threads.spawn(|| lives(Debian::Trixie, &first, &later));
        is_complete(&package);
    });
}
