//! The units in a booted systemd, 252 and 257: what only the real one shows. Where namespaces are refused these tests
//! print the reason and end.

mod support;

use serde_json::json;

use support::machine::{Debian, Machine};
use support::renewd::{JWT_SECRET, jwt_with, now};

const ANOTHER_SECRET: &str = "another-secret-of-enough-bytes-for-this";

/// What a login gets whose accounts give no answer: it was verified, for otherwise it would be 401.
const VERIFIED: Option<u16> = Some(503);

/// A login as the shipped example takes it.
fn login(secret: &str) -> String {
    let claims = json!({
        "astrologerId": "65f0a1b2c3d4e5f6a7b8c9d0", "sessionId": "s", "exp": now() + 3600
    });
    jwt_with(secret, &claims)
}

fn takes(machine: &Machine, secret: &str) -> bool {
    let status = machine.token(&login(secret));
    assert!(status == VERIFIED || status == Some(401), "{status:?}");
    status == VERIFIED
}

/// What a reload must do on every systemd: README's own installation, a good file, a bad one, a bad secret.
fn reloads_and_refuses(machine: &Machine) {
    machine.systemctl("enable --now renewd");
    assert!(takes(machine, JWT_SECRET) && !takes(machine, ANOTHER_SECRET));
    machine.systemctl("reload renewd");

    for (what, written, instead) in [
        ("an invalid file", "[server]\n", "[server\n"),
        (
            "a credential that is not there",
            "credential:jwt_secret",
            "credential:jwt_secrets",
        ),
        (
            "a credential that is no certificate",
            "credential:agora_certificate",
            "credential:jwt_secret",
        ),
    ] {
        machine.configure(|example| {
            assert!(example.contains(written), "{written}");
            example.replacen(written, instead, 1)
        });
        assert!(!machine.succeeds("reload renewd"), "reloaded: {what}");
    }
    machine.configure(|example| example);
    machine.systemctl("reload renewd");
    assert!(takes(machine, JWT_SECRET));
}

#[test]
fn a_reload_on_systemd_252_checks_and_takes_rotated_credentials() {
    let Some(machine) = Machine::boot(Debian::Bookworm) else {
        return;
    };
    reloads_and_refuses(&machine);

    machine.secret("jwt_secret", "");
    assert!(!machine.succeeds("reload renewd"), "an empty secret");
    machine.secret("jwt_secret", ANOTHER_SECRET);
    machine.systemctl("reload renewd");
    machine.eventually("the rotated secret", |machine| {
        takes(machine, ANOTHER_SECRET)
    });
}

#[test]
fn a_reload_on_systemd_257_checks_the_credentials_that_stay_until_a_restart() {
    let Some(machine) = Machine::boot(Debian::Trixie) else {
        return;
    };
    reloads_and_refuses(&machine);

    machine.secret("jwt_secret", ANOTHER_SECRET);
    machine.systemctl("reload renewd");
    machine.systemctl("restart renewd");
    assert!(takes(&machine, ANOTHER_SECRET) && !takes(&machine, JWT_SECRET));
}
