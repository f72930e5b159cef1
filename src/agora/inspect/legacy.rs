//! Problems of a 006 token, by the rules of its kind: for a channel (RTC), or for logging in to signaling (RTM),
//! where the account stands in the channel's place and there is no uid.
//!
//! Must not know: how the report is laid out.

use super::findings::{InspectFindings, UNIX_TIMES_FROM};
use super::{Expected, privileges};
use crate::agora::legacy_user::numeric_users;
use crate::agora::parse::Parsed006;
use crate::agora::service::Privileges;
use crate::agora::{JOIN_CHANNEL, LONGEST_LIFETIME, User, access_token};
use crate::terms::labels::labels;
use crate::terms::timestamp;

labels! {
    /// The purpose of a 006 token.
    pub(super) enum LegacyKind {
        /// A channel.
        Rtc => "rtc",
        /// Signaling.
        Rtm => "rtm",
    }
}

impl LegacyKind {
    /// A token with nothing but RTM's privilege logs in; any other is for a channel, and may lack what that takes.
    pub(super) fn of(privileges: &Privileges) -> Self {
        let mut numbers = privileges.keys();
        if !privileges.is_empty() && numbers.all(|number| *number == access_token::RTM_LOGIN) {
            Self::Rtm
        } else {
            Self::Rtc
        }
    }
}

impl InspectFindings {
    /// Gives the Unix second at which Agora ends it.
    pub(super) fn judge_006(&mut self, parsed: &Parsed006, expected: &Expected<'_>) -> u64 {
        self.trailing_bytes(parsed.trailing_bytes);
        self.judge_ends(parsed);
        let end = match LegacyKind::of(&parsed.privileges) {
            LegacyKind::Rtc => {
                self.judge_channel(parsed, expected);
                JOIN_CHANNEL
            }
            LegacyKind::Rtm => {
                self.judge_login(parsed, expected);
                access_token::RTM_LOGIN
            }
        };
        match parsed.privileges.get(&end) {
            Some(0) => parsed.expires_at.into(),
            Some(end) => (*end).min(parsed.expires_at).into(),
            None => {
                self.invalid(
                    "join_privilege_missing",
                    "it lacks privilege joinChannel: its holder may not join",
                );
                parsed.expires_at.into()
            }
        }
    }

    fn judge_ends(&mut self, parsed: &Parsed006) {
        let names = |wanted: &dyn Fn(u32) -> bool| {
            let found = parsed.privileges.iter().filter(|(_, end)| wanted(**end));
            let names: Vec<String> = found
                .map(|(number, _)| privileges::legacy(*number))
                .collect();
            names.join(", ")
        };
        let relative = names(&|end| (1..UNIX_TIMES_FROM).contains(&end));
        if !relative.is_empty() {
            let message = format!(
                "privilege {relative} ends before 2001: seconds passed where 006 takes Unix times"
            );
            self.odd("relative_expiry", message);
        }
        let late = names(&|end| end > parsed.expires_at);
        if !late.is_empty() {
            let message = format!(
                "privilege {late} claims to outlive the token, which ends 24 hours after its issue"
            );
            self.odd("lifetime_cut", message);
        }
        let never = names(&|end| end == 0);
        if !never.is_empty() {
            let message =
                format!("privilege {never} is 0, never: the SDK's renewal callbacks stay silent");
            self.odd("privilege_never", message);
        }
    }

    fn judge_channel(&mut self, parsed: &Parsed006, expected: &Expected<'_>) {
        let user = expected.user.map(User::to_text);
        let fitting = numeric_users(parsed.uid_crc);
        self.judge_channel_signature(parsed, expected, user.as_deref(), &fitting);
        if let Some(channel) = expected.channel
            && !parsed.is_for_channel(channel)
        {
            self.invalid("channel_mismatch", "it is for another channel");
        }
        let fits = user.as_ref().map(|user| parsed.is_for_uid(user));
        if fits == Some(false) {
            self.invalid("uid_mismatch", "it is for another uid or account");
        }
        if fitting.is_empty() && fits != Some(true) {
            self.odd(
                "string_account",
                "no uid fits it: it was made for a string account",
            );
        }
        let issued_at = parsed.expires_at.saturating_sub(LONGEST_LIFETIME);
        let near = |uid: &u32| uid.abs_diff(issued_at) <= LONGEST_LIFETIME;
        let times = fitting.iter().filter_map(|uid| uid.parse().ok());
        if let Some(time) = times.filter(|uid| *uid >= UNIX_TIMES_FROM).find(near)
            && fits != Some(true)
        {
            let message = format!(
                "uid {time} fits it, which is {} as a Unix time: the issue time was passed as uid",
                timestamp::from_seconds(time.into())
            );
            self.odd("time_as_uid", message);
        }
        if parsed.is_for_uid("") {
            self.odd("wildcard_uid", "anyone may use it: it was made for uid 0");
        }
        if parsed.is_for_channel("") || parsed.is_for_channel("*") {
            self.odd("wildcard_channel", "it opens every channel of the app");
        }
        if parsed.privileges.contains_key(&access_token::RTM_LOGIN) {
            self.odd(
                "login_privilege",
                "it has privilege rtmLogin too: RTM takes it only where the account stands in the channel's place and the uid is empty",
            );
        }
    }

    fn judge_channel_signature(
        &mut self,
        parsed: &Parsed006,
        expected: &Expected<'_>,
        user: Option<&str>,
        fitting: &[String],
    ) {
        match (expected.certificate, expected.channel) {
            (Some(certificate), Some(channel)) => {
                let verifies = |user: &str| parsed.verify(certificate, channel, user);
                match user {
                    Some(user) => self.signature(verifies(user)),
                    // The user is found together with the signature.
                    None if fitting.iter().any(|user| verifies(user)) => self.signature(true),
                    None => self.odd(
                        "signature_not_checked",
                        "for none of the uids that fit it is it signed for this channel with this certificate: give the uid or account to check its signature",
                    ),
                }
            }
            (Some(_), None) => self.odd(
                "signature_not_checked",
                "006 tokens hold no channel or uid: give both to check the signature",
            ),
            (None, _) => {}
        }
    }

    fn judge_login(&mut self, parsed: &Parsed006, expected: &Expected<'_>) {
        let account = expected.user.map(User::to_text);
        match (expected.certificate, &account) {
            (Some(certificate), Some(account)) => {
                let right = parsed.verify(certificate, account, "");
                let misplaced = expected
                    .channel
                    .is_some_and(|channel| parsed.verify(certificate, channel, account));
                if right || misplaced || parsed.uid_crc == 0 {
                    self.signature(right || misplaced);
                } else {
                    self.odd(
                        "signature_not_checked",
                        "what stands in the account's place isn't known: give it as --channel to check the signature",
                    );
                }
            }
            (Some(_), None) => self.odd(
                "signature_not_checked",
                "006 tokens hold no account: give it to check the signature",
            ),
            (None, _) => {}
        }
        if expected.channel.is_some() {
            self.invalid(
                "no_rtc_service",
                "it is for logging in to RTM: no channel can be joined with it",
            );
        }
        if parsed.uid_crc != 0 {
            let what = match &account {
                Some(account) if parsed.is_for_uid(account) => "the account",
                _ => "something",
            };
            self.invalid(
                "account_in_uid_place",
                format!(
                    "it has {what} in the uid's place: RTM takes the account in the channel's place, and no uid"
                ),
            );
        } else if let Some(account) = &account
            && !parsed.is_for_channel(account)
        {
            self.invalid("uid_mismatch", "it is for another account");
        }
        if parsed.channel_crc == 0 {
            self.odd("wildcard_uid", "it names no account");
        }
    }
}
