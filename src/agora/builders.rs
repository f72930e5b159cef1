//! The combinations of services that Agora's own builders make, by their names.
//!
//! Keeps true: `AccessToken2` with these services equals what the builder of that name in `agora-token` 2.0.6 returns.
//! Builders of a single service are constructors of [`AgoraService`].

use std::fmt::Write as _;

use md5::{Digest as _, Md5};

use super::User;
use super::service::{AgoraService, Privileges, RtcLifetimes, ServiceKind};
use crate::terms::role::Role;

/// `RtcTokenBuilder.buildTokenWithRtm`: the RTM login lives as long as the token, whatever `privilege_expire` says.
pub fn rtc_and_rtm(
    channel: &str,
    account: &str,
    role: Role,
    token_expire: u32,
    privilege_expire: u32,
) -> Vec<AgoraService> {
    let user = User::Account(account);
    vec![
        AgoraService::rtc(channel, user, role, privilege_expire),
        AgoraService::rtm(account, token_expire),
    ]
}

/// Who and how long, for the builders that give RTC and RTM separate users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcAndRtm<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The RTC user.
    pub rtc_user: User<&'a str>,
    /// A subscriber's publish lifetimes are ignored.
    pub role: Role,
    /// Of the RTC privileges.
    pub lifetimes: RtcLifetimes,
    /// The RTM user.
    pub rtm_user: &'a str,
    /// Of the RTM login.
    pub rtm_expire: u32,
}

/// `RtcTokenBuilder.buildTokenWithRtm2`.
pub fn rtc_and_rtm2(of: &RtcAndRtm<'_>) -> Vec<AgoraService> {
    vec![
        AgoraService::rtc_with_lifetimes(of.channel, of.rtc_user, of.role, of.lifetimes),
        AgoraService::rtm(of.rtm_user, of.rtm_expire),
    ]
}

/// `ConvoAITokenBuilder.buildToken`.
pub fn convo_ai(of: &RtcAndRtm<'_>) -> Vec<AgoraService> {
    with_bare(of, ServiceKind::ConvoAi)
}

/// `SttTokenBuilder.buildToken`.
pub fn speech_to_text(of: &RtcAndRtm<'_>) -> Vec<AgoraService> {
    with_bare(of, ServiceKind::Stt)
}

fn with_bare(of: &RtcAndRtm<'_>, kind: ServiceKind) -> Vec<AgoraService> {
    let mut services = rtc_and_rtm2(of);
    services.push(AgoraService {
        privileges: Privileges::new(),
        kind,
    });
    services
}

/// `ApaasTokenBuilder.buildRoomUserToken`, and `EducationTokenBuilder`'s: the classroom, signaling and chat.
pub fn classroom_room_user(room: &str, user: &str, role: i16, expire: u32) -> Vec<AgoraService> {
    vec![
        classroom(room, user, role, Privileges::new()),
        AgoraService::rtm(user, expire),
        AgoraService::chat_user(&classroom_chat_id(user), expire),
    ]
}

/// `ApaasTokenBuilder.buildUserToken`, and `EducationTokenBuilder`'s.
pub fn classroom_user(user: &str, expire: u32) -> Vec<AgoraService> {
    vec![classroom(
        "",
        user,
        NO_ROLE,
        Privileges::from([(2, expire)]),
    )]
}

/// `ApaasTokenBuilder.buildAppToken`, and `EducationTokenBuilder`'s.
pub fn classroom_app(expire: u32) -> Vec<AgoraService> {
    vec![classroom("", "", NO_ROLE, Privileges::from([(3, expire)]))]
}

/// What Agora's package writes where no role is given; a role of 0 counts as none there.
const NO_ROLE: i16 = -1;

fn classroom(room: &str, user: &str, role: i16, privileges: Privileges) -> AgoraService {
    AgoraService {
        privileges,
        kind: ServiceKind::Apaas {
            room: room.into(),
            user: user.into(),
            role: if role == 0 { NO_ROLE } else { role },
        },
    }
}

/// The chat id of a classroom user: MD5 of the user's id, in lower-case hexadecimal.
fn classroom_chat_id(user: &str) -> String {
    let mut id = String::with_capacity(32);
    for byte in Md5::digest(user) {
        // Writing to a string never fails.
        let _ = write!(id, "{byte:02x}");
    }
    id
}
