//! `token inspect` explains a refused token to an operator: by the rules of the token's own kind, after undoing what
//! pasting did to it.

use clap::Parser as _;
use renewd::agora::Signer;
use renewd::agora::access_token2::AccessToken2;
use renewd::agora::service::{AgoraService, Privileges, ServiceKind};
use renewd::config::secret::Secret;
use renewd::terms::clock::Clock;
use serde_json::{Value, json};

use crate::token_command::{
    APP_ID, CERTIFICATE, CommandLine, NOW, ORDINARY, codes, inspected, mint, mint_with, minted,
    ordinary_but, token_with_input,
};

/// 006 tokens as Agora's package builds them for [`APP_ID`] and [`CERTIFICATE`], each with its kind before it.
const LEGACY: &str = include_str!("legacy_tokens.txt");

fn legacy(kind: &str) -> &'static str {
    let lines = LEGACY.lines().filter_map(|line| line.split_once(' '));
    let mut found = lines.filter(|(name, _)| *name == kind);
    found.next().unwrap_or_else(|| panic!("{kind}")).1
}

fn message<'r>(report: &'r Value, code: &str) -> &'r str {
    let problems = report["problems"].as_array().unwrap().iter();
    let mut found = problems.filter(|problem| problem["code"] == code);
    found
        .next()
        .unwrap_or_else(|| panic!("no {code} in {report:#}"))["message"]
        .as_str()
        .unwrap()
}

#[test]
fn a_legacy_signaling_token_is_judged_as_one() {
    let ann = ["--account", "ann"];
    let (status, report) = inspected(legacy("rtm"), &ann);
    assert_eq!(status, 0, "{report:#}");
    assert_eq!(report["accepted"], true);
    assert_eq!(
        (&report["kind"], &report["signature"]),
        (&json!("rtm"), &json!("valid"))
    );
    assert_eq!(report["privilegeNames"], json!(["rtmLogin"]));
    assert_eq!(report["expiresIn"], 3600);
    assert!(codes(&report).is_empty(), "{report:#}");

    let (status, report) = inspected(legacy("rtm"), &["--account", "bob"]);
    assert_eq!(
        (status, codes(&report)),
        (1, vec!["signature_invalid", "uid_mismatch"])
    );
    assert_eq!(
        message(&report, "uid_mismatch"),
        "it is for another account"
    );

    let (status, report) = inspected(legacy("rtm"), &[]);
    assert_eq!((status, codes(&report)), (0, vec!["signature_not_checked"]));
    assert_eq!(
        message(&report, "signature_not_checked"),
        "006 tokens hold no account: give it to check the signature"
    );

    // An operator that asks about a channel is told the token's kind, not that another certificate signed it.
    let (status, report) = inspected(legacy("rtm"), &["--channel", "lobby", "--account", "ann"]);
    assert_eq!((status, codes(&report)), (1, vec!["no_rtc_service"]));
    assert_eq!(
        message(&report, "no_rtc_service"),
        "it is for logging in to RTM: no channel can be joined with it"
    );
}

#[test]
fn an_account_in_the_uids_place_is_found_in_a_legacy_signaling_token() {
    let (status, report) = inspected(legacy("rtmwrong"), &["--account", "ann"]);
    assert_eq!(status, 1);
    assert_eq!(
        codes(&report),
        ["account_in_uid_place", "signature_not_checked"]
    );
    assert_eq!(
        message(&report, "account_in_uid_place"),
        "it has the account in the uid's place: RTM takes the account in the channel's place, and no uid"
    );
    assert_eq!(
        message(&report, "signature_not_checked"),
        "what stands in the account's place isn't known: give it as --channel to check the signature"
    );
    let joined = ["--channel", "room1", "--account", "ann"];
    let (status, report) = inspected(legacy("rtmwrong"), &joined);
    assert_eq!((status, &report["signature"]), (1, &json!("valid")));
    let (_, report) = inspected(legacy("rtmwrong"), &["--account", "bob"]);
    assert_eq!(
        message(&report, "account_in_uid_place"),
        "it has something in the uid's place: RTM takes the account in the channel's place, and no uid"
    );
}

#[test]
fn a_legacy_token_for_channel_and_login_is_judged_by_the_channel() {
    let joined = ["--channel", "ann", "--account", "ann"];
    let (status, report) = inspected(legacy("hybrid"), &joined);
    assert_eq!(status, 0, "{report:#}");
    assert_eq!(report["kind"], "rtc");
    assert_eq!(codes(&report), ["privilege_never", "login_privilege"]);
    assert_eq!(
        message(&report, "privilege_never"),
        "privilege joinChannel, rtmLogin is 0, never: the SDK's renewal callbacks stay silent"
    );
    assert_eq!(
        message(&report, "login_privilege"),
        "it has privilege rtmLogin too: RTM takes it only where the account stands in the channel's place and the uid is empty"
    );
}

#[test]
fn a_legacy_token_with_which_no_user_can_join_is_not_accepted() {
    let joined = ["--channel", "lobby", "--uid", "77"];
    let (status, report) = inspected(legacy("nojoin"), &joined);
    assert_eq!(
        (status, codes(&report)),
        (1, vec!["join_privilege_missing"])
    );
    assert_eq!(
        message(&report, "join_privilege_missing"),
        "it lacks privilege joinChannel: its holder may not join"
    );
}

#[test]
fn a_legacy_token_shows_the_uids_that_fit_it_and_finds_its_own_by_the_signature() {
    let (_, report) = inspected(legacy("rtc"), &[]);
    let uids = report["uids"].as_array().unwrap();
    assert!(uids.contains(&json!(77)), "{uids:?}");
    let (status, report) = inspected(legacy("rtc"), &["--channel", "lobby"]);
    assert_eq!((status, &report["signature"]), (0, &json!("valid")));
    assert_eq!(report["accepted"], true);
    let (status, report) = inspected(legacy("rtc"), &["--channel", "other"]);
    assert_eq!(status, 1);
    assert_eq!(
        codes(&report),
        ["channel_mismatch", "signature_not_checked"]
    );
    assert_eq!(
        message(&report, "signature_not_checked"),
        "for none of the uids that fit it is it signed for this channel with this certificate: give the uid or account to check its signature"
    );
}

#[test]
fn a_legacy_token_for_an_account_or_with_the_time_for_a_uid_is_told() {
    let (_, report) = inspected(legacy("account"), &[]);
    assert_eq!(report["uids"], json!([]));
    assert_eq!(
        message(&report, "string_account"),
        "no uid fits it: it was made for a string account"
    );
    let joined = ["--channel", "lobby", "--account", "ann"];
    let (status, report) = inspected(legacy("account"), &joined);
    assert_eq!((status, codes(&report)), (0, vec![]));

    let (status, report) = inspected(legacy("time"), &["--channel", "lobby", "--uid", "77"]);
    assert_eq!(status, 1);
    assert_eq!(
        message(&report, "time_as_uid"),
        "uid 1800000000 fits it, which is 2027-01-15T08:00:00Z as a Unix time: the issue time was passed as uid"
    );
    let (_, report) = inspected(legacy("rel"), &["--channel", "lobby", "--uid", "77"]);
    assert_eq!(
        message(&report, "relative_expiry"),
        "privilege joinChannel ends before 2001: seconds passed where 006 takes Unix times"
    );
}

fn signed(services: Vec<AgoraService>) -> String {
    let token = AccessToken2 {
        issued_at: u32::try_from(NOW).unwrap(),
        expire: 3600,
        salt: 1,
        services,
    };
    let certificate = Secret::new(CERTIFICATE.into());
    token
        .build(&Signer::new(APP_ID, &certificate).unwrap())
        .unwrap()
}

fn rtc(channel: &str, uid: &str) -> String {
    signed(vec![AgoraService {
        kind: ServiceKind::Rtc {
            channel: channel.into(),
            uid: uid.into(),
        },
        privileges: Privileges::from([(1, 3600)]),
    }])
}

/// The names with their findings; the file's head says how to read it.
const UNUSABLE_NAMES: &str = include_str!("unusable_names.txt");

#[test]
fn names_with_which_no_user_can_join_are_found_in_a_signed_token() {
    let lines = UNUSABLE_NAMES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut cases = 0;
    for line in lines {
        let columns: Vec<&str> = line.split(" | ").collect();
        let [channel, uid, code, error, said] = columns[..] else {
            panic!("{line}");
        };
        let error: u32 = error.parse().unwrap();
        cases += 1;
        let (status, report) = inspected(&rtc(channel, uid), &[]);
        assert_eq!((status, codes(&report)), (1, vec![code]));
        assert_eq!(
            (&report["agoraError"], &report["accepted"]),
            (&json!(error), &json!(false))
        );
        assert_eq!(message(&report, code), said);
    }
    assert_eq!(cases, 10);
    // An account may have this name.
    let (status, report) = inspected(&rtc("lobby", "undefined"), &["--account", "undefined"]);
    assert_eq!((status, codes(&report)), (0, vec![]));
}

#[test]
fn a_signaling_token_is_held_against_the_account_that_logs_in() {
    let for_user = |user: &str| {
        signed(vec![AgoraService {
            kind: ServiceKind::Rtm { user: user.into() },
            privileges: Privileges::from([(1, 3600)]),
        }])
    };
    let (status, report) = inspected(&for_user("ann"), &["--account", "ann"]);
    assert_eq!((status, &report["accepted"]), (0, &json!(true)));
    assert_eq!(report["services"][0]["privilegeNames"], json!(["login"]));
    let (status, report) = inspected(&for_user("ann"), &["--account", "bob"]);
    assert_eq!(
        (status, message(&report, "uid_mismatch")),
        (1, "it is for another user")
    );
    let (_, report) = inspected(&for_user("undefined"), &[]);
    assert_eq!(
        message(&report, "bad_user_id"),
        "the user of rtm is the text of a value that wasn't there"
    );
    let (_, report) = inspected(&for_user("a/b"), &[]);
    assert_eq!(
        message(&report, "bad_user_id"),
        "the user of rtm has '/' at byte 1, which Agora does not allow"
    );
}

/// A token with `+` and `/` in it.
fn with_signs() -> String {
    let salts = (1..).map(|salt: u32| salt.to_string());
    let tokens = salts.map(|salt| minted(&[&ORDINARY[..], &["--salt", &salt]].concat()));
    { tokens }
        .find(|token| token.contains('+') && token.contains('/'))
        .unwrap()
}

#[test]
fn what_pasting_did_to_a_token_is_undone_and_told() {
    let token = with_signs();
    let plus = token.find('+').unwrap();
    let slash = token.find('/').unwrap();
    let first = plus.min(slash);
    let json = format!(
        "{{\"data\": {{\"token\": \"{}\"}}}}",
        token.replace('/', "\\/")
    );
    let encoded = token.replace('+', "%2B").replace('/', "%2F");
    for (pasted, code, at) in [
        (token.replace('+', " "), "blank_for_plus", plus),
        (token.replace('/', "\\/"), "escaped_slash", slash),
        (encoded.clone(), "percent_encoded", first),
        (
            token.replace('+', "%2b").replace('/', "%2f"),
            "percent_encoded",
            first,
        ),
        (format!("Bearer {token}"), "bearer_prefix", 0),
        (format!("\"{token}\""), "quoted", 0),
        (format!("'{token}"), "quoted", 0),
        (
            token.replace('+', "-").replace('/', "_"),
            "url_safe_base64",
            first,
        ),
        (
            format!("{}\r\n  {}", &token[..80], &token[80..]),
            "line_break",
            80,
        ),
        (json, "inside_text", 20),
        (
            format!("https://h/live-x?token={encoded}&a=1"),
            "inside_text",
            23,
        ),
        (format!("token: {token}, role: 1"), "inside_text", 7),
    ] {
        let (status, report) = inspected(&pasted, &["--channel", "lobby", "--uid", "77"]);
        assert_eq!(status, 0, "{pasted}: {report:#}");
        assert_eq!(report["accepted"], true, "{pasted}");
        let said = message(&report, code);
        assert!(said.ends_with(&format!(" at byte {at}")), "{said}");
        assert!(!report.to_string().contains(&token));
    }
}

#[test]
fn what_is_no_agora_token_is_told_for_what_it_is() {
    let login = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln";
    for pasted in [login.to_owned(), format!("Bearer {login}")] {
        let (status, report) = inspected(&pasted, &[]);
        assert_eq!(status, 1);
        assert_eq!(codes(&report), ["bad_version", "jwt"]);
        let at = pasted.find("eyJ").unwrap();
        assert_eq!(
            message(&report, "jwt"),
            format!("a JSON Web Token begins at byte {at}: a login, which Agora knows nothing of")
        );
    }
    let two = format!("[\"{}\",\"{}\"]", legacy("rtc"), legacy("rtm"));
    let (status, report) = inspected(&two, &[]);
    assert_eq!(status, 1);
    assert!(
        message(&report, "several_tokens").starts_with("2 tokens stand in the text, at bytes 2, "),
        "{report:#}"
    );
}

#[test]
fn a_token_comes_from_standard_input_and_is_judged_at_the_time_given() {
    let token = minted(&ORDINARY);
    let clock = Clock::manual(NOW + 10_000);
    let inspect = |at: &str| {
        let arguments = ["inspect", "-", "--at", at];
        let (status, out, _) = token_with_input(&clock, &arguments, &format!("{token}\n")).unwrap();
        let report: Value = serde_json::from_str(&out).unwrap();
        (status, report["expiresIn"].clone())
    };
    assert_eq!(inspect("1800000600"), (0, json!(3000)));
    assert_eq!(inspect("2027-01-15T08:10:00Z"), (0, json!(3000)));
    assert_eq!(inspect("2027-01-15 10:00:00"), (1, json!(0)));
    let wrong = ["token", "inspect", "x", "--at", "noon"];
    assert!(CommandLine::try_parse_from(wrong).is_err());
}

#[test]
fn an_argument_that_is_wrong_by_itself_exits_as_usage_does() {
    for (arguments, status) in [
        (ordinary_but("--channel", "a*"), 64),
        (ordinary_but("--lifetime", "1s"), 64),
        (
            [&ORDINARY[..], &["--privilege-lifetime", "2h"]].concat(),
            64,
        ),
        (
            [&ORDINARY[..], &["--format", "006", "--services", "rtm"]].concat(),
            64,
        ),
        (
            [&ordinary_but("--uid", "0")[..], &["--services", "rtm"]].concat(),
            64,
        ),
    ] {
        assert_eq!(
            mint(&arguments).unwrap_err().exit_status(),
            status,
            "{arguments:?}"
        );
    }
    assert_eq!(mint_with("short", &ORDINARY).unwrap_err().exit_status(), 1);
}
