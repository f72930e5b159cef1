//! Privileges by the names that Agora's packages have for them.
//!
//! Must not know: tokens.

use crate::agora::access_token::RTM_LOGIN;
use crate::agora::service::Kind;

/// A privilege of a 006 token, by its number.
pub(super) fn legacy(number: u16) -> String {
    let name = match number {
        1 => "joinChannel",
        2 => "publishAudioStream",
        3 => "publishVideoStream",
        4 => "publishDataStream",
        5 => "publishAudioCdn",
        6 => "publishVideoCdn",
        7 => "requestPublishAudioStream",
        8 => "requestPublishVideoStream",
        9 => "requestPublishDataStream",
        10 => "invitePublishAudioStream",
        11 => "invitePublishVideoStream",
        12 => "invitePublishDataStream",
        101 => "administrateChannel",
        RTM_LOGIN => "rtmLogin",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// A privilege of a service in a 007 token, by its number.
pub(super) fn of(kind: &Kind, number: u16) -> String {
    let name = match (kind, number) {
        (Kind::Rtc { .. }, 1) => "joinChannel",
        (Kind::Rtc { .. }, 2) => "publishAudioStream",
        (Kind::Rtc { .. }, 3) => "publishVideoStream",
        (Kind::Rtc { .. }, 4) => "publishDataStream",
        (Kind::Rtm { .. } | Kind::Rtm2 { .. } | Kind::Fpa, 1) => "login",
        (Kind::Streaming { .. }, 1) => "publishMixStream",
        (Kind::Streaming { .. }, 2) => "publishRawStream",
        (Kind::Fcdn { .. }, 1) => "publish",
        (Kind::Fcdn { .. }, 2) => "play",
        (Kind::Chat { .. }, 1) | (Kind::Apaas { .. }, 2) => "user",
        (Kind::Chat { .. }, 2) | (Kind::Apaas { .. }, 3) => "app",
        (Kind::Apaas { .. }, 1) => "roomUser",
        _ => return number.to_string(),
    };
    name.to_owned()
}
