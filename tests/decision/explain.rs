//! `renewd explain` asks the running daemon why a subject gets a token, or none, and changes nothing by asking.

use crate::support;

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use crate::support::renewd::{Renewd, Settings, configuration, private_file};

/// A file that names the admin listener where it is.
fn configuration_at(renewd: &Renewd, listen: SocketAddr) -> String {
    let text = configuration(&Settings::default());
    let (before, after) = text
        .split_once("listen = \"127.0.0.1:0\"\ntoken_file")
        .unwrap();
    let text = format!("{before}listen = \"{listen}\"\ntoken_file{after}");
    let file = renewd.directory.path().join("asked.toml");
    private_file(&file, &text);
    file.to_str().unwrap().to_owned()
}

fn explain(file: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_renewd"))
        .args(["explain", "--config", file])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn verdict(file: &str, arguments: &[&str], step: &str) -> String {
    let answer = explain(file, &[arguments, &["--json"]].concat());
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let steps = answer["steps"].as_array().unwrap();
    let step = steps.iter().find(|found| found["step"] == step).unwrap();
    step["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn each_step_names_the_source_that_decides_and_why() {
    let renewd = Renewd::start(&Settings::default());
    let file = configuration_at(&renewd, renewd.admin);
    let ask = |subject: &str, role: &str| {
        let arguments = [
            "--subject",
            subject,
            "--channel",
            "live_show",
            "--role",
            role,
        ];
        let answer = explain(&file, &arguments);
        assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));
        text(&answer.stdout).to_owned()
    };
    let owner = ask("owner", "publisher");
    assert!(owner.ends_with("\n200 ok, as publisher\n"), "{owner}");
    assert!(
        owner.contains("owns the stream: publisher (file)"),
        "{owner}"
    );
    let stranger = ask("ann", "publisher");
    assert!(
        stranger.contains("neither owns nor co-hosts the stream"),
        "{stranger}"
    );
    assert!(
        stranger.ends_with("\n403 not_owner, as publisher\n"),
        "{stranger}"
    );
    let troll = ask("troll", "subscriber");
    assert!(
        troll.ends_with("\n403 viewer_banned, as subscriber\n"),
        "{troll}"
    );
    let viewers = ["--subject", "ann", "--channel", "nowhere"];
    let nowhere = explain(&file, &viewers);
    assert!(text(&nowhere.stdout).ends_with("\n404 stream_not_live\n"));
}

#[test]
fn asking_changes_nothing() {
    let renewd = Renewd::start(&Settings::default());
    let file = configuration_at(&renewd, renewd.admin);
    // Twice the burst of a subject's limit.
    for _ in 0..40 {
        let limits = verdict(
            &file,
            &["--subject", "ann", "--channel", "live_show"],
            "limits",
        );
        assert_eq!(limits, "passes");
    }
    assert_eq!(renewd.whole("renewd_sessions{role=\"subscriber\"}"), 0);
    let issued = r#"renewd_tokens_issued_total{endpoint="token",role="subscriber",format="007"}"#;
    assert_eq!(renewd.whole(issued), 0);
}

#[test]
fn a_uid_that_another_subject_holds_is_named() {
    let renewd = Renewd::start(&Settings::default());
    let file = configuration_at(&renewd, renewd.admin);
    let body = r#"{"channelName":"live_show","uid":7,"role":"subscriber"}"#;
    let bearer = support::renewd::login("ann");
    assert_eq!(renewd.post("/api/live/token", &bearer, body).status, 200);
    for (subject, expected) in [("ann", "passes"), ("bob", "refuses")] {
        let asked = [
            "--subject",
            subject,
            "--channel",
            "live_show",
            "--role",
            "subscriber",
            "--uid",
            "7",
        ];
        assert_eq!(verdict(&file, &asked, "uid and policy"), expected);
    }
}

#[test]
fn a_source_without_an_answer_lets_holders_alone_ride_through() {
    let renewd = Renewd::start(&Settings::default());
    let file = configuration_at(&renewd, renewd.admin);
    let body = r#"{"channelName":"live_show","uid":7,"role":"subscriber"}"#;
    let bearer = support::renewd::login("ann");
    assert_eq!(renewd.post("/api/live/token", &bearer, body).status, 200);
    fs::remove_file(renewd.file("streams.toml")).unwrap();
    renewd.eventually("the loss is noticed", |renewd| {
        renewd.metric("renewd_source_up{source=\"streams\"}") == 0.0
    });
    for (subject, expected) in [("ann", "rides_through"), ("bob", "no_answer")] {
        let asked = [
            "--subject",
            subject,
            "--channel",
            "live_show",
            "--role",
            "subscriber",
        ];
        assert_eq!(verdict(&file, &asked, "stream"), expected);
        let answer = explain(&file, &asked);
        let said = text(&answer.stdout);
        assert!(said.contains("(its file can't be used; "), "{said}");
    }
}

#[test]
fn a_source_without_an_answer_says_why() {
    let nobody = "http://127.0.0.1:1/streams/{channel}";
    let renewd = Renewd::start(&Settings {
        sources: Some(format!(
            "[accounts]\nsource = \"none\"\n\n[streams]\nsource = \"http\"\nurl = \"{nobody}\"\n\n"
        )),
        ..Settings::default()
    });
    let file = configuration_at(&renewd, renewd.admin);
    let answer = explain(&file, &["--subject", "ann", "--channel", "live_show"]);
    let said = text(&answer.stdout);
    let line = said.lines().find(|line| line.starts_with("stream"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("no answer"), "{line}");
    assert!(line.contains("refused"), "{line}");
}

#[test]
fn an_operator_without_access_to_the_daemons_secrets_may_ask_all_the_same() {
    let renewd = Renewd::start(&Settings::default());
    let file = configuration_at(&renewd, renewd.admin);
    let written = fs::read_to_string(&file).unwrap();
    let (before, after) = written.split_once("app_certificate = ").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let elsewhere = "app_certificate_file = \"/nonexistent/certificate\"";
    // The file was saved with a mistake elsewhere: the operator wants to know why it isn't taken.
    let text_with_faults = format!("{before}{elsewhere}\n{after}\n[tokens]\nlifetime = 5\n");
    private_file(std::path::Path::new(&file), &text_with_faults);
    let answer = explain(&file, &["--subject", "ann", "--channel", "live_show"]);
    assert_eq!(answer.status.code(), Some(0), "{}", text(&answer.stderr));

    let (before, after) = written.split_once("token_file = \"admin-token\"").unwrap();
    let unreadable = format!("{before}token_file = \"hunter2\"{after}");
    private_file(std::path::Path::new(&file), &unreadable);
    let answer = explain(&file, &["--subject", "ann", "--channel", "live_show"]);
    assert_eq!(answer.status.code(), Some(78));
    let said = text(&answer.stderr);
    assert!(
        said.contains("admin.token_file") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_with_the_question_is_said() {
    let renewd = Renewd::start(&Settings::default());
    let file = configuration_at(&renewd, renewd.admin);
    let refused = explain(
        &file,
        &[
            "--subject",
            "ann",
            "--channel",
            "live_show",
            "--role",
            "boss",
        ],
    );
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).starts_with("renewd: role: must be publisher"));
    let nameless = explain(&file, &["--socket", "--channel", ""]);
    assert_eq!(nameless.status.code(), Some(1));
    let said = text(&nameless.stderr);
    assert!(
        said.starts_with("renewd: channel: must not be empty; give the channel's name"),
        "{said}"
    );

    let nobody = configuration_at(&renewd, SocketAddr::from(([127, 0, 0, 1], 2)));
    let unreachable = explain(&nobody, &["--subject", "ann", "--channel", "live_show"]);
    assert_eq!(unreachable.status.code(), Some(1));
    let said = text(&unreachable.stderr);
    assert!(
        said.starts_with("renewd: no renewd answers at 127.0.0.1:2"),
        "{said}"
    );

    let missing = explain(
        "/nonexistent.toml",
        &["--subject", "ann", "--channel", "live_show"],
    );
    assert_eq!(missing.status.code(), Some(78));
    let usage = explain(&nobody, &["--subject", "ann"]);
    assert_eq!(usage.status.code(), Some(64));
}

#[test]
fn what_becomes_of_a_token_over_a_socket_is_explained_for_every_kind_of_channel() {
    let streams = format!(
        "{}\n[[stream]]\nchannel = \"live_over\"\nowner = \"owner\"\nlive = false\n",
        support::renewd::STREAMS
    );
    let renewd = Renewd::start(&Settings {
        streams_table: "channel_pattern = \"live_*\"\n".to_owned(),
        streams: Some(streams),
        tables: "[[reissue.socket]]\npath = \"/socket.io/*\"\n".to_owned(),
        ..Settings::default()
    });
    let file = configuration_at(&renewd, renewd.admin);
    let cut = "the token's lifetime is cut to token.lifetime";
    for (subject, channel, role, code, why) in [
        (Some("owner"), "live_show", "publisher", "ok", cut),
        (Some("cohost"), "live_show", "publisher", "ok", cut),
        (
            Some("owner"),
            "live_over",
            "publisher",
            "not_owner",
            "not live",
        ),
        (
            Some("ann"),
            "live_show",
            "publisher",
            "not_owner",
            "somebody else's",
        ),
        (Some("ann"), "live_show", "subscriber", "ok", cut),
        (
            Some("troll"),
            "live_show",
            "subscriber",
            "viewer_banned",
            "banned from it",
        ),
        (
            None,
            "live_show",
            "publisher",
            "not_owner",
            "in JSON null takes its place, elsewhere an empty string (not_owner)",
        ),
        (
            None,
            "live_soon",
            "publisher",
            "not_owner",
            "its name is a stream's",
        ),
        (None, "call_7", "publisher", "ok", cut),
    ] {
        let mut arguments = vec!["--socket", "--channel", channel, "--role", role];
        if let Some(subject) = subject {
            arguments.extend(["--subject", subject]);
        }
        let answer = explain(&file, &arguments);
        let answer = text(&answer.stdout);
        let end = format!("\n{code}, as {role}\n");
        assert!(answer.ends_with(&end), "{subject:?} {channel}: {answer}");
        assert!(answer.contains(why), "{subject:?} {channel}: {answer}");
    }
    let unasked = explain(&file, &["--channel", "live_show"]);
    assert_eq!(unasked.status.code(), Some(64));
    let series = "renewd_reissue_total{route=\"socket /socket.io/*\",outcome=\"withheld\"}";
    assert_eq!(renewd.whole(series), 0);
}

#[test]
fn what_becomes_of_a_token_in_bytes_is_explained_by_whether_they_are_searched() {
    for (binary, rule, verdict) in [
        (
            false,
            "bytes, such as attachments, pass unread (binary = false)",
            "elsewhere an empty string (",
        ),
        (
            true,
            "the first of the file (",
            "elsewhere, as in bytes, an empty string (",
        ),
    ] {
        let renewd = Renewd::start(&Settings {
            tables: format!("[[reissue.socket]]\npath = \"/socket.io/*\"\nbinary = {binary}\n"),
            ..Settings::default()
        });
        let file = configuration_at(&renewd, renewd.admin);
        let answer = explain(&file, &["--socket", "--channel", "live_show"]);
        let answer = text(&answer.stdout);
        assert!(answer.contains(rule), "{answer}");
        assert!(answer.contains(verdict), "{answer}");
    }
}

#[test]
fn without_a_rule_for_sockets_their_tokens_are_said_to_pass() {
    let renewd = Renewd::start(&Settings::default());
    let file = configuration_at(&renewd, renewd.admin);
    let answer = explain(&file, &["--socket", "--channel", "live_show"]);
    let answer = text(&answer.stdout);
    assert!(
        answer.contains("tokens in messages pass as they are"),
        "{answer}"
    );
}
