//! Token bytes: AccessToken2 (007), AccessToken (006) and what a foreign token says. Pure: no IO, no clock, no
//! randomness.
//!
//! Keeps true: equal to Agora's own builders (`tests/vectors/agora-tokens.json`), and no input makes it panic.
//! Must not know: for which request a token is, or whether it is allowed.
//!
//! | module | what |
//! |---|---|
//! | [`access_token2`], [`service`] | 007 tokens: the envelope, and what is in it |
//! | [`access_token`] | 006 tokens |
//! | [`signer`] | the project's keys, and the HMACs that every token needs |
//! | [`parse`], [`inspect`] | a token read back; why Agora would refuse it |
//! | [`reissue`] | a token of this project, issued anew for a shorter time |
//! | [`charset`] | which channel names and user accounts Agora takes |

pub mod access_token;
pub mod access_token2;
pub(crate) mod charset;
pub mod inspect;
mod legacy_user;
mod packing;
pub mod parse;
pub(crate) mod reissue;
pub mod service;
pub(crate) mod signer;

use crate::terms::labels::labels;
use crate::terms::role::Role;

pub use crate::terms::user::User;
pub use signer::Signer;

labels! {
    /// `token.format`.
    pub enum TokenFormat {
        /// AccessToken2.
        V007 => "007",
        /// Legacy AccessToken.
        V006 => "006",
    }
}

/// No token lives longer at Agora, whatever it says: 24 hours, in seconds
/// (<https://docs.agora.io/en/video-calling/token-authentication/deploy-token-server>).
pub(crate) const LONGEST_LIFETIME: u32 = 86_400;

impl<'a> User<&'a str> {
    /// The user as tokens spell it; `scratch` holds the digits of a uid.
    pub(crate) fn spelled<'b>(self, scratch: &'b mut [u8; 10]) -> &'b [u8]
    where
        'a: 'b,
    {
        let number = match self {
            Self::Account(account) => return account.as_bytes(),
            Self::Uid(0) => return b"",
            Self::Uid(number) => number,
        };
        let mut rest = number;
        let mut used = 0;
        for digit in scratch.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            used += 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        scratch.get(10 - used..).unwrap_or(b"")
    }

    /// The user as tokens spell it.
    pub(crate) fn to_text(self) -> String {
        String::from_utf8_lossy(self.spelled(&mut [0; 10])).into_owned()
    }
}

/// An ordinary RTC token: one user, one channel, every privilege of the role ending with the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcGrant<'a> {
    /// The channel's name; see [`charset::channel_name`].
    pub channel: &'a str,
    /// The user it is for; see [`charset::user_account`].
    pub user: User<&'a str>,
    /// Publishers get privileges 1 to 4, subscribers 1.
    pub role: Role,
    /// Seconds from `issued_at`, in both formats (006 stores the sum).
    pub lifetime: u32,
    /// Unix seconds.
    pub issued_at: u32,
    /// Any number; see `clock::Entropy::salt`.
    pub salt: u32,
}

/// Mints an ordinary RTC token in the format asked for.
pub fn rtc_token(
    format: TokenFormat,
    signer: &Signer,
    grant: &RtcGrant<'_>,
) -> Result<String, BuildError> {
    match format {
        TokenFormat::V007 => access_token2::rtc_token(signer, grant),
        TokenFormat::V006 => access_token::rtc_token(signer, grant),
    }
}

/// A token that can't be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Agora's builders return an empty string here.
    #[error("the App ID isn't 32 hexadecimal digits")]
    AppId,
    /// Agora's builders return an empty string here.
    #[error("the App Certificate isn't 32 hexadecimal digits")]
    Certificate,
    /// Agora's builders return an empty string here.
    #[error("a token needs at least one service")]
    NoServices,
    /// The format counts in 16 bits.
    #[error("a name or a list in the token is longer than 65535")]
    TooLong,
}

/// RTC privileges by their number; the SDK's `kPrivilege…` constants.
pub(crate) const JOIN_CHANNEL: u16 = 1;

/// Join, publish audio, publish video, publish data: a publisher has all four, a subscriber the first.
const RTC_PRIVILEGES: [u16; 4] = [JOIN_CHANNEL, 2, 3, 4];

/// The RTC privileges of a role, ascending.
pub(crate) fn rtc_privileges(role: Role) -> &'static [u16] {
    match role {
        Role::Publisher => &RTC_PRIVILEGES,
        Role::Subscriber => RTC_PRIVILEGES.split_at(1).0,
    }
}

/// Whether this is an App ID or App Certificate: 32 hexadecimal digits.
pub(crate) fn is_hex_id(text: &[u8]) -> bool {
    text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_spelled_in_digits_and_zero_is_empty() {
        for (uid, text) in [(0, ""), (1, "1"), (10, "10"), (u32::MAX, "4294967295")] {
            assert_eq!(User::Uid(uid).to_text(), text);
        }
        assert_eq!(User::Account("0").to_text(), "0");
    }
}
