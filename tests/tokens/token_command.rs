//! `renewd token mint|inspect`, driven as the command line does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where its ground gives way"
)]

use std::io::Write as _;
use std::time::Duration;

use clap::Parser;
use proptest::prelude::*;
use renewd::cli::token::{TokenCommand, TokenError, run};
use renewd::terms::clock::{Clock, Entropy};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

pub(crate) const APP_ID: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const CERTIFICATE: &str = "fedcba98765432100123456789abcdef";
pub(crate) const NOW: u64 = 1_800_000_000;

#[derive(Parser)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: TokenCommand,
}

fn file_with(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

/// The result of a command: exit status, stdout, stderr.
type Outcome = Result<(u8, String, String), TokenError>;

fn token_at(clock: &Clock, arguments: &[&str]) -> Outcome {
    token_with_input(clock, arguments, "")
}

pub(crate) fn token_with_input(clock: &Clock, arguments: &[&str], input: &str) -> Outcome {
    let arguments = std::iter::once("token").chain(arguments.iter().copied());
    let command = CommandLine::try_parse_from(arguments).unwrap().command;
    let (mut out, mut warnings) = (Vec::new(), Vec::new());
    let status = run(
        command,
        clock,
        Entropy::Fixed(41),
        &mut input.as_bytes(),
        &mut out,
        &mut warnings,
    )?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ok((status, text(out), text(warnings)))
}

pub(crate) fn mint_with(certificate: &str, arguments: &[&str]) -> Outcome {
    let file = file_with(certificate);
    let path = file.path().to_str().unwrap();
    let fixed = ["mint", "--app-id", APP_ID, "--certificate-file", path];
    token_at(&Clock::manual(NOW), &[&fixed, arguments].concat())
}

pub(crate) fn mint(arguments: &[&str]) -> Outcome {
    mint_with(CERTIFICATE, arguments)
}

pub(crate) fn minted(arguments: &[&str]) -> String {
    let (status, out, _) = mint(arguments).unwrap();
    assert_eq!(status, 0);
    let token = out.strip_suffix('\n').expect("one line");
    assert!(!token.contains('\n'));
    token.to_owned()
}

pub(crate) fn inspected_after(seconds: u64, token: &str, arguments: &[&str]) -> (u8, Value) {
    let file = file_with(&format!("{CERTIFICATE}\n"));
    let path = file.path().to_str().unwrap();
    let clock = Clock::manual(NOW);
    clock.advance(Duration::from_secs(seconds));
    let fixed = ["inspect", "--certificate-file", path];
    let (status, out, _) = token_at(&clock, &[&fixed, arguments, &["--", token]].concat()).unwrap();
    (status, serde_json::from_str(&out).unwrap())
}

pub(crate) fn inspected(token: &str, arguments: &[&str]) -> (u8, Value) {
    inspected_after(0, token, arguments)
}

pub(crate) fn codes(report: &Value) -> Vec<&str> {
    let problems = report["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| problem["code"].as_str().unwrap())
        .collect()
}

pub(crate) const ORDINARY: [&str; 8] = [
    "--channel",
    "lobby",
    "--uid",
    "77",
    "--role",
    "publisher",
    "--lifetime",
    "1h",
];

pub(crate) fn ordinary_but(flag: &str, value: &'static str) -> Vec<&'static str> {
    let mut arguments = ORDINARY.to_vec();
    let at = arguments
        .iter()
        .position(|argument| *argument == flag)
        .unwrap();
    arguments[at + 1] = value;
    arguments
}

#[test]
fn a_minted_token_is_healthy_and_says_what_was_asked_for() {
    let (status, report) = inspected(&minted(&ORDINARY), &["--channel", "lobby", "--uid", "77"]);
    assert_eq!(status, 0, "{report}");
    let wanted = json!({
        "accepted": true,
        "agoraError": null,
        "signature": "valid",
        "format": "007",
        "appId": APP_ID,
        "issueTs": NOW,
        "issuedAt": "2027-01-15T08:00:00Z",
        "expire": 3600,
        "expiresAt": "2027-01-15T09:00:00Z",
        "expiresIn": 3600,
        "salt": 42,
        "services": [{
            "type": 1,
            "name": "rtc",
            "privileges": {"1": 3600, "2": 3600, "3": 3600, "4": 3600},
            "privilegeNames": [
                "joinChannel", "publishAudioStream", "publishVideoStream", "publishDataStream"
            ],
            "channelName": "lobby",
            "uid": "77",
        }],
        "problems": [],
    });
    assert_eq!(report, wanted);
}

#[test]
fn issue_time_and_salt_make_it_reproducible() {
    let fixed = [
        &ORDINARY[..],
        &["--issued-at", "1700000000", "--salt", "4294967295"],
    ]
    .concat();
    assert_eq!(minted(&fixed), minted(&fixed));
    let (_, report) = inspected(&minted(&fixed), &[]);
    assert_eq!(
        (&report["issueTs"], &report["salt"]),
        (&json!(1_700_000_000), &json!(u32::MAX))
    );
}

#[test]
fn every_spelling_of_a_role_is_known() {
    for (spelling, privileges) in [
        ("publisher", 4),
        ("broadcaster", 4),
        ("host", 4),
        ("1", 4),
        ("subscriber", 1),
        ("audience", 1),
        ("viewer", 1),
        ("2", 1),
    ] {
        let (_, report) = inspected(&minted(&ordinary_but("--role", spelling)), &[]);
        let found = report["services"][0]["privileges"]
            .as_object()
            .unwrap()
            .len();
        assert_eq!(found, privileges, "{spelling}");
    }
}

#[test]
fn one_token_can_open_rtc_rtm_and_chat() {
    let arguments = [
        &ORDINARY[..],
        &["--services", "chat,rtm,rtc", "--privilege-lifetime", "20m"],
    ];
    let (status, report) = inspected(&minted(&arguments.concat()), &[]);
    assert_eq!(status, 0);
    let user = |number, name, privilege| {
        json!({
            "type": number, "name": name, "privileges": {"1": 3600}, "privilegeNames": [privilege],
            "userId": "77",
        })
    };
    assert_eq!(report["services"][1], user(2, "rtm", "login"));
    assert_eq!(report["services"][2], user(5, "chat", "user"));
    assert_eq!(report["services"][0]["privileges"]["1"], 1200);
    assert_eq!(report["expiresIn"], 1200, "the join privilege ends first");
    assert_eq!(codes(&report), ["privilege_before_token"]);
}

#[test]
fn a_legacy_token_needs_channel_and_uid_to_be_verified() {
    let token = minted(&[&ORDINARY[..], &["--format", "006"]].concat());
    assert!(token.starts_with(&format!("006{APP_ID}")));
    let (status, report) = inspected(&token, &["--channel", "lobby", "--uid", "77"]);
    assert_eq!((status, &report["signature"]), (0, &json!("valid")));
    assert_eq!(report["expiresIn"], 3600);
    let (status, report) = inspected(&token, &[]);
    assert_eq!((status, &report["signature"]), (0, &json!("not_checked")));
    assert_eq!(report["accepted"], Value::Null);
    assert_eq!(codes(&report), ["signature_not_checked"]);
    let (status, report) = inspected(&token, &["--channel", "other", "--uid", "78"]);
    assert_eq!((status, &report["agoraError"]), (1, &json!(110)));
    assert_eq!(
        codes(&report),
        ["signature_invalid", "channel_mismatch", "uid_mismatch"]
    );
}

#[test]
fn an_expired_token_is_109_and_a_foreign_one_110() {
    for format in ["006", "007"] {
        let token = minted(&[&ORDINARY[..], &["--format", format]].concat());
        let joined = ["--channel", "lobby", "--uid", "77"];
        let (status, report) = inspected_after(3599, &token, &joined);
        assert_eq!((status, &report["expiresIn"]), (0, &json!(1)));
        let (status, report) = inspected_after(3600, &token, &joined);
        assert_eq!((status, &report["agoraError"]), (1, &json!(109)));
        assert_eq!(codes(&report), ["expired"]);
        let other_app = [&joined[..], &["--app-id", CERTIFICATE]].concat();
        let (status, report) = inspected_after(3600, &token, &other_app);
        assert_eq!(
            (status, &report["agoraError"]),
            (1, &json!(110)),
            "invalid goes before expired"
        );
        assert!(codes(&report).contains(&"wrong_app_id"));
    }
}

#[test]
fn another_channel_uid_or_account_is_110() {
    let token = minted(&ORDINARY);
    for (joined, code) in [
        (["--channel", "lobby2"], "channel_mismatch"),
        (["--uid", "7"], "uid_mismatch"),
        (["--account", "alice"], "uid_mismatch"),
    ] {
        let (status, report) = inspected(&token, &joined);
        assert_eq!((status, &report["agoraError"]), (1, &json!(110)));
        assert_eq!(codes(&report), [code]);
    }
}

#[test]
fn a_signaling_token_joins_no_channel() {
    let token = minted(&[&ORDINARY[..], &["--services", "rtm"]].concat());
    assert_eq!(inspected(&token, &[]).0, 0);
    let (status, report) = inspected(&token, &["--channel", "lobby"]);
    assert_eq!((status, codes(&report)), (1, vec!["no_rtc_service"]));
}

#[test]
fn a_token_for_uid_0_is_minted_with_a_warning_and_fits_everyone() {
    let (_, out, warnings) = mint(&ordinary_but("--uid", "0")).unwrap();
    assert_eq!(warnings, "warning: anyone may use a token for uid 0\n");
    let (status, report) = inspected(out.trim(), &["--uid", "77"]);
    assert_eq!((status, codes(&report)), (0, vec!["wildcard_uid"]));
    let error = mint(&[&ordinary_but("--uid", "0")[..], &["--services", "rtc,rtm"]].concat());
    assert!(matches!(error, Err(TokenError::NobodyToLogIn)), "{error:?}");
}

#[test]
fn wildcard_names_are_refused_and_unusual_ones_warned_of() {
    for (channel, refusal) in [
        ("*", "--channel must not contain *, a wildcard to Agora"),
        ("", "--channel must not be empty"),
    ] {
        let error = mint(&ordinary_but("--channel", channel)).unwrap_err();
        assert_eq!(error.to_string(), refusal);
    }
    let account = [
        "--channel",
        "a/b",
        "--account",
        "42",
        "--role",
        "host",
        "--lifetime",
        "1h",
    ];
    let (_, _, warnings) = mint(&account).unwrap();
    assert_eq!(
        warnings,
        "warning: --channel has '/' at byte 1, which Agora does not allow\n\
         warning: --account must not be all digits: send it as uid\n"
    );
}

#[test]
fn lifetimes_run_from_a_minute_to_a_day() {
    for good in ["1m", "60s", "90m", "24h", "1day"] {
        assert!(mint(&ordinary_but("--lifetime", good)).is_ok(), "{good}");
    }
    for bad in ["59s", "24h 1s", "0s", "1h 1ms", "3years"] {
        let error = mint(&ordinary_but("--lifetime", bad)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--lifetime must be whole seconds from 1m to 24h",
            "{bad}"
        );
    }
    let longer = [&ORDINARY[..], &["--privilege-lifetime", "2h"]].concat();
    let error = mint(&longer).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--privilege-lifetime must be at most --lifetime: a privilege ends with its token"
    );
    let never = [&ORDINARY[..], &["--privilege-lifetime", "0s"]].concat();
    let error = mint(&never).unwrap_err().to_string();
    assert_eq!(
        error,
        "--privilege-lifetime must be whole seconds from 1s to 24h"
    );
}

#[test]
fn a_legacy_token_opens_rtc_alone() {
    let arguments = [&ORDINARY[..], &["--format", "006", "--services", "rtc,rtm"]].concat();
    assert!(matches!(mint(&arguments), Err(TokenError::Services)));
}

#[test]
fn a_certificate_file_is_trimmed_and_must_hold_32_hexadecimal_digits() {
    assert!(mint_with(&format!("  {CERTIFICATE}\r\n"), &ORDINARY).is_ok());
    for bad in [
        "",
        "xyz",
        "fedcba98765432100123456789abcde",
        "gedcba98765432100123456789abcdef",
    ] {
        let error = mint_with(bad, &ORDINARY).unwrap_err();
        assert!(matches!(error, TokenError::Certificate { .. }), "{error}");
        assert!(
            bad.is_empty() || !error.to_string().contains(bad),
            "{error}"
        );
    }
    let missing = [
        "mint",
        "--app-id",
        APP_ID,
        "--certificate-file",
        "/nonexistent/c",
    ];
    let error = token_at(&Clock::manual(NOW), &[&missing, &ORDINARY[..]].concat()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("can't read the certificate file /nonexistent/c: ")
    );
}

#[test]
fn a_malformed_app_id_is_refused() {
    let file = file_with(CERTIFICATE);
    let path = file.path().to_str().unwrap();
    let fixed = ["mint", "--app-id", "abc", "--certificate-file", path];
    let error = token_at(&Clock::manual(NOW), &[&fixed, &ORDINARY[..]].concat()).unwrap_err();
    assert_eq!(error.to_string(), "the App ID isn't 32 hexadecimal digits");
}

#[test]
fn flags_that_exclude_each_other_or_are_missing_are_usage_errors() {
    let fixed = [
        "token",
        "mint",
        "--app-id",
        APP_ID,
        "--certificate-file",
        "f",
    ];
    for arguments in [
        "--channel c --role host --lifetime 1h",
        "--channel c --uid 1 --account a --role host --lifetime 1h",
        "--channel c --uid 4294967296 --role host --lifetime 1h",
        "--channel c --uid 1 --role king --lifetime 1h",
        "--channel c --uid 1 --role host --lifetime soon",
        "--channel c --uid 1 --role host --lifetime 1h --format 008",
        "--channel c --uid 1 --role host --lifetime 1h --services tv",
    ] {
        let arguments = arguments.split(' ');
        let arguments: Vec<_> = fixed.into_iter().chain(arguments).collect();
        assert!(
            CommandLine::try_parse_from(&arguments).is_err(),
            "{arguments:?}"
        );
    }
}

#[test]
fn what_is_no_token_is_explained_without_echoing_it() {
    for (token, code) in [
        ("", "empty"),
        ("\u{1b}[2Jhello", "bad_version"),
        ("007!!!!", "bad_base64"),
        ("007AAAA", "not_zlib"),
    ] {
        let (status, report) = inspected(token, &[]);
        assert_eq!((status, codes(&report)), (1, vec![code]));
        assert_eq!(
            (&report["agoraError"], &report["expiresAt"]),
            (&json!(110), &Value::Null)
        );
        assert!(!report.to_string().contains("hello"));
    }
}

/// The report on a reference vector's token at the moment of its issue.
fn reference(id: &str) -> Value {
    let vectors: Value =
        serde_json::from_str(include_str!("../vectors/agora-tokens.json")).unwrap();
    let vectors = vectors["v007"].as_array().unwrap().iter();
    let vector = vectors.clone().find(|vector| vector["id"] == id).unwrap();
    let token = vector["token"].as_str().unwrap();
    let clock = Clock::manual(vector["issueTs"].as_u64().unwrap());
    let (_, out, _) = token_at(&clock, &["inspect", token]).unwrap();
    serde_json::from_str(&out).unwrap()
}

#[test]
fn the_oddities_of_tokens_in_the_wild_are_named() {
    for (id, accepted, wanted) in [
        ("dev-007-001-uid", true, &["privilege_before_token"][..]),
        ("dev-007-007-uid0-wildcard", true, &["wildcard_uid"]),
        ("dev-007-008-priv0", true, &["privilege_never"]),
        (
            "dev-007-010-priv-longer-than-token",
            true,
            &["privilege_after_token"],
        ),
        (
            "dev-007-011-expire0",
            false,
            &["expired", "privilege_never"],
        ),
        ("dev-007-012-expire-24h", true, &[]),
        (
            "dev-007-014-seed-bug-absolute",
            true,
            &["absolute_expiry", "lifetime_cut", "privilege_after_token"],
        ),
        ("dev-007-024-chan-wildcard", true, &["wildcard_channel"]),
        ("dev-007-036-account-star", true, &["wildcard_uid"]),
        (
            "dev-007-037-account-pattern",
            true,
            &["wildcard_channel", "wildcard_uid"],
        ),
        ("dev-007-038-chan-empty", true, &["wildcard_channel"]),
        (
            "dev-007-069-no-privileges",
            false,
            &["join_privilege_missing"],
        ),
    ] {
        let report = reference(id);
        assert_eq!(codes(&report), wanted, "{id}");
        let accepted = if accepted { Value::Null } else { json!(false) };
        assert_eq!(
            report["accepted"], accepted,
            "{id}: nobody checked the signature"
        );
        assert_eq!(report["signature"], "not_checked", "{id}");
    }
}

#[test]
fn the_absolute_time_mistake_is_shown_with_its_year_and_cut_to_a_day() {
    let report = reference("dev-007-014-seed-bug-absolute");
    let message = report["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("2079-"), "{message}");
    assert_eq!(report["expiresIn"], 86_400);
}

proptest! {
    #[test]
    fn whatever_is_minted_is_read_back(
        uid in 1_u32..,
        channel in "[a-zA-Z0-9 !#$%&()+:;<=.>?@\\[\\]^_{}|~,][a-zA-Z0-9 !#$%&()+:;<=.>?@\\[\\]^_{}|~,-]{0,63}",
        lifetime in 60_u32..=86_400,
        salt: u32,
        role in prop_oneof![Just("host"), Just("viewer")],
        format in prop_oneof![Just("006"), Just("007")],
    ) {
        let (uid, lifetime_text, salt_text) =
            (uid.to_string(), format!("{lifetime}s"), salt.to_string());
        let token = minted(&[
            "--channel", &channel, "--uid", &uid, "--role", role, "--lifetime", &lifetime_text,
            "--salt", &salt_text, "--format", format,
        ]);
        let (status, report) = inspected(&token, &["--channel", &channel, "--uid", &uid]);
        prop_assert_eq!(status, 0, "{}", report);
        prop_assert_eq!(&report["signature"], "valid");
        prop_assert_eq!(&report["expiresIn"], lifetime);
        prop_assert_eq!(&report["salt"], salt);
    }

    #[test]
    fn a_token_changed_in_any_byte_is_refused(at in 7_usize..179, bit in 0_u8..6) {
        // The zlib header and the padding of the stored block's header stand before that, and no parser reads them.
        let token = minted(&ORDINARY);
        let mut bytes = token.into_bytes();
        prop_assert_eq!(bytes.len(), 179);
        bytes[at] ^= 1 << bit;
        let Ok(changed) = String::from_utf8(bytes) else {
            return Ok(());
        };
        let (status, report) = inspected(&changed, &["--channel", "lobby", "--uid", "77"]);
        prop_assert_eq!(status, 1, "{}", report);
    }
}
