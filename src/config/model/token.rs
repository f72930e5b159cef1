//! `[agora]` and `[token]`: the project, and how its tokens are made.

use std::time::Duration;

use super::AgoraRest;
use crate::agora::TokenFormat;
use crate::config::secret::Secret;

/// `[agora]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agora {
    /// 32 hexadecimal digits.
    pub app_id: String,
    /// Mints and verifies; 32 hexadecimal digits.
    pub app_certificate: Secret,
    /// The certificate before the present one: verifies only.
    pub previous_certificate: Option<Secret>,
    /// The decoy that the backend mints with: verifies only.
    pub backend_certificate: Option<Secret>,
    /// `[agora.rest]`: how revoked users are removed from channels; `None` where none is configured.
    pub rest: Option<AgoraRest>,
}

/// `[token]`. Durations are whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// 1 min to 24 h.
    pub lifetime: Duration,
    /// At most half the lifetime.
    pub refresh_before: Duration,
    /// The most by which a token's lifetime is shortened at random; at most half the lifetime.
    pub jitter: Duration,
    /// How much longer than its token a backup token lives; zero is off. With any lifetime, at most 24 h.
    pub backup: Duration,
    /// The services that a token opens besides RTC.
    pub services: Services,
    /// The claim with the user's id in RTM and chat; empty is the subject.
    pub messaging_id_claim: String,
    /// `[[token.tier]]`, in order: the first that matches a login applies.
    pub tiers: Vec<Tier>,
    /// The token format.
    pub format: TokenFormat,
    /// The role that an absent `role` stands for.
    pub default_role: DefaultRole,
    /// Whether uid 0 is served.
    pub zero_uid: ZeroUid,
}

/// `token.services`, beside `"rtc"`, which is always among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// `"rtm"`: signaling.
    pub rtm: bool,
    /// `"chat"`.
    pub chat: bool,
}

impl Services {
    /// Whether a token holds more than RTC, and so needs a messaging id. Never in format 006.
    pub(crate) fn any(self) -> bool {
        self.rtm || self.chat
    }
}

/// One `[[token.tier]]`: other times for logins with this claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The claim's name, never empty.
    pub claim: String,
    /// The value that the claim must have, or contain.
    pub value: String,
    /// In place of `token.lifetime`, within the same bounds.
    pub lifetime: Option<Duration>,
    /// In place of `policy.max_session`; zero is no limit.
    pub max_session: Option<Duration>,
}

/// `token.default_role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultRole {
    /// Publisher for the stream's owner or co-host, else subscriber.
    Auto,
    /// Always publisher.
    Publisher,
    /// Always subscriber.
    Subscriber,
}

/// `token.zero_uid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroUid {
    /// The request is answered with 400.
    Reject,
    /// Minted: a token that anyone may use.
    Allow,
}
