//! `[agora]` and `[token]`: what is minted, how long it lives.
//!
//! Keeps true: half the lifetime is always left before `refreshAt`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::seconds;
use crate::config::credentials::{Found, Secrets};
use crate::config::model::{Agora, DefaultRole, Token, TokenFormat, ZeroUid};
use crate::config::raw::{Table, in_one_unit};
use crate::config::secret::Secret;

const HEXADECIMAL_HINT: &str = "copy the 32 hexadecimal digits from Agora's console";

pub(super) fn agora(table: &Table<'_>, secrets: &Secrets<'_>) -> Agora {
    if table.item("app_id").is_none() {
        table.missing("app_id", HEXADECIMAL_HINT);
    }
    if let Some(item) = table.item("app_id")
        && let Some(text) = item.text()
    {
        if !is_hexadecimal(text.as_bytes()) {
            item.error("not an app id", HEXADECIMAL_HINT);
        } else if text.bytes().all(|digit| digit == b'0') {
            item.warning("this is the example's app id", HEXADECIMAL_HINT);
        }
    }
    let app_certificate = match secrets.read(table, "app_certificate") {
        Found::Absent => {
            table.missing(
                "app_certificate",
                "app_certificate = \"credential:agora_certificate\", \"env:NAME\", or app_certificate_file",
            );
            None
        }
        Found::Unknown => None,
        Found::Secret(secret, item) => {
            if !is_hexadecimal(secret.expose()) {
                item.error("not a certificate", HEXADECIMAL_HINT);
            }
            Some(secret)
        }
    };
    Agora {
        app_id: table.text("app_id", ""),
        app_certificate: app_certificate.unwrap_or_else(|| Secret::new(Vec::new())),
    }
}

fn is_hexadecimal(bytes: &[u8]) -> bool {
    bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit)
}

pub(super) fn token(table: &Table<'_>) -> Token {
    const LIFETIMES: RangeInclusive<Duration> = seconds(60)..=seconds(24 * 3600);
    const WARNED_ABOVE: Duration = seconds(2 * 3600);
    let lifetime = whole_seconds(table, "lifetime", LIFETIMES).unwrap_or(seconds(3600));
    if let Some(item) = table.item("lifetime")
        && lifetime > WARNED_ABOVE
    {
        item.warning(
            "a token can't be recalled: whoever has one may use it this long",
            "2h or less",
        );
    }
    let half = seconds(lifetime.as_secs() / 2);
    let any = Duration::ZERO..=*LIFETIMES.end();
    let refresh_before = whole_seconds(table, "refresh_before", any);
    if let Some(item) = table.item("refresh_before")
        && refresh_before.is_some_and(|before| before > half)
    {
        let half = in_one_unit(half);
        item.error(
            "more than half the lifetime",
            format!("write at most \"{half}\""),
        );
    }
    let formats = [("007", TokenFormat::V007), ("006", TokenFormat::V006)];
    let roles = [
        ("auto", DefaultRole::Auto),
        ("publisher", DefaultRole::Publisher),
        ("subscriber", DefaultRole::Subscriber),
    ];
    let zero_uids = [("reject", ZeroUid::Reject), ("allow", ZeroUid::Allow)];
    Token {
        lifetime,
        // Left out with a short lifetime it is the half, not an error about a line that isn't there.
        refresh_before: refresh_before.unwrap_or(seconds(600).min(half)),
        format: table.choice("format", &formats, TokenFormat::V007),
        default_role: table.choice("default_role", &roles, DefaultRole::Auto),
        zero_uid: table.choice("zero_uid", &zero_uids, ZeroUid::Reject),
    }
}

fn whole_seconds(
    table: &Table<'_>,
    name: &str,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    let item = table.item(name)?;
    let duration = item.duration(range)?;
    if duration.subsec_nanos() != 0 {
        item.error("tokens count whole seconds", "leave the fraction out");
        return None;
    }
    Some(duration)
}
