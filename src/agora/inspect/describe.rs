//! A parsed token as JSON, under the names that Agora's packages use.
//!
//! Must not know: whether the token is any good (`inspect`). Never shows a signature: with the rest it is the token.

use serde_json::{Map, Value, json};

use super::legacy::LegacyKind;
use super::privileges;
use crate::agora::legacy_user::numeric_users;
use crate::agora::parse::{Parsed, Parsed006, Parsed007};
use crate::agora::service::{AgoraService, Permissions, ServiceKind};
use crate::agora::{access_token, access_token2};
use crate::terms::timestamp;

/// Everything the token says.
pub(super) fn describe(parsed: &Parsed) -> Map<String, Value> {
    match parsed {
        Parsed::V007(parsed) => describe_007(parsed),
        Parsed::V006(parsed) => describe_006(parsed),
    }
}

fn describe_007(parsed: &Parsed007) -> Map<String, Value> {
    let token = &parsed.token;
    Map::from_iter([
        ("format".to_owned(), json!(access_token2::VERSION)),
        ("appId".to_owned(), json!(parsed.app_id)),
        ("issueTs".to_owned(), json!(token.issued_at)),
        (
            "issuedAt".to_owned(),
            json!(timestamp::from_seconds(token.issued_at.into())),
        ),
        ("expire".to_owned(), json!(token.expire)),
        ("salt".to_owned(), json!(token.salt)),
        (
            "services".to_owned(),
            token.services.iter().map(service).collect(),
        ),
    ])
}

fn describe_006(parsed: &Parsed006) -> Map<String, Value> {
    let kind = LegacyKind::of(&parsed.privileges);
    let names = parsed
        .privileges
        .keys()
        .map(|number| privileges::legacy(*number));
    let mut fields = Map::from_iter([
        ("format".to_owned(), json!(access_token::VERSION)),
        ("appId".to_owned(), json!(parsed.app_id)),
        ("ts".to_owned(), json!(parsed.expires_at)),
        ("salt".to_owned(), json!(parsed.salt)),
        ("kind".to_owned(), json!(kind.as_str())),
        ("privileges".to_owned(), json!(parsed.privileges)),
        ("privilegeNames".to_owned(), names.collect()),
        ("crcChannel".to_owned(), json!(parsed.channel_crc)),
        ("crcUid".to_owned(), json!(parsed.uid_crc)),
    ]);
    if kind == LegacyKind::Rtc {
        fields.insert("uids".to_owned(), uids(parsed.uid_crc));
    }
    fields
}

/// The numeric uids that a token's CRC fits, in order; 0 is anyone's.
fn uids(crc: u32) -> Value {
    let users = numeric_users(crc);
    let mut uids: Vec<u32> = users
        .iter()
        .filter_map(|user| match user.as_str() {
            "" => Some(0),
            digits => digits.parse().ok(),
        })
        .collect();
    uids.sort_unstable();
    uids.dedup();
    json!(uids)
}

fn service(service: &AgoraService) -> Value {
    let names = service.privileges.keys();
    let names = names.map(|number| privileges::of(&service.kind, *number));
    let mut fields = Map::from_iter([
        ("type".to_owned(), json!(service.kind.number())),
        ("name".to_owned(), json!(service.kind.name())),
        ("privileges".to_owned(), json!(service.privileges)),
        ("privilegeNames".to_owned(), names.collect()),
    ]);
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    match &service.kind {
        ServiceKind::Rtc { channel, uid } => {
            put("channelName", text(channel));
            put("uid", text(uid));
        }
        ServiceKind::Streaming { channel, account } | ServiceKind::Fcdn { channel, account } => {
            put("channelName", text(channel));
            put("account", text(account));
        }
        ServiceKind::Rtm { user } | ServiceKind::Chat { user } => {
            put("userId", text(user));
        }
        ServiceKind::Apaas { room, user, role } => {
            put("roomUuid", text(room));
            put("userUuid", text(user));
            put("role", json!(role));
        }
        ServiceKind::Rtm2 { user, permissions } => {
            put("userId", text(user));
            put("permissions", permission_list(permissions));
        }
        ServiceKind::Fpa | ServiceKind::ConvoAi | ServiceKind::Stt => {}
    }
    Value::Object(fields)
}

fn permission_list(permissions: &Permissions) -> Value {
    let entries = permissions
        .iter()
        .flat_map(|(resource_type, by_permission)| {
            by_permission
                .iter()
                .map(move |(permission_type, resources)| {
                    json!({
                        "resourceType": resource_type,
                        "permissionType": permission_type,
                        "resources": resources.iter().map(|name| text(name)).collect::<Value>(),
                    })
                })
        });
    entries.collect()
}

fn text(bytes: &[u8]) -> Value {
    json!(String::from_utf8_lossy(bytes))
}
