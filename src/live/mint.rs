//! A granted request as token bytes.

use super::decision::Grant;
use super::request::TokenRequest;
use crate::access::sessions;
use crate::agora::{self, BuildError, RtcGrant, Signer};
use crate::config::model::TokenFormat;

/// The token for a granted request, issued at `issued_at` (Unix seconds).
pub fn token(
    format: TokenFormat,
    signer: &Signer,
    request: &TokenRequest,
    grant: Grant,
    issued_at: u64,
    salt: u32,
) -> Result<String, BuildError> {
    let user = match &request.user {
        sessions::User::Uid(uid) => agora::User::Uid(*uid),
        sessions::User::Account(account) => agora::User::Account(account),
    };
    let grant = RtcGrant {
        channel: &request.channel,
        user,
        role: grant.role,
        lifetime: grant.lifetime,
        // Agora's format ends in 2106.
        issued_at: u32::try_from(issued_at).unwrap_or(u32::MAX),
        salt,
    };
    agora::rtc_token(format, signer, &grant)
}
