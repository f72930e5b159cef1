//! Problems of the names in a 007 token: names that no client can join with, though Agora's builders sign them.
//!
//! Must not know: what the token is compared with, apart from the account.

use super::AgoraError;
use super::findings::InspectFindings;
use crate::agora::charset::{self, NameError};
use crate::agora::service::{AgoraService, ServiceKind};

/// Texts that a program writes where a value was absent, or no number.
const NO_VALUES: [&str; 7] = [
    "undefined",
    "null",
    "None",
    "NaN",
    "Infinity",
    "[object Object]",
    "false",
];

impl InspectFindings {
    /// `account` is the user as which the client joins, if that is a string.
    pub(super) fn judge_names(&mut self, services: &[AgoraService], account: Option<&str>) {
        for service in services {
            match &service.kind {
                ServiceKind::Rtc { channel, uid } => {
                    self.judge_channel_name(&String::from_utf8_lossy(channel));
                    self.judge_uid(&String::from_utf8_lossy(uid), account);
                }
                ServiceKind::Rtm { user }
                | ServiceKind::Rtm2 { user, .. }
                | ServiceKind::Chat { user } => {
                    self.judge_user_id(&String::from_utf8_lossy(user), service.kind.name());
                }
                _ => {}
            }
        }
    }

    fn judge_channel_name(&mut self, channel: &str) {
        // Wildcards have a finding of their own.
        if let Err(error) = charset::channel_name(channel)
            && !matches!(error, NameError::Empty | NameError::Wildcard)
        {
            self.add(
                "bad_channel",
                Some(AgoraError::InvalidChannelName),
                format!("the channel {error}"),
            );
        }
    }

    fn judge_uid(&mut self, uid: &str, account: Option<&str>) {
        if uid.is_empty() || uid.contains('*') {
            return;
        }
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if digits(uid) {
            let right = uid.parse::<u32>();
            match right {
                Ok(0) => self.invalid(
                    "uid_zero",
                    "the uid is the text 0, with which no user can join: uid 0 is written as nothing",
                ),
                Ok(number) if number.to_string() != uid => self.invalid(
                    "uid_spelling",
                    format!("the uid has zeros before it: {number} is written without them"),
                ),
                Ok(_) => {}
                Err(_) => self.invalid(
                    "uid_too_large",
                    "the uid is above 4294967295, with which no user can join",
                ),
            }
            return;
        }
        if account == Some(uid) && charset::user_account(uid).is_ok() {
            return;
        }
        if let Some(number) = uid.parse::<i32>().ok().filter(|number| *number < 0) {
            let unsigned = number.cast_unsigned();
            self.invalid(
                "uid_negative",
                format!(
                    "the uid is written as {number}, as Java shows it: the token needs {unsigned}"
                ),
            );
        } else if NO_VALUES.contains(&uid) || is_fraction(uid) {
            self.invalid(
                "uid_no_number",
                "the uid is the text of a value that is no uid: something else was passed in its place",
            );
        } else if let Err(error) = charset::user_account(uid) {
            self.add(
                "bad_account",
                Some(AgoraError::InvalidUserAccount),
                format!("the account {error}"),
            );
        }
    }

    fn judge_user_id(&mut self, user: &str, service: &str) {
        if NO_VALUES.contains(&user) {
            let message = format!("the user of {service} is the text of a value that wasn't there");
            self.odd("bad_user_id", message);
        } else if let Err(error) = charset::messaging_id(user) {
            self.odd("bad_user_id", format!("the user of {service} {error}"));
        }
    }
}

/// Whether this is how JavaScript writes a number that isn't whole, or is too large to write out.
fn is_fraction(uid: &str) -> bool {
    let begins = uid.starts_with(|first: char| first.is_ascii_digit());
    begins && (uid.contains('.') || uid.contains("e+")) && uid.parse::<f64>().is_ok()
}
