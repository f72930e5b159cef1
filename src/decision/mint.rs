//! A granted request as token bytes.

use super::order::Grant;
use super::request::TokenRequest;
use crate::agora::access_token2::AccessToken2;
use crate::agora::service::AgoraService;
use crate::agora::{self, BuildError, RtcGrant, Signer};
use crate::config::model::TokenConfig;

/// What the tokens of one grant have in common.
#[derive(Debug)]
pub(crate) struct GrantTerms<'a> {
    /// Format and services.
    pub config: &'a TokenConfig,
    /// Signs.
    pub signer: &'a Signer,
    /// Channel and user.
    pub request: &'a TokenRequest,
    /// Role and messaging id.
    pub grant: &'a Grant,
    /// Unix seconds.
    pub issued_at: u64,
}

impl GrantTerms<'_> {
    /// A token for `lifetime` seconds, all its privileges with it. `salt`: another for each token.
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
