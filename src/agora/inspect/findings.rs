//! Problems of a parsed token: those that both formats share, and the times, services and privileges of a 007.
//! A 006 is judged in `legacy`, names in `names`.
//!
//! Must not know: how the report is laid out.

use super::{AgoraError, Expected, SignatureCheck, TokenProblem, privileges};
use crate::agora::parse::Parsed007;
use crate::agora::service::{AgoraService, Privileges, ServiceKind};
use crate::agora::{JOIN_CHANNEL, LONGEST_LIFETIME, User, is_hex_id};
use crate::terms::timestamp;

/// Earlier values can't be Unix times of tokens (2001), later ones can't be lifetimes.
pub(super) const UNIX_TIMES_FROM: u32 = 1_000_000_000;

/// The findings so far.
#[derive(Default)]
pub(super) struct InspectFindings {
    pub(super) problems: Vec<TokenProblem>,
    pub(super) signature: SignatureCheck,
}

impl InspectFindings {
    pub(super) fn add(
        &mut self,
        code: &'static str,
        agora_error: Option<AgoraError>,
        message: impl Into<String>,
    ) {
        self.problems.push(TokenProblem {
            code,
            agora_error,
            message: message.into(),
        });
    }

    /// Adds something for which Agora refuses the token.
    pub(super) fn invalid(&mut self, code: &'static str, message: impl Into<String>) {
        self.add(code, Some(AgoraError::InvalidToken), message);
    }

    /// Adds something odd that Agora accepts.
    pub(super) fn odd(&mut self, code: &'static str, message: impl Into<String>) {
        self.add(code, None, message);
    }

    /// Checks whether the token is for this project.
    pub(super) fn judge_app_id(&mut self, found: &str, expected: Option<&str>) {
        if !is_hex_id(found.as_bytes()) {
            self.invalid(
                "bad_app_id",
                "the App ID in the token isn't 32 hexadecimal digits",
            );
        }
        if let Some(expected) = expected
            && found != expected
        {
            self.invalid(
                "wrong_app_id",
                format!("the token is for App ID {found}, not {expected}"),
            );
        }
    }

    /// Checks whether the token has ended.
    pub(super) fn judge_expiry(&mut self, expiry: u64, now: u64) {
        if expiry <= now {
            let message = format!("expired at {}", timestamp::from_seconds(expiry));
            self.add("expired", Some(AgoraError::TokenExpired), message);
        }
    }

    pub(super) fn signature(&mut self, valid: bool) {
        self.signature = if valid {
            SignatureCheck::Valid
        } else {
            SignatureCheck::Invalid
        };
        if !valid {
            self.invalid(
                "signature_invalid",
                "another certificate signed it, or it was changed afterwards",
            );
        }
    }

    pub(super) fn trailing_bytes(&mut self, count: usize) {
        if count > 0 {
            self.odd(
                "trailing_bytes",
                format!("{count} bytes in it mean nothing"),
            );
        }
    }

    /// Returns the Unix second at which Agora ends the token.
    pub(super) fn judge_007(&mut self, parsed: &Parsed007, expected: &Expected<'_>) -> u64 {
        if let Some(certificate) = expected.certificate {
            self.signature(parsed.verify(certificate));
        }
        self.trailing_bytes(parsed.trailing_bytes);
        if let Some(number) = parsed.unknown_service {
            let message =
                format!("service type {number} is unknown here; it and what follows are not shown");
            self.odd("unknown_service", message);
        }
        let token = &parsed.token;
        let issued_at = u64::from(token.issued_at);
        if issued_at > expected.now {
            self.odd(
                "issued_in_future",
                format!("issued at {}", timestamp::from_seconds(issued_at)),
            );
        }
        if token.expire >= UNIX_TIMES_FROM {
            let claimed = timestamp::from_seconds(issued_at + u64::from(token.expire));
            let message = format!(
                "the lifetime of {} s claims an expiry at {claimed}: an absolute time passed where 007 takes seconds",
                token.expire
            );
            self.odd("absolute_expiry", message);
        }
        if token.expire > LONGEST_LIFETIME {
            self.odd(
                "lifetime_cut",
                "it claims more than 24 hours, at which Agora ends every token",
            );
        }
        let account = match expected.user {
            Some(User::Account(account)) => Some(account),
            Some(User::Uid(_)) | None => None,
        };
        self.judge_names(&token.services, account);
        let lifetime = token.expire.min(LONGEST_LIFETIME);
        let joined = self.judge_rtc(&token.services, lifetime, parsed.unknown_service, expected);
        issued_at + u64::from(joined)
    }

    /// Returns the seconds after which the holder must leave.
    fn judge_rtc(
        &mut self,
        services: &[AgoraService],
        lifetime: u32,
        unknown_service: Option<u16>,
        expected: &Expected<'_>,
    ) -> u32 {
        let rtc: Vec<Rtc<'_>> = services.iter().filter_map(Rtc::of).collect();
        let mut digits = [0; 10];
        let user = expected.user.map(|user| user.spelled(&mut digits).to_vec());
        if rtc.is_empty() {
            // After an unknown service there may be an RTC one that wasn't read.
            if unknown_service.is_none() {
                self.judge_without_rtc(services, user.as_deref(), expected.channel.is_some());
            }
            return lifetime;
        }
        if let Some(channel) = expected.channel
            && !rtc
                .iter()
                .any(|rtc| matches(rtc.channel, channel.as_bytes()))
        {
            self.invalid("channel_mismatch", "it is for another channel");
        }
        if let Some(user) = &user
            && !rtc.iter().any(|rtc| matches(rtc.uid, user))
        {
            self.invalid("uid_mismatch", "it is for another uid or account");
        }
        for service in &rtc {
            if is_wildcard(service.channel) {
                self.odd(
                    "wildcard_channel",
                    "it opens every channel of the app that fits its pattern",
                );
            }
            if is_wildcard(service.uid) {
                self.odd(
                    "wildcard_uid",
                    "anyone whose uid fits its pattern may use it",
                );
            }
            self.judge_privileges(service.kind, service.privileges, lifetime);
        }
        let ends = rtc
            .iter()
            .filter_map(|rtc| rtc.privileges.get(&JOIN_CHANNEL));
        let ends = ends.map(|end| match *end {
            0 => lifetime,
            end => end.min(lifetime),
        });
        ends.max().unwrap_or_else(|| {
            self.invalid(
                "join_privilege_missing",
                "it lacks privilege joinChannel: its holder may not join",
            );
            lifetime
        })
    }

    /// A token for signaling or chat alone is held against the user who logs in with it.
    fn judge_without_rtc(&mut self, services: &[AgoraService], user: Option<&[u8]>, channel: bool) {
        let mut users = services
            .iter()
            .filter_map(|service| match &service.kind {
                ServiceKind::Rtm { user }
                | ServiceKind::Rtm2 { user, .. }
                | ServiceKind::Chat { user } => Some(user),
                _ => None,
            })
            .peekable();
        if channel || (user.is_some() && users.peek().is_none()) {
            self.invalid(
                "no_rtc_service",
                "it has no RTC service: no channel can be joined with it",
            );
        } else if let Some(user) = user
            && users.all(|found| found != user)
        {
            self.invalid("uid_mismatch", "it is for another user");
        }
    }

    fn judge_privileges(&mut self, kind: &ServiceKind, privileges: &Privileges, lifetime: u32) {
        let names = |wanted: &dyn Fn(u32) -> bool| {
            let found = privileges.iter().filter(|(_, end)| wanted(**end));
            found
                .map(|(number, _)| privileges::of(kind, *number))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let never = names(&|end| end == 0);
        if !never.is_empty() {
            let message =
                format!("privilege {never} is 0, never: the SDK's renewal callbacks stay silent");
            self.odd("privilege_never", message);
        }
        let before = names(&|end| end != 0 && end < lifetime);
        if !before.is_empty() {
            self.odd(
                "privilege_before_token",
                format!("privilege {before} ends before the token does"),
            );
        }
        let after = names(&|end| end > lifetime);
        if !after.is_empty() {
            self.odd(
                "privilege_after_token",
                format!("privilege {after} claims to outlive the token"),
            );
        }
    }
}

/// The RTC service of a token.
struct Rtc<'a> {
    kind: &'a ServiceKind,
    channel: &'a [u8],
    uid: &'a [u8],
    privileges: &'a Privileges,
}

impl<'a> Rtc<'a> {
    fn of(service: &'a AgoraService) -> Option<Self> {
        let ServiceKind::Rtc { channel, uid } = &service.kind else {
            return None;
        };
        let privileges = &service.privileges;
        Some(Self {
            kind: &service.kind,
            channel,
            uid,
            privileges,
        })
    }
}

/// Whether Agora reads a channel or uid as "any".
fn is_wildcard(pattern: &[u8]) -> bool {
    pattern.is_empty() || pattern.contains(&b'*')
}

/// Whether a channel or uid of a token covers one that a client joins with; `*` stands for any bytes.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if pattern.is_empty() {
        return true;
    }
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let found = (0..=rest.len()).find_map(|at| rest.get(at..)?.strip_prefix(part));
        let Some(after) = found else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_its_asterisks_stand_for() {
        for (pattern, name, covered) in [
            ("", "anything", true),
            ("*", "", true),
            ("*", "anything", true),
            ("lobby", "lobby", true),
            ("lobby", "lobby2", false),
            ("1*a*2", "1a2", true),
            ("1*a*2", "1xxaxx2", true),
            ("1*a*2", "1xx2", false),
            ("a*", "ba", false),
            ("aa*aa", "aaa", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                covered,
                "{pattern} {name}"
            );
        }
    }
}
