//! A token request's body, read: channel, user, role. Pure.
//!
//! Keeps true: what this returns is within Agora's character sets and ranges; every refusal names the field and says
//! what is accepted; nothing of the body is echoed.
//! Must not know: who asks, or whether they may.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::request_fields::{BodyFields, Value};
use crate::agora::charset;
use crate::http::media::{self, Media};
use crate::terms::role::Role;
use crate::terms::user::User;

/// The names of the channel.
pub(super) const CHANNEL: [&str; 3] = ["channelName", "channel", "channelId"];
/// The names of the string user account.
pub(super) const ACCOUNT: [&str; 2] = ["account", "userAccount"];
const ROLE_FLAGS: [&str; 2] = ["isBroadcaster", "isPublisher"];

/// Whether a token request has a field of this name.
pub(super) fn is_field(name: &str) -> bool {
    CHANNEL.contains(&name)
        || ACCOUNT.contains(&name)
        || ROLE_FLAGS.contains(&name)
        || matches!(name, "uid" | "role")
}

/// The token that the caller asks for.
#[derive(Debug, PartialEq)]
pub struct TokenRequest {
    /// 1 to 64 bytes out of Agora's characters.
    pub channel: String,
    /// A uid (0 when none was given) or an account.
    pub user: User,
    /// `None`: `token.default_role` decides.
    pub role: Option<Role>,
}

/// Why a body can't be read.
#[derive(Debug, PartialEq)]
pub(crate) enum BadBody {
    /// 400: which field, and what is accepted.
    Invalid(String),
    /// 415: which types are accepted.
    MediaType(String),
}

/// Reads a whole body under its headers.
pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<TokenRequest, BadBody> {
    let fields = match media_type(headers, body)? {
        Media::Json => BodyFields::from_json(body),
        Media::Form => BodyFields::from_form(body),
    };
    fields
        .and_then(|fields| interpret(&fields))
        .map_err(BadBody::Invalid)
}

fn media_type(headers: &HeaderMap, body: &[u8]) -> Result<Media, BadBody> {
    let encoded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let bare = body.is_empty() && !headers.contains_key(CONTENT_TYPE);
    match media::of(headers) {
        Some(media) if !encoded => Ok(media),
        // Nothing was sent: the error is about the missing field rather than the missing type.
        None if bare && !encoded => Ok(Media::Form),
        _ => Err(BadBody::MediaType(
            "Content-Type: must be application/json or application/x-www-form-urlencoded, in UTF-8 and not compressed"
                .to_owned(),
        )),
    }
}

/// A token request from its fields; the error names one and says what is accepted.
pub(super) fn interpret(fields: &BodyFields) -> Result<TokenRequest, String> {
    let channel = text(fields, &CHANNEL)?.ok_or("channelName: required, the channel to join")?;
    charset::channel_name(channel).map_err(|error| format!("channelName: {error}"))?;
    Ok(TokenRequest {
        channel: channel.to_owned(),
        user: user(fields)?,
        role: role(fields)?,
    })
}

/// The one value of a field and its aliases.
pub(super) fn text<'a>(fields: &'a BodyFields, names: &[&str]) -> Result<Option<&'a str>, String> {
    let mut agreed: Option<(&str, &'a str)> = None;
    for name in names {
        match (fields.get(name), agreed) {
            (None, _) => {}
            (Some(Value::Text(value)), None) => agreed = Some((name, value)),
            (Some(Value::Text(value)), Some((_, known))) if value == known => {}
            (Some(Value::Text(_)), Some((known, _))) => return Err(disagree(name, known)),
            (Some(_), _) => return Err(format!("{name}: must be a string")),
        }
    }
    Ok(agreed.map(|(_, value)| value))
}

fn disagree(one: &str, other: &str) -> String {
    format!("{one}: disagrees with {other}; send one of them")
}

/// The uid (0 where none is given) or the account.
pub(super) fn user(fields: &BodyFields) -> Result<User, String> {
    let account = text(fields, &ACCOUNT)?;
    let uid = fields.get("uid");
    match (account, uid) {
        (Some(_), Some(_)) => Err("account: send either account or uid, not both".to_owned()),
        (Some(account), None) => {
            charset::user_account(account).map_err(|error| format!("account: {error}"))?;
            Ok(User::Account(account.into()))
        }
        (None, None) => Ok(User::Uid(0)),
        (None, Some(value)) => number(value)
            .and_then(unsigned)
            .map(User::Uid)
            .ok_or_else(|| {
                "uid: must be an integer from 0 to 4294967295, as a number or in digits".to_owned()
            }),
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Text(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let only_digits =
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            only_digits.then(|| text.parse().ok()).flatten()
        }
        Value::Bool(_) | Value::Number | Value::Compound => None,
    }
}

/// Agora's uids are unsigned; its Java SDK shows those of the upper half as negative numbers.
fn unsigned(number: i64) -> Option<u32> {
    u32::try_from(number)
        .ok()
        .or_else(|| i32::try_from(number).ok().map(i32::cast_unsigned))
}

fn role(fields: &BodyFields) -> Result<Option<Role>, String> {
    let mut agreed = None;
    if let Some(value) = fields.get("role") {
        let role = named_role(value).ok_or(
            "role: must be publisher (broadcaster, host, 1) or subscriber (audience, viewer, 2)",
        )?;
        agreed = Some(("role", role));
    }
    for name in ROLE_FLAGS {
        let publishes = match fields.get(name) {
            None => continue,
            Some(Value::Bool(publishes)) => *publishes,
            Some(Value::Text(text)) if text == "true" => true,
            Some(Value::Text(text)) if text == "false" => false,
            Some(_) => return Err(format!("{name}: must be true or false")),
        };
        let role = if publishes {
            Role::Publisher
        } else {
            Role::Subscriber
        };
        match agreed {
            Some((known, other)) if other != role => return Err(disagree(name, known)),
            _ => agreed = Some((name, role)),
        }
    }
    Ok(agreed.map(|(_, role)| role))
}

fn named_role(value: &Value) -> Option<Role> {
    match value {
        Value::Integer(1) => Some(Role::Publisher),
        Value::Integer(2) => Some(Role::Subscriber),
        Value::Text(name) => match name.as_str() {
            "publisher" | "broadcaster" | "host" | "1" => Some(Role::Publisher),
            "subscriber" | "audience" | "viewer" | "2" => Some(Role::Subscriber),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn json(body: &str) -> Result<TokenRequest, BadBody> {
        typed("application/json", body)
    }

    fn typed(content_type: &'static str, body: &str) -> Result<TokenRequest, BadBody> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        read(&headers, body.as_bytes())
    }

    fn invalid(body: &str) -> String {
        match json(body) {
            Err(BadBody::Invalid(message)) => message,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn uid(written: &str) -> Option<User> {
        json(&format!(r#"{{"channelName":"a","uid":{written}}}"#))
            .ok()
            .map(|request| request.user)
    }

    #[test]
    fn the_current_apps_body_is_read() {
        assert_eq!(
            json(r#"{"channelName":"live_65f","uid":77,"role":"publisher"}"#),
            Ok(TokenRequest {
                channel: "live_65f".to_owned(),
                user: User::Uid(77),
                role: Some(Role::Publisher)
            })
        );
        assert_eq!(
            json(r#"{"channelName":"live_65f","isBroadcaster":false,"extra":{"a":[1]}}"#),
            Ok(TokenRequest {
                channel: "live_65f".to_owned(),
                user: User::Uid(0),
                role: Some(Role::Subscriber)
            })
        );
    }

    #[test]
    fn a_form_is_read_like_json() {
        assert_eq!(
            typed(
                "application/x-www-form-urlencoded; charset=UTF-8",
                "channelName=live+x&uid=077&isPublisher=true"
            ),
            Ok(TokenRequest {
                channel: "live x".to_owned(),
                user: User::Uid(77),
                role: Some(Role::Publisher)
            })
        );
    }

    #[test]
    fn uids_are_read_as_agora_reads_them() {
        for (written, read) in [
            ("0", 0),
            ("null", 0),
            ("\"0\"", 0),
            ("\"000\"", 0),
            ("\"-0\"", 0),
            ("77", 77),
            ("\"77\"", 77),
            ("77.0", 77),
            ("4294967295", u32::MAX),
            ("-1", u32::MAX),
            ("-2147483648", 1 << 31),
            ("\"-1\"", u32::MAX),
        ] {
            assert_eq!(uid(written), Some(User::Uid(read)), "{written}");
        }
        for written in [
            "4294967296",
            "-2147483649",
            "7.5",
            "\"\"",
            "\"7a\"",
            "\"+7\"",
            "\" 7\"",
            "true",
            "[7]",
            "{\"$gt\":0}",
            "1e300",
            "\"-\"",
            "18446744073709551615",
            "\"99999999999999999999\"",
        ] {
            assert_eq!(uid(written), None, "{written}");
        }
    }

    #[test]
    fn aliases_must_agree() {
        assert!(json(r#"{"channelName":"a","channel":"a","channelId":"a"}"#).is_ok());
        assert_eq!(
            invalid(r#"{"channelName":"a","channelId":"b"}"#),
            "channelId: disagrees with channelName; send one of them"
        );
        assert_eq!(
            invalid(r#"{"channel":"a","role":"host","isBroadcaster":false}"#),
            "isBroadcaster: disagrees with role; send one of them"
        );
        assert_eq!(
            invalid(r#"{"channel":"a","isBroadcaster":true,"isPublisher":false}"#),
            "isPublisher: disagrees with isBroadcaster; send one of them"
        );
    }

    #[test]
    fn objects_and_wildcards_are_refused() {
        assert_eq!(
            invalid(r#"{"channelName":{"$ne":null}}"#),
            "channelName: must be a string"
        );
        assert_eq!(
            invalid(r#"{"channelName":["a"]}"#),
            "channelName: must be a string"
        );
        assert_eq!(
            invalid(r#"{"channelName":7}"#),
            "channelName: must be a string"
        );
        assert!(invalid(r#"{"channelName":""}"#).starts_with("channelName: "));
        assert!(invalid(r#"{"channelName":"*"}"#).starts_with("channelName: "));
        assert!(invalid(r#"{"channelName":"a","account":"a*"}"#).starts_with("account: "));
        assert!(invalid(r#"{"channelName":"a","account":""}"#).starts_with("account: "));
        assert!(invalid(r#"{"channelName":"a","account":"123"}"#).starts_with("account: "));
        assert_eq!(invalid("{}"), "channelName: required, the channel to join");
    }

    #[test]
    fn an_account_excludes_a_uid() {
        assert_eq!(
            json(r#"{"channelName":"a","userAccount":"ann"}"#)
                .unwrap()
                .user,
            User::Account("ann".into())
        );
        assert_eq!(
            invalid(r#"{"channelName":"a","account":"ann","uid":7}"#),
            "account: send either account or uid, not both"
        );
    }

    #[test]
    fn roles_have_agoras_names_and_numbers() {
        let role = |written: &str| {
            json(&format!(r#"{{"channelName":"a","role":{written}}}"#)).map(|request| request.role)
        };
        for written in ["\"publisher\"", "\"broadcaster\"", "\"host\"", "\"1\"", "1"] {
            assert_eq!(role(written), Ok(Some(Role::Publisher)), "{written}");
        }
        for written in ["\"subscriber\"", "\"audience\"", "\"viewer\"", "\"2\"", "2"] {
            assert_eq!(role(written), Ok(Some(Role::Subscriber)), "{written}");
        }
        assert_eq!(role("null"), Ok(None));
        for written in ["\"admin\"", "0", "3", "true", "\"\"", "[\"host\"]"] {
            assert!(role(written).is_err(), "{written}");
        }
    }

    #[test]
    fn other_media_types_are_refused_by_name() {
        for content_type in [
            "text/plain",
            "multipart/form-data",
            "application/json; charset=utf-16",
            "application/jsonp",
            "",
        ] {
            assert!(
                matches!(typed(content_type, "{}"), Err(BadBody::MediaType(_))),
                "{content_type}"
            );
        }
        assert!(matches!(
            read(&HeaderMap::new(), b"{}"),
            Err(BadBody::MediaType(_))
        ));
        assert_eq!(
            read(&HeaderMap::new(), b""),
            Err(BadBody::Invalid(
                "channelName: required, the channel to join".to_owned()
            ))
        );
        let mut compressed = HeaderMap::new();
        compressed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        compressed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(matches!(
            read(&compressed, b"{}"),
            Err(BadBody::MediaType(_))
        ));
    }
}
