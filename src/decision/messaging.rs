//! The caller's id in RTM and chat, for tokens that open those too. Pure.
//!
//! Keeps true: the id comes from the verified JWT, never from the request; it names one user, and is neither empty
//! nor a wildcard.
//! Must not know: channels, roles.

use crate::agora::charset;
use crate::config::model::TokenConfig;
use crate::logins::jwt::{ClaimValue, JwtClaims};

/// The login has no id that Agora's messaging services accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMessagingId;

/// The caller's id; `None` where tokens open RTC alone.
pub(crate) fn id(
    token: &TokenConfig,
    claims: &JwtClaims,
) -> Result<Option<Box<str>>, NoMessagingId> {
    if !token.services.any() {
        return Ok(None);
    }
    let id = if token.messaging_id_claim.is_empty() {
        claims.subject.clone()
    } else {
        let claim = claims.member(&token.messaging_id_claim);
        let id = claim.and_then(ClaimValue::identifier);
        id.ok_or(NoMessagingId)?.into()
    };
    match charset::messaging_id(&id) {
        Ok(()) => Ok(Some(id)),
        Err(_) => Err(NoMessagingId),
    }
}
