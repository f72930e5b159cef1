//! Why Agora would refuse a token, and what else is odd about it.
//!
//! Keeps true: a report never holds the token, its signature or a certificate; a token is called accepted only if
//! its signature was checked.
//! Must not know: where the token came from, or how to mend it.
//!
//! Agora's errors: <https://docs.agora.io/en/help/integration-issues/token_related_issues>.

mod describe;
mod findings;
mod legacy;
mod names;
mod privileges;
mod repair;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use describe::describe;
use findings::InspectFindings;
use repair::repair;

use super::User;
use super::parse::{Parsed, parse};
use crate::config::secret::Secret;
use crate::terms::timestamp;

/// The values that the token is compared with. Absent ones aren't checked.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Unix seconds.
    pub now: u64,
    /// The certificate that should have signed it.
    pub certificate: Option<&'a Secret>,
    /// The project that the client was set up with.
    pub app_id: Option<&'a str>,
    /// The channel that the client joins.
    pub channel: Option<&'a str>,
    /// The user as which the client joins.
    pub user: Option<User<&'a str>>,
}

/// An error of Agora's SDK, numbered as in
/// <https://api-ref.agora.io/en/voice-sdk/ios/3.x/Constants/AgoraErrorCode.html> and in `ERROR_CODE_TYPE` of its C++
/// headers (`ERR_INVALID_CHANNEL_NAME`, `ERR_INVALID_USER_ACCOUNT`), 3.x and 4.x alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgoraError {
    /// 109.
    TokenExpired,
    /// 110.
    InvalidToken,
    /// 102: the channel's name, before any token is looked at.
    InvalidChannelName,
    /// 134: the string account, before any token is looked at.
    InvalidUserAccount,
}

impl AgoraError {
    /// The SDK's number.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::TokenExpired => 109,
            Self::InvalidToken => 110,
            Self::InvalidChannelName => 102,
            Self::InvalidUserAccount => 134,
        }
    }

    /// Which of several is told: an invalid token before an expired one, and both before a name.
    fn weight(self) -> u8 {
        match self {
            Self::InvalidToken => 3,
            Self::TokenExpired => 2,
            Self::InvalidChannelName | Self::InvalidUserAccount => 1,
        }
    }
}

impl Serialize for AgoraError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.code())
    }
}

/// Whether the certificate given signed the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureCheck {
    /// The certificate signed it.
    Valid,
    /// The certificate didn't sign it.
    Invalid,
    /// No certificate, no token, or a 006 without its channel and uid.
    #[default]
    NotChecked,
}

/// One thing to know about the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenProblem {
    /// A stable name for programs.
    pub code: &'static str,
    /// Agora's answer because of it; `None` if Agora accepts the token all the same.
    pub agora_error: Option<AgoraError>,
    /// A sentence for the reader.
    pub message: String,
}

/// The outcome of an inspection.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectReport {
    /// Whether Agora takes it; `None` where nothing speaks against it and its signature wasn't checked.
    pub accepted: Option<bool>,
    /// Agora's answer: an invalid token before an expired one.
    pub agora_error: Option<AgoraError>,
    /// The signature's state.
    pub signature: SignatureCheck,
    /// When Agora ends it, the 24-hour cap and the join privilege considered; RFC 3339.
    pub expires_at: Option<String>,
    /// Seconds until then; 0 if past.
    pub expires_in: Option<u64>,
    /// Everything found, those that refuse it first.
    pub problems: Vec<TokenProblem>,
    /// The token's content; empty if it can't be read.
    #[serde(flatten)]
    pub token: Map<String, Value>,
}

/// Reads a token and says what Agora would. What pasting did to it is undone first, where that is certain, and told.
pub fn inspect(pasted: &str, expected: &Expected<'_>) -> InspectReport {
    let repaired = repair(pasted);
    let mut findings = InspectFindings {
        problems: repaired.found,
        ..InspectFindings::default()
    };
    let parsed = parse(&repaired.token);
    let expiry = match &parsed {
        Err(error) => {
            findings.invalid(error.code(), error.to_string());
            None
        }
        Ok(parsed) => {
            findings.judge_app_id(parsed.app_id(), expected.app_id);
            Some(match parsed {
                Parsed::V007(parsed) => findings.judge_007(parsed, expected),
                Parsed::V006(parsed) => findings.judge_006(parsed, expected),
            })
        }
    };
    if let Some(expiry) = expiry {
        findings.judge_expiry(expiry, expected.now);
    }
    let InspectFindings {
        mut problems,
        signature,
    } = findings;
    let errors = problems.iter().filter_map(|problem| problem.agora_error);
    let agora_error = errors.max_by_key(|error| error.weight());
    problems.sort_by_key(|problem| problem.agora_error.is_none());
    InspectReport {
        accepted: match (agora_error, signature) {
            (Some(_), _) => Some(false),
            (None, SignatureCheck::NotChecked) => None,
            (None, _) => Some(true),
        },
        agora_error,
        signature,
        expires_at: expiry.map(timestamp::from_seconds),
        expires_in: expiry.map(|expiry| expiry.saturating_sub(expected.now)),
        problems,
        token: parsed.as_ref().map(describe).unwrap_or_default(),
    }
}
