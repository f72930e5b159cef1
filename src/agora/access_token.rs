//! AccessToken, version 006 (legacy): `006` + App ID + base64(signature, CRCs of channel and uid, salt, time,
//! privileges).
//!
//! Keeps true: equal to Agora's own builders, string for string. Every time in it is absolute.
//! Must not know: services; 006 has one, and the privilege numbers tell which.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac as _;

use super::packing::{put_bytes, put_privileges, put_u32};
use super::signer::Signer;
use super::{BuildError, LONGEST_LIFETIME, RtcGrant, rtc_privileges};

/// The version that the token starts with.
pub(crate) const VERSION: &str = "006";

/// The privilege of an RTM login, whose account stands where the channel does.
pub(crate) const RTM_LOGIN: u16 = 1000;

/// A token before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// The channel; in an RTM token the account.
    pub channel: String,
    /// The user as tokens spell it: empty for uid 0 and in an RTM token.
    pub uid: String,
    /// Any number.
    pub salt: u32,
    /// When the token as a whole ends, Unix seconds; Agora's builders write 24 hours after now.
    pub expires_at: u32,
    /// Privilege number to Unix seconds; 0 is "never".
    pub privileges: BTreeMap<u16, u32>,
}

impl AccessToken {
    /// Signs and encodes it.
    pub fn build(&self, signer: &Signer) -> Result<String, BuildError> {
        let (channel, uid) = (self.channel.as_bytes(), self.uid.as_bytes());
        let privileges = self
            .privileges
            .iter()
            .map(|(number, expiry)| (*number, *expiry));
        seal(
            signer,
            channel,
            uid,
            &message(self.salt, self.expires_at, privileges)?,
        )
    }
}

/// Mints an ordinary RTC token: the same string as Agora's `buildTokenWithUid` with `issued_at + lifetime`.
pub fn rtc_token(signer: &Signer, grant: &RtcGrant<'_>) -> Result<String, BuildError> {
    let expiry = grant.issued_at.saturating_add(grant.lifetime);
    let expires_at = grant.issued_at.saturating_add(LONGEST_LIFETIME);
    let privileges = rtc_privileges(grant.role)
        .iter()
        .map(|number| (*number, expiry));
    let message = message(grant.salt, expires_at, privileges)?;
    let mut digits = [0; 10];
    seal(
        signer,
        grant.channel.as_bytes(),
        grant.user.spelled(&mut digits),
        &message,
    )
}

fn message(
    salt: u32,
    expires_at: u32,
    privileges: impl ExactSizeIterator<Item = (u16, u32)>,
) -> Result<Vec<u8>, BuildError> {
    let mut message = Vec::with_capacity(10 + 6 * privileges.len());
    put_u32(&mut message, salt);
    put_u32(&mut message, expires_at);
    put_privileges(&mut message, privileges)?;
    Ok(message)
}

fn seal(signer: &Signer, channel: &[u8], uid: &[u8], message: &[u8]) -> Result<String, BuildError> {
    let signature = signer
        .legacy()
        .chain_update(signer.app_id())
        .chain_update(channel)
        .chain_update(uid)
        .chain_update(message)
        .finalize()
        .into_bytes();
    let mut content = Vec::with_capacity(44 + message.len());
    put_bytes(&mut content, &signature)?;
    put_u32(&mut content, crc32fast::hash(channel));
    put_u32(&mut content, crc32fast::hash(uid));
    put_bytes(&mut content, message)?;

    let mut token = String::with_capacity(VERSION.len() + 32 + content.len().div_ceil(3) * 4);
    token.push_str(VERSION);
    token.push_str(signer.app_id());
    STANDARD.encode_string(content, &mut token);
    Ok(token)
}
