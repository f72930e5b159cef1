//! Privileges by the names that Agora's packages have for them.
//!
//! Must not know: tokens.

use crate::agora::access_token::RTM_LOGIN;
use crate::agora::service::ServiceKind;

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
pub(super) fn of(kind: &ServiceKind, number: u16) -> String {
    let name = match (kind, number) {
        // The first four are the same in both formats.
        (ServiceKind::Rtc { .. }, 1..=4) => return legacy(number),
        (ServiceKind::Rtm { .. } | ServiceKind::Rtm2 { .. } | ServiceKind::Fpa, 1) => "login",
        (ServiceKind::Streaming { .. }, 1) => "publishMixStream",
        (ServiceKind::Streaming { .. }, 2) => "publishRawStream",
        (ServiceKind::Fcdn { .. }, 1) => "publish",
        (ServiceKind::Fcdn { .. }, 2) => "play",
        (ServiceKind::Chat { .. }, 1) | (ServiceKind::Apaas { .. }, 2) => "user",
        (ServiceKind::Chat { .. }, 2) | (ServiceKind::Apaas { .. }, 3) => "app",
        (ServiceKind::Apaas { .. }, 1) => "roomUser",
        _ => return number.to_string(),
    };
    name.to_owned()
}
