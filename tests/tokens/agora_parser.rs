//! Agora's own packages read the tokens that renewd mints: stored zlib blocks, every service, both formats.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where its ground gives way"
)]

use crate::support::npm;

use std::io::Write as _;
use std::process::{Command, Stdio};

use renewd::agora::TokenFormat;
use renewd::agora::access_token2::{AccessToken2, rtc_token};
use renewd::agora::service::{AgoraService, Permissions, Privileges, ServiceKind};
use renewd::agora::{RtcGrant, Signer, User};
use renewd::config::secret::Secret;
use renewd::terms::role::Role;
use serde_json::{Value, json};

const APP_ID: &str = "0123456789abcdef0123456789ABCDEF";
const CERTIFICATE: &str = "fedcba98765432100123456789abcdef";
const GRANT: RtcGrant<'static> = RtcGrant {
    channel: "live_65f0c0ffee",
    user: User::Uid(2_882_341_273),
    role: Role::Publisher,
    lifetime: 3600,
    issued_at: 1_800_000_000,
    salt: 12_345_678,
};

fn signer() -> Signer {
    Signer::new(APP_ID, &Secret::new(CERTIFICATE.into())).unwrap()
}

/// The report of Agora's packages on each token, checked against [`CERTIFICATE`].
fn as_agora_reads(tokens: &[String]) -> Vec<Value> {
    let directory = npm::package("agora");
    npm::ensure(&directory);
    let mut child = Command::new("node")
        .arg("verify.js")
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs (Debian: apt-get install nodejs)");
    let entries = tokens
        .iter()
        .map(|token| json!({ "token": token, "certificate": CERTIFICATE }));
    let request = entries.collect::<Value>().to_string();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(request.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), tokens.len());
    answers
}

#[test]
fn an_ordinary_token_of_stored_blocks_parses_and_verifies_with_all_its_fields() {
    let subscriber = RtcGrant {
        user: User::Account("alice.smith@example"),
        role: Role::Subscriber,
        ..GRANT
    };
    let tokens = [GRANT, subscriber].map(|grant| rtc_token(&signer(), &grant).unwrap());
    let read = as_agora_reads(&tokens);
    for (answer, uid, privileges) in [
        (
            &read[0],
            "2882341273",
            json!({"1": 3600, "2": 3600, "3": 3600, "4": 3600}),
        ),
        (&read[1], "alice.smith@example", json!({"1": 3600})),
    ] {
        let wanted = json!({
            "parsed": true,
            "verified": true,
            "appId": APP_ID,
            "issueTs": 1_800_000_000,
            "expire": 3600,
            "salt": 12_345_678,
            "services": [{
                "type": 1,
                "privileges": privileges,
                "channelName": "live_65f0c0ffee",
                "uid": uid,
            }],
        });
        assert_eq!(answer, &wanted);
    }
}

#[test]
fn every_service_type_parses_and_verifies() {
    let services = (1..=10).map(|number| {
        let text = |name: &str| Vec::from(format!("{name}-{number}"));
        let kind = match number {
            1 => ServiceKind::Rtc {
                channel: text("channel"),
                uid: text("uid"),
            },
            2 => ServiceKind::Rtm { user: text("user") },
            3 => ServiceKind::Streaming {
                channel: text("channel"),
                account: text("account"),
            },
            4 => ServiceKind::Fpa,
            5 => ServiceKind::Chat { user: text("user") },
            6 => ServiceKind::Fcdn {
                channel: text("channel"),
                account: text("account"),
            },
            7 => ServiceKind::Apaas {
                room: text("room"),
                user: text("user"),
                role: -1,
            },
            8 => {
                let resources = vec![text("stream"), text("other")];
                let permissions = Permissions::from([(1, [(0, resources)].into())]);
                ServiceKind::Rtm2 {
                    user: text("user"),
                    permissions,
                }
            }
            9 => ServiceKind::ConvoAi,
            _ => ServiceKind::Stt,
        };
        AgoraService {
            privileges: Privileges::from([(1, 60), (7, 0)]),
            kind,
        }
    });
    let token = AccessToken2 {
        issued_at: 1_800_000_000,
        expire: 60,
        salt: 1,
        services: services.collect(),
    };
    let read = as_agora_reads(&[token.build(&signer()).unwrap()]);
    assert_eq!(read[0]["verified"], true, "{}", read[0]);
    let types = read[0]["services"].as_array().unwrap().iter();
    assert!(
        types
            .map(|service| service["type"].as_u64().unwrap())
            .eq(1..=10)
    );
    assert_eq!(read[0]["services"][7]["userId"], "user-8");
}

#[test]
fn a_token_beyond_one_stored_block_parses_and_verifies() {
    let tokens = [1, 2, 3].map(|services| AccessToken2 {
        issued_at: 1_800_000_000,
        expire: 60,
        salt: 1,
        services: vec![AgoraService::rtm(&"r".repeat(65_000), 60); services],
    });
    let read = as_agora_reads(&tokens.map(|token| token.build(&signer()).unwrap()));
    for (answer, services) in read.iter().zip([1, 2, 3]) {
        assert_eq!(answer["verified"], true);
        assert_eq!(answer["services"].as_array().unwrap().len(), services);
    }
}

#[test]
fn another_certificates_token_does_not_verify() {
    let other = Signer::new(APP_ID, &Secret::new(APP_ID.into())).unwrap();
    let read = as_agora_reads(&[rtc_token(&other, &GRANT).unwrap()]);
    assert_eq!(
        (&read[0]["parsed"], &read[0]["verified"]),
        (&json!(true), &json!(false))
    );
}

#[test]
fn a_legacy_token_is_read_with_absolute_times() {
    let token = renewd::agora::rtc_token(TokenFormat::V006, &signer(), &GRANT).unwrap();
    let end = 1_800_003_600;
    let wanted = json!({
        "parsed": true,
        "salt": 12_345_678,
        "ts": 1_800_086_400,
        "privileges": {"1": end, "2": end, "3": end, "4": end},
        "crcChannel": crc32fast::hash(b"live_65f0c0ffee"),
        "crcUid": crc32fast::hash(b"2882341273"),
    });
    assert_eq!(as_agora_reads(&[token]), [wanted]);
}
