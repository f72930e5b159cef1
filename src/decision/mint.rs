//! A granted request as token bytes.
//!
//! Must not know: why the request was granted.

use super::order::Grant;
use super::request::TokenRequest;
use crate::agora::access_token2::AccessToken2;
use crate::agora::service::AgoraService;
use crate::agora::{self, BuildError, RtcGrant, Signer};
use crate::config::model::TokenConfig;

/// The values that the tokens of one grant have in common.
#[derive(Debug)]
pub(crate) struct GrantTerms<'a> {
    /// The configured format and services.
    pub config: &'a TokenConfig,
    /// The project's key.
    pub signer: &'a Signer,
    /// The channel and the user.
    pub request: &'a TokenRequest,
    /// The role and the messaging id.
    pub grant: &'a Grant,
    /// When the tokens are issued, in Unix seconds.
    pub issued_at: u64,
}

impl GrantTerms<'_> {
    /// A token that lives for `lifetime` seconds, with all its privileges. `salt` differs from token to token.
    pub(crate) fn token(&self, lifetime: u32, salt: u32) -> Result<String, BuildError> {
        let user = self.request.user.borrowed();
        let channel = self.request.channel.as_str();
        // Agora's format ends in 2106.
        let issued_at = u32::try_from(self.issued_at).unwrap_or(u32::MAX);
        let role = self.grant.role;
        let Some(id) = &self.grant.messaging_id else {
            let grant = RtcGrant {
                channel,
                user,
                role,
                lifetime,
                issued_at,
                salt,
            };
            return agora::rtc_token(self.config.format, self.signer, &grant);
        };
        let mut services = vec![AgoraService::rtc(channel, user, role, lifetime)];
        if self.config.services.rtm {
            services.push(AgoraService::rtm(id, lifetime));
        }
        if self.config.services.chat {
            services.push(AgoraService::chat_user(id, lifetime));
        }
        let token = AccessToken2 {
            issued_at,
            expire: lifetime,
            salt,
            services,
        };
        token.build(self.signer)
    }
}
