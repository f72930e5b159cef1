//! Reads a token of this project, and issues it anew for a shorter time: same channel, user, services and privileges.
//!
//! Keeps true: nothing in the new token outlives the old one or the time asked for; what had ended stays ended; no
//! privilege is 0, which would be "never". A token counts as the project's only if one of its certificates verified it.
//! Must not know: where the token was found, which client gets it.

use std::sync::Arc;

use super::TokenFormat;
use super::access_token::{self, AccessToken};
use super::access_token2::AccessToken2;
use super::legacy_user::numeric_users;
use super::parse::{Parsed, Parsed006, Parsed007, parse_beginning};
use super::service::{Privileges, ServiceKind};
use super::signer::Signer;
use super::{BuildError, JOIN_CHANNEL, LONGEST_LIFETIME};
use crate::config::secret::Secret;
use crate::terms::role::Role;
use crate::terms::user::User;

/// Which of the project's certificates signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignedBy {
    /// One that Agora takes: `agora.app_certificate` or `agora.previous_certificate`.
    Project,
    /// `agora.backend_certificate`, the decoy: Agora refuses the token until it is signed anew.
    Decoy,
}

/// One project's certificates: those that verify, and the one that signs.
#[derive(Debug)]
pub struct Project {
    signer: Arc<Signer>,
    certificates: Vec<(Secret, SignedBy)>,
}

/// The beginning of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recognised {
    /// No token of this project.
    Foreign,
    /// The text has the project's App ID, but none of its certificates signed it, or it isn't whole.
    Alike,
    /// A token that one of the project's certificates signed.
    Ours(VerifiedToken),
    /// A 006 token of this App ID: only with its channel and user can its signature be checked.
    Nameless(Nameless),
}

/// A 006 token without the names that its signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nameless(Box<Parsed006>);

/// A verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedToken {
    content: TokenContent,
    signed_by: SignedBy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenContent {
    V007(Box<Parsed007>),
    V006(AccessToken),
}

/// How a verified token is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The token has ended, or ends soon enough by itself.
    Stays,
    /// The token is to be issued anew, to end at this Unix second.
    Shortened {
        /// After now; not after the old token's end.
        expires: u64,
    },
}

// === impl Project ===

impl Project {
    /// `certificate` is the one that `signer` signs with; the others only verify.
    pub(crate) fn new(
        signer: Arc<Signer>,
        certificate: &Secret,
        previous: Option<&Secret>,
        decoy: Option<&Secret>,
    ) -> Self {
        let project = [Some(certificate), previous].into_iter().flatten();
        let project = project.map(|secret| (secret.clone(), SignedBy::Project));
        let decoy = decoy.map(|secret| (secret.clone(), SignedBy::Decoy));
        Self {
            signer,
            certificates: project.chain(decoy).collect(),
        }
    }

    /// Says what a text begins with, and how many of its characters are the token's; what follows may be anything.
    pub(crate) fn recognise(&self, text: &str) -> (Recognised, usize) {
        let is_ours = |app_id: &str| app_id.eq_ignore_ascii_case(self.signer.app_id());
        let (parsed, length) = match parse_beginning(text, is_ours) {
            Some(Ok(begun)) => begun,
            Some(Err(_)) => return (Recognised::Alike, 0),
            None => return (Recognised::Foreign, 0),
        };
        let recognised = match parsed {
            Parsed::V007(parsed) => {
                match self.signed_by(|certificate| parsed.verify(certificate)) {
                    Some(signed_by) => Recognised::Ours(VerifiedToken {
                        content: TokenContent::V007(Box::new(parsed)),
                        signed_by,
                    }),
                    None => Recognised::Alike,
                }
            }
            Parsed::V006(parsed) => Recognised::Nameless(Nameless(Box::new(parsed))),
        };
        (recognised, length)
    }

    /// The token with its names, if they are among these: those whose CRC-32 is the token's. `users` are tried beside
    /// every numeric uid. `None`: its channel isn't among them. `Some(Alike)`: it is, and no certificate of the
    /// project verifies the token.
    pub(crate) fn name<'n>(
        &self,
        token: &Nameless,
        channels: impl Iterator<Item = &'n str>,
        users: impl Iterator<Item = &'n str>,
    ) -> Option<Recognised> {
        let Nameless(parsed) = token;
        let mut channels = channels
            .filter(|channel| parsed.is_for_channel(channel))
            .peekable();
        channels.peek()?;
        let mut named = numeric_users(parsed.uid_crc);
        named.extend(
            users
                .filter(|user| parsed.is_for_uid(user))
                .map(str::to_owned),
        );
        for channel in channels {
            for user in &named {
                let verifies = |certificate: &Secret| parsed.verify(certificate, channel, user);
                if let Some(signed_by) = self.signed_by(verifies) {
                    let token = AccessToken {
                        channel: channel.to_owned(),
                        uid: user.clone(),
                        salt: parsed.salt,
                        expires_at: parsed.expires_at,
                        privileges: parsed.privileges.clone(),
                    };
                    return Some(Recognised::Ours(VerifiedToken {
                        content: TokenContent::V006(token),
                        signed_by,
                    }));
                }
            }
        }
        Some(Recognised::Alike)
    }

    fn signed_by(&self, verifies: impl Fn(&Secret) -> bool) -> Option<SignedBy> {
        let mut certificates = self.certificates.iter();
        certificates
            .find(|(certificate, _)| verifies(certificate))
            .map(|(_, signed_by)| *signed_by)
    }

    /// The token issued anew at `now`, to end at `expires` (Unix seconds, after `now`). Privileges that end earlier
    /// still do; those that have ended are left out. `Ok(None)`: it holds a service that this build can't write.
    pub(crate) fn reissue(
        &self,
        token: &VerifiedToken,
        now: u64,
        expires: u64,
        salt: u32,
    ) -> Result<Option<String>, BuildError> {
        match &token.content {
            TokenContent::V007(parsed) if parsed.unknown_service.is_some() => Ok(None),
            TokenContent::V007(parsed) => shortened_007(&parsed.token, now, expires, salt)
                .build(&self.signer)
                .map(Some),
            TokenContent::V006(old) => shortened_006(old, expires, salt)
                .build(&self.signer)
                .map(Some),
        }
    }
}

fn shortened_007(old: &AccessToken2, now: u64, expires: u64, salt: u32) -> AccessToken2 {
    let from_now = |moment: u64| u32::try_from(moment.saturating_sub(now)).unwrap_or(u32::MAX);
    let services = old.services.iter().map(|service| {
        let ends = service.privileges.iter().map(|(number, end)| {
            let end = match end {
                0 => expires,
                end => expires.min(u64::from(old.issued_at) + u64::from(*end)),
            };
            (*number, end)
        });
        let mut service = service.clone();
        service.privileges = ends
            .filter(|(_, end)| *end > now)
            .map(|(number, end)| (number, from_now(end)))
            .collect();
        service
    });
    AccessToken2 {
        // Agora's format ends in 2106.
        issued_at: u32::try_from(now).unwrap_or(u32::MAX),
        expire: from_now(expires),
        salt,
        services: services.collect(),
    }
}

fn shortened_006(old: &AccessToken, expires: u64, salt: u32) -> AccessToken {
    let expires = u32::try_from(expires).unwrap_or(u32::MAX);
    let shortened = |end: u32| if end == 0 { expires } else { end.min(expires) };
    let privileges = old.privileges.iter();
    AccessToken {
        channel: old.channel.clone(),
        uid: old.uid.clone(),
        salt,
        expires_at: expires,
        privileges: privileges
            .map(|(number, end)| (*number, shortened(*end)))
            .collect(),
    }
}

// === impl Token ===

impl VerifiedToken {
    /// How the token is treated at `now` if tokens live `lifetime` seconds. A decoy's token is signed anew however
    /// short it is, since Agora refuses it otherwise.
    pub(crate) fn fate(&self, now: u64, lifetime: u32) -> Fate {
        let expires = self.expires_at().min(now + u64::from(lifetime));
        let outlives = self.expires_at() > expires;
        if expires > now && (outlives || self.signed_by == SignedBy::Decoy) {
            Fate::Shortened { expires }
        } else {
            Fate::Stays
        }
    }

    /// Whether the token has ended.
    pub(crate) fn has_ended(&self, now: u64) -> bool {
        self.expires_at() <= now
    }

    /// The Unix second at which Agora ends it. 007: 24 hours after its issue at the latest. 006: as the token says, at
    /// the latest when its last privilege ends; its issue time isn't in it.
    pub(crate) fn expires_at(&self) -> u64 {
        match &self.content {
            TokenContent::V007(parsed) => {
                let token = &parsed.token;
                u64::from(token.issued_at) + u64::from(token.expire.min(LONGEST_LIFETIME))
            }
            TokenContent::V006(token) => {
                let ends = token.privileges.values();
                let last = ends
                    .map(|end| if *end == 0 { u32::MAX } else { *end })
                    .max();
                u64::from(token.expires_at.min(last.unwrap_or(u32::MAX)))
            }
        }
    }

    /// The channel that it opens; `None` where it opens none.
    pub(crate) fn channel(&self) -> Option<&[u8]> {
        self.names().0
    }

    /// The user, as tokens spell users: an empty name lets any user use the token.
    pub(crate) fn user(&self) -> &[u8] {
        self.names().1
    }

    /// The user: digits are a uid, and an empty name is uid 0, which any user may use.
    pub(crate) fn named_user(&self) -> User {
        let text = String::from_utf8_lossy(self.user());
        if text.is_empty() {
            return User::Uid(0);
        }
        match text.parse::<u32>() {
            Ok(uid) if uid.to_string() == *text => User::Uid(uid),
            _ => User::Account(text.into()),
        }
    }

    /// Channel and user of its first service for a channel, else of its first service for a user.
    fn names(&self) -> (Option<&[u8]>, &[u8]) {
        match &self.content {
            TokenContent::V006(token)
                if token.privileges.contains_key(&access_token::RTM_LOGIN) =>
            {
                (None, token.channel.as_bytes())
            }
            TokenContent::V006(token) => (Some(token.channel.as_bytes()), token.uid.as_bytes()),
            TokenContent::V007(parsed) => {
                let names = || {
                    let services = parsed.token.services.iter();
                    services.map(|service| service.kind.names())
                };
                let with_channel = names().find(|(channel, _)| channel.is_some());
                let with_user = || names().find(|(_, user)| user.is_some());
                let (channel, user) = with_channel.or_else(with_user).unwrap_or_default();
                (channel, user.unwrap_or_default())
            }
        }
    }

    /// Whether anyone may use it, or it opens more than one channel.
    pub(crate) fn is_wildcard(&self) -> bool {
        let any = |name: &[u8]| name.is_empty() || name.contains(&b'*');
        self.channel().is_some_and(any) || any(self.user())
    }

    /// Whether it opens every channel, or is for every user where that is more than the uid 0 of one channel: an
    /// administrator's token.
    pub(crate) fn is_for_the_whole_app(&self) -> bool {
        let has_star = |name: &[u8]| name.contains(&b'*');
        let opens_all = |name: &[u8]| name.is_empty() || has_star(name);
        match &self.content {
            // An RTM token has its account in the channel's place.
            TokenContent::V006(token) => {
                opens_all(token.channel.as_bytes()) || has_star(token.uid.as_bytes())
            }
            TokenContent::V007(parsed) => {
                let mut services = parsed.token.services.iter();
                services.any(|service| match service.kind.names() {
                    (Some(channel), user) => opens_all(channel) || user.is_some_and(has_star),
                    (None, user) => user.is_some_and(opens_all),
                })
            }
        }
    }

    /// The same for watching only: the channel without the privileges to publish, and none of the services that speak
    /// in the name of its user. A 006 token keeps its format and loses the same.
    #[must_use]
    pub(crate) fn as_subscriber(&self) -> Self {
        let joins_alone = |privileges: &mut Privileges| {
            privileges.retain(|number, _| *number == JOIN_CHANNEL);
        };
        let mut subscriber = self.clone();
        match &mut subscriber.content {
            TokenContent::V006(token) => joins_alone(&mut token.privileges),
            TokenContent::V007(parsed) => {
                let services = &mut parsed.token.services;
                services.retain(|service| matches!(service.kind, ServiceKind::Rtc { .. }));
                for service in services {
                    joins_alone(&mut service.privileges);
                }
            }
        }
        subscriber
    }

    /// Publisher where it lets its holder publish anything.
    pub(crate) fn role(&self) -> Role {
        let publishes = |privileges: &Privileges| {
            let mut publishing = JOIN_CHANNEL + 1..=JOIN_CHANNEL + 3;
            publishing.any(|number| privileges.contains_key(&number))
        };
        let may = match &self.content {
            TokenContent::V006(token) => publishes(&token.privileges),
            TokenContent::V007(parsed) => parsed.token.services.iter().any(|service| {
                matches!(service.kind, ServiceKind::Rtc { .. }) && publishes(&service.privileges)
            }),
        };
        if may {
            Role::Publisher
        } else {
            Role::Subscriber
        }
    }

    /// The token format.
    pub(crate) fn format(&self) -> TokenFormat {
        match self.content {
            TokenContent::V007(_) => TokenFormat::V007,
            TokenContent::V006(_) => TokenFormat::V006,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agora::service::{AgoraService, Permissions};
    use crate::agora::{RtcGrant, User, rtc_token};

    const APP_ID: &str = "970ca35de60c44645bbae8a215061b33";
    const CURRENT: &str = "5cfd2fd1755d40ecb72977518be15d3b";
    const PREVIOUS: &str = "00000000000000000000000000000001";
    const DECOY: &str = "00000000000000000000000000000002";
    const NOW: u64 = 1_700_000_000;
    const HOUR: u32 = 3600;
    const DAY: u32 = 24 * HOUR;

    fn signer(certificate: &str) -> Signer {
        Signer::new(APP_ID, &Secret::new(certificate.into())).unwrap()
    }

    fn project() -> Project {
        let secret = |text: &str| Secret::new(text.into());
        Project::new(
            Arc::new(signer(CURRENT)),
            &secret(CURRENT),
            Some(&secret(PREVIOUS)),
            Some(&secret(DECOY)),
        )
    }

    fn at(seconds_from_now: i64) -> u32 {
        u32::try_from(NOW.checked_add_signed(seconds_from_now).unwrap()).unwrap()
    }

    fn grant(issued_at: u32, lifetime: u32) -> RtcGrant<'static> {
        RtcGrant {
            channel: "live_1",
            user: User::Uid(7),
            role: Role::Publisher,
            lifetime,
            issued_at,
            salt: 5,
        }
    }

    fn minted(format: TokenFormat, certificate: &str, issued_at: u32, lifetime: u32) -> String {
        rtc_token(format, &signer(certificate), &grant(issued_at, lifetime)).unwrap()
    }

    fn ours(token: &str) -> VerifiedToken {
        let named = match project().recognise(token).0 {
            Recognised::Nameless(token) => {
                let channels = ["other", "live_1", "ann"].into_iter();
                project()
                    .name(&token, channels, std::iter::empty())
                    .unwrap()
            }
            other => other,
        };
        match named {
            Recognised::Ours(token) => token,
            other => panic!("{other:?}"),
        }
    }

    fn reissued(token: &VerifiedToken, lifetime: u32) -> Option<VerifiedToken> {
        match token.fate(NOW, lifetime) {
            Fate::Stays => None,
            Fate::Shortened { expires } => {
                let new = project().reissue(token, NOW, expires, 9).unwrap();
                Some(ours(&new.unwrap()))
            }
        }
    }

    fn services(token: &VerifiedToken) -> &[AgoraService] {
        match &token.content {
            TokenContent::V007(parsed) => &parsed.token.services,
            TokenContent::V006(_) => panic!("006"),
        }
    }

    #[test]
    fn a_long_token_ends_after_the_lifetime_and_a_short_one_stays() {
        for format in [TokenFormat::V007, TokenFormat::V006] {
            let long = ours(&minted(format, CURRENT, at(0), DAY));
            let short = reissued(&long, HOUR).unwrap();
            assert_eq!(short.expires_at(), NOW + 3600);
            assert_eq!(
                (short.channel(), short.user()),
                (Some(&b"live_1"[..]), &b"7"[..])
            );
            assert_eq!((short.role(), short.format()), (Role::Publisher, format));
            assert_eq!(short.fate(NOW, HOUR), Fate::Stays);
            let exact = ours(&minted(format, CURRENT, at(0), HOUR));
            assert_eq!(exact.fate(NOW, HOUR), Fate::Stays);
            assert_ne!(exact.fate(NOW, HOUR - 1), Fate::Stays);
        }
    }

    #[test]
    fn a_token_of_decades_counts_as_one_of_a_day() {
        let token = ours(&minted(
            TokenFormat::V007,
            CURRENT,
            at(-23 * 3600),
            1_700_003_600,
        ));
        assert_eq!(token.expires_at(), NOW + 3600);
        assert_eq!(token.fate(NOW, HOUR), Fate::Stays);
        let new = reissued(&token, HOUR - 1).unwrap();
        assert_eq!(new.expires_at(), NOW + 3599);
    }

    #[test]
    fn what_has_ended_is_not_revived() {
        for format in [TokenFormat::V007, TokenFormat::V006] {
            for certificate in [CURRENT, DECOY] {
                let token = ours(&minted(format, certificate, at(-3600), HOUR));
                assert_eq!(token.fate(NOW, HOUR), Fate::Stays);
            }
        }
    }

    #[test]
    fn a_decoys_token_is_signed_anew_until_its_own_end() {
        for format in [TokenFormat::V007, TokenFormat::V006] {
            let token = ours(&minted(format, DECOY, at(-60), 600));
            let new = reissued(&token, HOUR).unwrap();
            assert_eq!(new.expires_at(), NOW + 540);
            assert_eq!(new.signed_by, SignedBy::Project);
            let previous = ours(&minted(format, PREVIOUS, at(-60), 600));
            assert_eq!(previous.fate(NOW, HOUR), Fate::Stays);
        }
    }

    #[test]
    fn tokens_of_others_are_foreign() {
        let other_app = Signer::new(&"a".repeat(32), &Secret::new(CURRENT.into())).unwrap();
        let stranger = "00000000000000000000000000000003";
        for token in [
            rtc_token(TokenFormat::V007, &other_app, &grant(at(0), DAY)).unwrap(),
            rtc_token(TokenFormat::V006, &other_app, &grant(at(0), DAY)).unwrap(),
            "007".to_owned(),
            "007eJxTYEh4".to_owned(),
            format!("006{APP_ID}"),
            format!("006{APP_ID}abcd"),
            "hello".to_owned(),
        ] {
            let read = project().recognise(&token).0;
            assert_eq!(read, Recognised::Foreign, "{token}");
        }
        let strangers = minted(TokenFormat::V007, stranger, at(0), DAY);
        assert_eq!(project().recognise(&strangers).0, Recognised::Alike);
        let Recognised::Nameless(token) = project()
            .recognise(&minted(TokenFormat::V006, stranger, at(0), DAY))
            .0
        else {
            panic!("not read");
        };
        let name = |channels: &[&'static str]| {
            project().name(&token, channels.iter().copied(), std::iter::empty())
        };
        assert_eq!(name(&["live_1"]), Some(Recognised::Alike));
        assert_eq!(name(&["live_2"]), None);
    }

    #[test]
    fn what_goes_on_behind_a_token_is_not_the_tokens_and_what_stops_within_is_alike() {
        let (v7, v6) = (TokenFormat::V007, TokenFormat::V006);
        for token in [
            minted(v7, CURRENT, at(0), DAY),
            minted(v6, CURRENT, at(0), DAY),
        ] {
            let (whole, length) = project().recognise(&token);
            assert_ne!(whole, Recognised::Alike);
            assert_eq!(length, token.len());
            let bare = token.trim_end_matches('=');
            for behind in ["/path", "x", "AAAAAAAA", &token] {
                for written in [&token, bare] {
                    let begun = project().recognise(&format!("{written}{behind}"));
                    assert_eq!(begun, (whole.clone(), written.len()), "{behind}");
                }
            }
            let (cut, _) = project().recognise(&bare[..bare.len() - 9]);
            assert_eq!(cut, Recognised::Alike);
        }
    }

    #[test]
    fn a_006_token_for_an_account_is_named_by_it() {
        let account = RtcGrant {
            user: User::Account("ann"),
            ..grant(at(0), DAY)
        };
        let token = rtc_token(TokenFormat::V006, &signer(CURRENT), &account).unwrap();
        let Recognised::Nameless(token) = project().recognise(&token).0 else {
            panic!("not read");
        };
        let named = project().name(&token, ["live_1"].into_iter(), ["bob", "ann"].into_iter());
        let Some(Recognised::Ours(named)) = named else {
            panic!("{named:?}");
        };
        assert_eq!(named.user(), b"ann");
        assert!(!named.is_wildcard());
    }

    #[test]
    fn every_service_keeps_its_names_and_its_shorter_privileges() {
        let permissions = Permissions::from([(0, [(1, vec![b"room".to_vec()])].into())]);
        let service = |privileges: &[(u16, u32)], kind| AgoraService {
            privileges: privileges.iter().copied().collect(),
            kind,
        };
        let rtc = AgoraService::rtc("live_1", User::Uid(7), Role::Publisher, DAY);
        let user = || b"ann".to_vec();
        let mut services_given = vec![
            service(&[(1, 0), (2, 90), (3, DAY), (4, 30)], rtc.kind),
            AgoraService::rtm("ann", DAY),
            service(&[(1, 0)], ServiceKind::Fpa),
            AgoraService::chat_user("ann", HOUR),
            service(
                &[(1, DAY)],
                ServiceKind::Rtm2 {
                    user: user(),
                    permissions,
                },
            ),
        ];
        let bare = [
            ServiceKind::Streaming {
                channel: b"live_1".to_vec(),
                account: user(),
            },
            ServiceKind::Fcdn {
                channel: b"live_1".to_vec(),
                account: user(),
            },
            ServiceKind::Apaas {
                room: b"room".to_vec(),
                user: user(),
                role: -1,
            },
            ServiceKind::ConvoAi,
            ServiceKind::Stt,
        ];
        services_given.extend(bare.map(|kind| AgoraService {
            privileges: Privileges::new(),
            kind,
        }));
        services_given.sort_by_key(|service| service.kind.number());
        let token = AccessToken2 {
            issued_at: at(-60),
            expire: DAY,
            salt: 1,
            services: services_given,
        };
        let old = ours(&token.build(&signer(CURRENT)).unwrap());
        let new = reissued(&old, HOUR).unwrap();
        for (old, new) in services(&old).iter().zip(services(&new)) {
            assert_eq!(old.kind, new.kind);
        }
        assert_eq!(services(&old).len(), services(&new).len());
        let rtc = &services(&new)[0].privileges;
        // Join was "never", audio has 30 of its 90 seconds left, data has ended.
        assert_eq!(*rtc, Privileges::from([(1, HOUR), (2, 30), (3, HOUR)]));
        assert_eq!(services(&new)[1].privileges[&1], HOUR);
        assert_eq!(services(&new)[3].privileges[&1], HOUR);
    }

    #[test]
    fn a_006_login_to_signaling_names_a_user_and_no_channel() {
        let token = AccessToken {
            channel: "ann".into(),
            uid: String::new(),
            salt: 1,
            expires_at: at(i64::from(DAY)),
            privileges: Privileges::from([(access_token::RTM_LOGIN, 0)]),
        };
        let token = ours(&token.build(&signer(CURRENT)).unwrap());
        assert_eq!((token.channel(), token.user()), (None, &b"ann"[..]));
        let new = reissued(&token, HOUR).unwrap();
        assert_eq!(new.expires_at(), NOW + 3600);
        let TokenContent::V006(new) = new.content else {
            panic!("another format");
        };
        assert_eq!(new.privileges[&access_token::RTM_LOGIN], at(3600));
    }

    #[test]
    fn tokens_for_anyone_are_wildcards() {
        let anyone = RtcGrant {
            user: User::Uid(0),
            role: Role::Subscriber,
            ..grant(at(0), DAY)
        };
        let token = rtc_token(TokenFormat::V007, &signer(CURRENT), &anyone).unwrap();
        assert!(ours(&token).is_wildcard());
        assert_eq!(ours(&token).role(), Role::Subscriber);
        assert!(!ours(&minted(TokenFormat::V007, CURRENT, at(0), DAY)).is_wildcard());
    }
}
