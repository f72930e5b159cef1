//! The services that a 007 token opens: the ten types of `agora-token` 2.0.6, each with its privileges.
//!
//! Keeps true: `unpack` reads what `pack` writes. Strings are bytes, because a foreign token's need not be UTF-8.
//! Must not know: the envelope, signatures.

use std::collections::BTreeMap;

use super::packing::{SliceReader, Truncated, put_bytes, put_count, put_privileges, put_u16};
use super::{BuildError, User, rtc_privileges};
use crate::terms::role::Role;

/// Privilege number to seconds after the token's issue time; 0 is "never by itself".
pub type Privileges = BTreeMap<u16, u32>;

/// RTC's type number.
pub(super) const RTC: u16 = 1;

/// The type numbers of [`ServiceKind`].
const KNOWN_TYPES: std::ops::RangeInclusive<u16> = RTC..=10;

/// One service with its privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgoraService {
    /// May be empty.
    pub privileges: Privileges,
    /// The service and its user.
    pub kind: ServiceKind,
}

/// A service type and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// 1: audio and video.
    Rtc {
        /// Empty or with `*`: any channel.
        channel: Vec<u8>,
        /// Digits or a user account; empty or with `*`: anyone.
        uid: Vec<u8>,
    },
    /// 2: signaling.
    Rtm {
        /// The user that logs in.
        user: Vec<u8>,
    },
    /// 3: streaming.
    Streaming {
        /// The channel.
        channel: Vec<u8>,
        /// The account.
        account: Vec<u8>,
    },
    /// 4: full-path accelerator.
    Fpa,
    /// 5: chat.
    Chat {
        /// Empty in an app token.
        user: Vec<u8>,
    },
    /// 6: fusion CDN.
    Fcdn {
        /// The channel.
        channel: Vec<u8>,
        /// The account.
        account: Vec<u8>,
    },
    /// 7: flexible classroom (`EducationTokenBuilder` writes it too).
    Apaas {
        /// Empty in user and app tokens.
        room: Vec<u8>,
        /// Empty in app tokens.
        user: Vec<u8>,
        /// −1 in user and app tokens.
        role: i16,
    },
    /// 8: signaling 2 with permissions on single resources.
    Rtm2 {
        /// The user that logs in.
        user: Vec<u8>,
        /// Resource type to permission type to resources.
        permissions: Permissions,
    },
    /// 9: conversational AI.
    ConvoAi,
    /// 10: speech to text.
    Stt,
}

/// Resource type (0 message channels, 1 stream channels, 2 group channels, 3 server groups, 4 users) to permission type
/// (0 read, 1 write) to names.
pub type Permissions = BTreeMap<u16, BTreeMap<u16, Vec<Vec<u8>>>>;

impl AgoraService {
    /// RTC with the privileges of a role, all ending together.
    pub fn rtc(channel: &str, user: User<&str>, role: Role, expire: u32) -> Self {
        let privileges = rtc_privileges(role).iter().map(|number| (*number, expire));
        Self {
            privileges: privileges.collect(),
            kind: ServiceKind::Rtc {
                channel: channel.into(),
                uid: user.spelled(&mut [0; 10]).to_vec(),
            },
        }
    }

    /// RTM: privilege 1 is the login.
    pub fn rtm(user: &str, expire: u32) -> Self {
        Self {
            privileges: Privileges::from([(1, expire)]),
            kind: ServiceKind::Rtm { user: user.into() },
        }
    }

    /// Chat for one user: privilege 1.
    pub fn chat_user(user: &str, expire: u32) -> Self {
        Self {
            privileges: Privileges::from([(1, expire)]),
            kind: ServiceKind::Chat { user: user.into() },
        }
    }

    /// Appends type, privileges and fields.
    pub(super) fn pack(&self, out: &mut Vec<u8>) -> Result<(), BuildError> {
        put_u16(out, self.kind.number());
        let privileges = self
            .privileges
            .iter()
            .map(|(number, expire)| (*number, *expire));
        put_privileges(out, privileges)?;
        if let ServiceKind::Apaas { room, .. } = &self.kind {
            put_bytes(out, room)?;
        }
        let (channel, user) = self.kind.names();
        for name in channel.into_iter().chain(user) {
            put_bytes(out, name)?;
        }
        match &self.kind {
            ServiceKind::Apaas { role, .. } => out.extend_from_slice(&role.to_le_bytes()),
            ServiceKind::Rtm2 { permissions, .. } => pack_permissions(out, permissions)?,
            _ => {}
        }
        Ok(())
    }

    /// Reads one service. Returns `None`, with nothing read, for a type that this build doesn't know, and so neither
    /// its length.
    pub(super) fn unpack(reader: &mut SliceReader<'_>) -> Result<Option<Self>, Truncated> {
        let mut ahead = *reader;
        let number = ahead.u16()?;
        if !KNOWN_TYPES.contains(&number) {
            return Ok(None);
        }
        let privileges = ahead.privileges()?;
        let service =
            ServiceKind::unpack(number, &mut ahead)?.map(|kind| Self { privileges, kind });
        *reader = ahead;
        Ok(service)
    }
}

fn pack_permissions(out: &mut Vec<u8>, permissions: &Permissions) -> Result<(), BuildError> {
    put_count(out, permissions.len())?;
    for (resource_type, by_permission) in permissions {
        put_u16(out, *resource_type);
        put_count(out, by_permission.len())?;
        for (permission_type, resources) in by_permission {
            put_u16(out, *permission_type);
            put_count(out, resources.len())?;
            for resource in resources {
                put_bytes(out, resource)?;
            }
        }
    }
    Ok(())
}

fn unpack_permissions(reader: &mut SliceReader<'_>) -> Result<Permissions, Truncated> {
    let mut permissions = Permissions::new();
    for _ in 0..reader.u16()? {
        let resource_type = reader.u16()?;
        for _ in 0..reader.u16()? {
            let permission_type = reader.u16()?;
            let resources = (0..reader.u16()?)
                .map(|_| reader.bytes().map(<[u8]>::to_vec))
                .collect::<Result<_, _>>()?;
            let by_permission = permissions.entry(resource_type).or_default();
            by_permission.insert(permission_type, resources);
        }
    }
    Ok(permissions)
}

impl ServiceKind {
    /// The type number in the token.
    pub fn number(&self) -> u16 {
        match self {
            Self::Rtc { .. } => RTC,
            Self::Rtm { .. } => 2,
            Self::Streaming { .. } => 3,
            Self::Fpa => 4,
            Self::Chat { .. } => 5,
            Self::Fcdn { .. } => 6,
            Self::Apaas { .. } => 7,
            Self::Rtm2 { .. } => 8,
            Self::ConvoAi => 9,
            Self::Stt => 10,
        }
    }

    /// Agora's name for it, lower-cased.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Rtc { .. } => "rtc",
            Self::Rtm { .. } => "rtm",
            Self::Streaming { .. } => "streaming",
            Self::Fpa => "fpa",
            Self::Chat { .. } => "chat",
            Self::Fcdn { .. } => "fcdn",
            Self::Apaas { .. } => "apaas",
            Self::Rtm2 { .. } => "rtm2",
            Self::ConvoAi => "convoai",
            Self::Stt => "stt",
        }
    }

    /// The channel, where the service has one, and the user; a service for the whole app has neither.
    pub(super) fn names(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        match self {
            Self::Rtc { channel, uid: user }
            | Self::Streaming {
                channel,
                account: user,
            }
            | Self::Fcdn {
                channel,
                account: user,
            } => (Some(channel), Some(user)),
            Self::Rtm { user }
            | Self::Chat { user }
            | Self::Apaas { user, .. }
            | Self::Rtm2 { user, .. } => (None, Some(user)),
            Self::Fpa | Self::ConvoAi | Self::Stt => (None, None),
        }
    }

    fn unpack(number: u16, reader: &mut SliceReader<'_>) -> Result<Option<Self>, Truncated> {
        let mut text = || reader.bytes().map(<[u8]>::to_vec);
        Ok(Some(match number {
            RTC => Self::Rtc {
                channel: text()?,
                uid: text()?,
            },
            2 => Self::Rtm { user: text()? },
            3 => Self::Streaming {
                channel: text()?,
                account: text()?,
            },
            4 => Self::Fpa,
            5 => Self::Chat { user: text()? },
            6 => Self::Fcdn {
                channel: text()?,
                account: text()?,
            },
            7 => Self::Apaas {
                room: text()?,
                user: text()?,
                role: reader.i16()?,
            },
            8 => Self::Rtm2 {
                user: text()?,
                permissions: unpack_permissions(reader)?,
            },
            9 => Self::ConvoAi,
            10 => Self::Stt,
            _ => return Ok(None),
        }))
    }
}
