//! Tokens equal Agora's own builders on every reference vector, and every invalid vector is refused with a reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where its ground gives way"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use renewd::agora::access_token::{self, AccessToken};
use renewd::agora::access_token2::{self, AccessToken2};
use renewd::agora::inspect::{Expected, SignatureCheck, inspect};
use renewd::agora::service::{AgoraService, Permissions, Privileges, ServiceKind};
use renewd::agora::{BuildError, RtcGrant, Signer, User};
use renewd::config::secret::Secret;
use renewd::terms::role::Role;
use serde_json::{Value, json};

/// The list of that name, which has so many entries.
fn vectors(list: &str, count: usize) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../vectors/agora-tokens.json")).unwrap();
    let entries = all[list].as_array().unwrap().clone();
    assert_eq!(entries.len(), count);
    entries
}

/// Runs a check on every vector and reports all that fail, by id.
fn check_each(vectors: &[Value], check: impl Fn(&Value) -> Result<(), String>) {
    let failures: Vec<String> = vectors
        .iter()
        .filter_map(|vector| Some(format!("{}: {}", vector["id"], check(vector).err()?)))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    found: &T,
    wanted: &T,
) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, wanted {wanted:?}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn small(value: &Value) -> u16 {
    u16::try_from(value.as_u64().unwrap()).unwrap()
}

fn certificate(vector: &Value) -> Secret {
    Secret::new(text(&vector["appCertificate"]).into())
}

fn signer(vector: &Value) -> Result<Signer, BuildError> {
    Signer::new(text(&vector["appId"]), &certificate(vector))
}

fn user(value: &Value) -> User<&str> {
    match value.as_str() {
        Some(account) => User::Account(account),
        None => User::Uid(number(value)),
    }
}

/// Roles as numbers: Agora's builders give privileges 2 to 4 to publishers alone.
fn role(value: &Value) -> Role {
    if value == 1 {
        Role::Publisher
    } else {
        Role::Subscriber
    }
}

fn privileges(value: &Value) -> Privileges {
    let entries = value.as_object().unwrap().iter();
    entries
        .map(|(privilege, expire)| (privilege.parse().unwrap(), number(expire)))
        .collect()
}

fn names(value: &Value) -> Vec<Vec<u8>> {
    let entries = value.as_array().unwrap().iter();
    entries.map(|name| text(name).into()).collect()
}

/// A service out of the vector's own description of it.
fn described(service: &Value) -> AgoraService {
    let field = |name: &str| Vec::from(text(&service[name]));
    let kind = match text(&service["name"]) {
        "rtc" => ServiceKind::Rtc {
            channel: field("channelName"),
            uid: field("uid"),
        },
        "rtm" => ServiceKind::Rtm {
            user: field("userId"),
        },
        "streaming" => ServiceKind::Streaming {
            channel: field("channelName"),
            account: field("account"),
        },
        "fpa" => ServiceKind::Fpa,
        "chat" => ServiceKind::Chat {
            user: field("userId"),
        },
        "fcdn" => ServiceKind::Fcdn {
            channel: field("channelName"),
            account: field("account"),
        },
        "apaas" => ServiceKind::Apaas {
            room: field("roomUuid"),
            user: field("userUuid"),
            role: i16::try_from(service["role"].as_i64().unwrap()).unwrap(),
        },
        "rtm2" => {
            let mut permissions = Permissions::new();
            for entry in service["permissions"].as_array().unwrap() {
                let of_type = permissions
                    .entry(small(&entry["resourceType"]))
                    .or_default();
                of_type.insert(small(&entry["permissionType"]), names(&entry["resources"]));
            }
            ServiceKind::Rtm2 {
                user: field("userId"),
                permissions,
            }
        }
        "convoai" => ServiceKind::ConvoAi,
        "stt" => ServiceKind::Stt,
        other => panic!("no service {other}"),
    };
    AgoraService {
        privileges: privileges(&service["privileges"]),
        kind,
    }
}

/// The services that renewd's own constructors make of the arguments of the builder that the vector names; `None` where
/// they make none of that builder's services.
fn built(vector: &Value) -> Option<Vec<AgoraService>> {
    let args = &vector["args"];
    let at = |index: usize| args.get(index).map_or(0, number);
    let rtc = |expire| AgoraService::rtc(text(&args[0]), user(&args[1]), role(&args[2]), expire);
    Some(match text(&vector["builder"]) {
        "RtcTokenBuilder.buildTokenWithUid" | "RtcTokenBuilder.buildTokenWithUserAccount" => {
            vec![rtc(at(4))]
        }
        "RtcTokenBuilder.buildTokenWithRtm" => {
            vec![rtc(at(4)), AgoraService::rtm(text(&args[1]), at(3))]
        }
        "RtmTokenBuilder.buildToken" => vec![AgoraService::rtm(text(&args[0]), at(1))],
        "ChatTokenBuilder.buildUserToken" => vec![AgoraService::chat_user(text(&args[0]), at(1))],
        _ => return None,
    })
}

fn access_token2(vector: &Value, services: Vec<AgoraService>) -> AccessToken2 {
    AccessToken2 {
        issued_at: number(&vector["issueTs"]),
        expire: number(&vector["expire"]),
        salt: number(&vector["salt"]),
        services,
    }
}

fn described_services(vector: &Value) -> Vec<AgoraService> {
    vector["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(described)
        .collect()
}

/// The inflated bytes of a 007 token, in hexadecimal.
fn payload(token: &str) -> String {
    let stream = STANDARD.decode(token.strip_prefix("007").unwrap()).unwrap();
    let mut content = Vec::new();
    std::io::copy(&mut ZlibDecoder::new(&stream[..]), &mut content).unwrap();
    let mut hexadecimal = String::new();
    for byte in content {
        write!(hexadecimal, "{byte:02x}").unwrap();
    }
    hexadecimal
}

fn held_against<'a>(now: u64, certificate: &'a Secret, vector: &'a Value) -> Expected<'a> {
    Expected {
        now,
        certificate: Some(certificate),
        app_id: vector["appId"].as_str(),
        channel: None,
        user: None,
    }
}

#[test]
fn every_007_vector_is_rebuilt_from_its_services() {
    check_each(&vectors("v007", 78), |vector| {
        // Handed over backwards: the builder sorts by type, and keeps the order within a type.
        let mut services = described_services(vector);
        if services
            .iter()
            .filter(|service| service.kind.number() == 1)
            .count()
            < 2
        {
            services.reverse();
        }
        let token = access_token2(vector, services).build(&signer(vector).unwrap());
        let token = token.map_err(|error| error.to_string())?;
        equal(
            "payload",
            payload(&token).as_str(),
            text(&vector["payloadHex"]),
        )
    });
}

#[test]
fn the_007_services_that_are_minted_equal_agoras_for_the_same_arguments() {
    let vectors = vectors("v007", 78);
    check_each(&vectors, |vector| {
        let Some(services) = built(vector) else {
            return Ok(());
        };
        let token = access_token2(vector, services).build(&signer(vector).unwrap());
        let token = token.map_err(|error| error.to_string())?;
        equal(
            "payload",
            payload(&token).as_str(),
            text(&vector["payloadHex"]),
        )
    });
    let through_builders = vectors.iter().filter(|vector| built(vector).is_some());
    assert_eq!(through_builders.count(), 46);
}

#[test]
fn the_ordinary_007_token_of_the_hot_path_equals_its_vectors() {
    let ordinary: Vec<Value> = vectors("v007", 78)
        .into_iter()
        .filter(|vector| {
            let expire = &vector["expire"];
            text(&vector["builder"]).starts_with("RtcTokenBuilder.buildTokenWithU")
                && !text(&vector["builder"]).ends_with("AndPrivilege")
                && vector["args"].get(4) == Some(expire)
        })
        .collect();
    assert!(ordinary.len() >= 20, "{}", ordinary.len());
    check_each(&ordinary, |vector| {
        let signer = signer(vector).unwrap();
        let grant = RtcGrant {
            channel: text(&vector["args"][0]),
            user: user(&vector["args"][1]),
            role: role(&vector["args"][2]),
            lifetime: number(&vector["expire"]),
            issued_at: number(&vector["issueTs"]),
            salt: number(&vector["salt"]),
        };
        let token = access_token2::rtc_token(&signer, &grant).unwrap();
        equal(
            "payload",
            payload(&token).as_str(),
            text(&vector["payloadHex"]),
        )?;
        let general = access_token2(vector, described_services(vector)).build(&signer);
        equal("the general builder's token", &Ok(token), &general)
    });
}

#[test]
fn every_007_vector_is_read_back_verified_and_described() {
    check_each(&vectors("v007", 78), |vector| {
        let certificate = certificate(vector);
        let now = u64::from(number(&vector["issueTs"]));
        let report = inspect(
            text(&vector["token"]),
            &held_against(now, &certificate, vector),
        );
        equal("signature", &report.signature, &SignatureCheck::Valid)?;
        for field in ["appId", "issueTs", "expire", "salt"] {
            equal(field, &report.token[field], &vector[field])?;
        }
        // The privileges' names stand beside the report of Agora's package.
        let mut services = report.token["services"].clone();
        for service in services.as_array_mut().unwrap() {
            let names = service.as_object_mut().unwrap().remove("privilegeNames");
            let names = names.unwrap().as_array().unwrap().len();
            let privileges = service["privileges"].as_object().unwrap().len();
            equal("privilegeNames", &names, &privileges)?;
        }
        equal("services", &services, &vector["services"])
    });
}

#[test]
fn every_006_vector_is_rebuilt_as_the_same_string() {
    check_each(&vectors("v006", 26), |vector| {
        let token = AccessToken {
            channel: text(&vector["channelName"]).to_owned(),
            uid: text(&vector["uid"]).to_owned(),
            salt: number(&vector["salt"]),
            expires_at: number(&vector["ts"]),
            privileges: privileges(&vector["privileges"]),
        };
        let token = token.build(&signer(vector).unwrap()).unwrap();
        equal("token", token.as_str(), text(&vector["token"]))
    });
}

#[test]
fn the_ordinary_006_token_of_the_hot_path_equals_its_vectors() {
    let ordinary: Vec<Value> = vectors("v006", 26)
        .into_iter()
        .filter(|vector| {
            text(&vector["builder"]).starts_with("RtcTokenBuilder")
                && number(&vector["args"][3]) > 0
        })
        .collect();
    assert!(ordinary.len() >= 20, "{}", ordinary.len());
    check_each(&ordinary, |vector| {
        let now = number(&vector["now"]);
        let Some(lifetime) = number(&vector["args"][3]).checked_sub(now) else {
            return Ok(());
        };
        // 006 knows an attendee (0) and an administrator (101) too; both publish.
        let publishes = vector["privileges"].as_object().unwrap().len() == 4;
        let grant = RtcGrant {
            channel: text(&vector["args"][0]),
            user: user(&vector["args"][1]),
            role: if publishes {
                Role::Publisher
            } else {
                Role::Subscriber
            },
            lifetime,
            issued_at: now,
            salt: number(&vector["salt"]),
        };
        let token = access_token::rtc_token(&signer(vector).unwrap(), &grant).unwrap();
        equal("token", token.as_str(), text(&vector["token"]))
    });
}

#[test]
fn every_006_vector_is_read_back_verified_and_described() {
    check_each(&vectors("v006", 26), |vector| {
        let certificate = certificate(vector);
        let mut expected = held_against(number(&vector["now"]).into(), &certificate, vector);
        expected.channel = vector["channelName"].as_str();
        expected.user = vector["uid"].as_str().map(User::Account);
        let report = inspect(text(&vector["token"]), &expected);
        equal("signature", &report.signature, &SignatureCheck::Valid)?;
        for field in ["appId", "salt", "ts", "privileges", "crcChannel", "crcUid"] {
            equal(field, &report.token[field], &vector[field])?;
        }
        Ok(())
    });
}

#[test]
fn every_invalid_vector_is_refused_with_its_reason() {
    let reasons = BTreeMap::from([
        ("dev-bad-wrong-cert", "signature_invalid"),
        ("dev-bad-flip-signature", "signature_invalid"),
        ("dev-bad-flip-expire", "signature_invalid"),
        ("dev-bad-flip-appid", "signature_invalid"),
        ("dev-bad-flip-last", "signature_invalid"),
        ("dev-bad-truncated", "truncated"),
        ("dev-bad-version-008", "bad_version"),
        ("dev-bad-empty", "empty"),
        ("dev-bad-only-version", "truncated"),
        ("dev-bad-not-base64", "bad_base64"),
        ("dev-refused-short-appid", "empty"),
        ("dev-refused-nonhex-cert", "empty"),
        ("dev-refused-empty-cert", "empty"),
        ("dev-refused-long-cert", "empty"),
    ]);
    check_each(&vectors("invalid", 14), |vector| {
        let certificate = certificate(vector);
        let mut expected = held_against(1_722_474_008, &certificate, vector);
        expected.app_id = None;
        let report = inspect(text(&vector["token"]), &expected);
        equal("accepted", &report.accepted, &Some(false))?;
        let reason = reasons[text(&vector["id"])];
        let found = report.problems.iter().any(|problem| problem.code == reason);
        equal(reason, &found, &true)?;
        let json = serde_json::to_value(&report).unwrap();
        equal("agoraError", &json["agoraError"], &json!(110))
    });
}

#[test]
fn what_agoras_builders_refuse_to_mint_is_refused_here() {
    let refused: Vec<Value> = vectors("invalid", 14)
        .into_iter()
        .filter(|vector| vector["refused"] == true)
        .collect();
    assert_eq!(refused.len(), 4);
    check_each(&refused, |vector| {
        let wanted = if text(&vector["id"]).contains("appid") {
            BuildError::AppId
        } else {
            BuildError::Certificate
        };
        equal("error", &signer(vector).err(), &Some(wanted))
    });
}
