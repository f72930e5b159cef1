//! `[agora]` and `[token]`: which tokens are minted, and how long they live.
//!
//! Keeps true: half the lifetime is always left before `refreshAt`; a token and its backup end within 24 hours.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{agora_rest, seconds, tiers};
use crate::agora::TokenFormat;
use crate::config::credentials::{SecretLookup, SecretReader};
use crate::config::model::{Agora, DefaultRole, Services, TokenConfig, ZeroUid};
use crate::config::raw::{RawItem, RawTable, in_one_unit};
use crate::config::secret::Secret;

const HEXADECIMAL_HINT: &str = "copy the 32 hexadecimal digits from Agora's console";

/// Agora ends every token after this, whatever it says.
pub(super) const LONGEST_LIFETIME: Duration = seconds(24 * 3600);

pub(super) fn agora(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Agora {
    if let Some(item) = table.required("app_id", HEXADECIMAL_HINT)
        && let Some(text) = item.text()
    {
        if !is_hexadecimal(text.as_bytes()) {
            item.error("not an app id", HEXADECIMAL_HINT);
        } else if text.bytes().all(|digit| digit == b'0') {
            item.warning("this is the example's app id", HEXADECIMAL_HINT);
        }
    }
    let app_certificate = match secrets.read(table, "app_certificate") {
        SecretLookup::Absent => {
            table.missing(
                "app_certificate",
                "app_certificate = \"credential:agora_certificate\", \"env:NAME\", or app_certificate_file",
            );
            None
        }
        found => certificate(found).map(|(secret, _)| secret),
    };
    let app_certificate = app_certificate.unwrap_or_else(|| Secret::new(Vec::new()));
    let other = |name: &str| {
        // `""` is none, as if the key were left out.
        let empty = table.item(name).and_then(|item| item.if_text()) == Some("");
        if empty && table.item(&format!("{name}_file")).is_none() {
            return None;
        }
        let (secret, item) = certificate(secrets.read(table, name))?;
        if secret == app_certificate {
            item.warning(
                "the same as app_certificate",
                "leave it out, or give the other certificate",
            );
        }
        Some(secret)
    };
    Agora {
        rest: agora_rest::agora_rest(&table.table("rest"), secrets),
        previous_certificate: other("previous_certificate"),
        backend_certificate: other("backend_certificate"),
        app_id: table.text("app_id", ""),
        app_certificate,
    }
}

fn certificate(found: SecretLookup<'_>) -> Option<(Secret, RawItem<'_>)> {
    let SecretLookup::Secret(secret, item) = found else {
        return None;
    };
    if !is_hexadecimal(secret.expose()) {
        item.error("not a certificate", HEXADECIMAL_HINT);
    } else if secret.expose().iter().all(|digit| *digit == b'0') {
        item.warning("this is an example's certificate", HEXADECIMAL_HINT);
    }
    Some((secret, item))
}

fn is_hexadecimal(bytes: &[u8]) -> bool {
    bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit)
}

pub(super) fn token(table: &RawTable<'_>) -> TokenConfig {
    let written = lifetime(table);
    let lifetime = written.unwrap_or(seconds(3600));
    let half = seconds(lifetime.as_secs() / 2);
    // A wrong lifetime isn't compared with the other times: their bounds depend on it.
    let known = written.is_some() || table.item("lifetime").is_none();
    let refresh_before = at_most_half(table, "refresh_before", known.then_some(half));
    let jitter = at_most_half(table, "jitter", known.then_some(half)).unwrap_or_default();
    let backup = backup(table, known.then_some(lifetime));
    if let Some(item) = table.item("lifetime") {
        warn_if_long(&item, lifetime);
    }
    let formats = [("007", TokenFormat::V007), ("006", TokenFormat::V006)];
    let format = table.choice("format", &formats, TokenFormat::V007);
    let services = services(table, format);
    let roles = [
        ("auto", DefaultRole::Auto),
        ("publisher", DefaultRole::Publisher),
        ("subscriber", DefaultRole::Subscriber),
    ];
    let zero_uids = [("reject", ZeroUid::Reject), ("allow", ZeroUid::Allow)];
    TokenConfig {
        lifetime,
        // With a short lifetime the default is half of it, instead of an error about a key that isn't written.
        refresh_before: refresh_before.unwrap_or(seconds(600).min(half)),
        jitter,
        backup,
        services,
        messaging_id_claim: messaging_id_claim(table, services),
        tiers: tiers::tiers(table, backup),
        format,
        default_role: table.choice("default_role", &roles, DefaultRole::Auto),
        zero_uid: table.choice("zero_uid", &zero_uids, ZeroUid::Reject),
    }
}

/// `lifetime`, of `[token]` or a tier.
pub(super) fn lifetime(table: &RawTable<'_>) -> Option<Duration> {
    whole_seconds(table, "lifetime", seconds(60)..=LONGEST_LIFETIME)
}

/// Warns where a token, or a token and its backup, live long; `item` says how long.
pub(super) fn warn_if_long(item: &RawItem<'_>, lifetime: Duration) {
    if is_long(lifetime) {
        item.warning(
            "a token can't be recalled: its holder can use it this long",
            "2h or less, token.backup included",
        );
    }
}

fn is_long(lifetime: Duration) -> bool {
    lifetime > seconds(2 * 3600)
}

fn at_most_half(table: &RawTable<'_>, name: &str, half: Option<Duration>) -> Option<Duration> {
    let duration = whole_seconds(table, name, Duration::ZERO..=LONGEST_LIFETIME)?;
    if let Some(half) = half.filter(|half| duration > *half)
        && let Some(item) = table.item(name)
    {
        let half = in_one_unit(half);
        item.error(
            "more than half the lifetime",
            format!("write at most \"{half}\""),
        );
    }
    Some(duration)
}

fn backup(table: &RawTable<'_>, lifetime: Option<Duration>) -> Duration {
    let longest = Duration::ZERO..=LONGEST_LIFETIME;
    let backup = whole_seconds(table, "backup", longest).unwrap_or_default();
    if let Some((item, lifetime)) = table.item("backup").zip(lifetime) {
        if lifetime + backup > LONGEST_LIFETIME {
            let most = in_one_unit(LONGEST_LIFETIME.saturating_sub(lifetime));
            item.error(
                "with the lifetime more than 24h, when Agora ends every token",
                format!("write at most \"{most}\""),
            );
        } else if !is_long(lifetime) {
            warn_if_long(&item, lifetime + backup);
        }
    }
    backup
}

fn services(table: &RawTable<'_>, format: TokenFormat) -> Services {
    const HINT: &str = "write [\"rtc\"], or \"rtm\" and \"chat\" with it";
    let mut services = Services::default();
    let Some(item) = table.item("services") else {
        return services;
    };
    let (mut rtc, mut understood) = (false, true);
    for entry in item.list().unwrap_or_default() {
        let Some(service) = entry.choice(&[("rtc", 0), ("rtm", 1), ("chat", 2)]) else {
            understood = false;
            continue;
        };
        let listed = match service {
            0 => &mut rtc,
            1 => &mut services.rtm,
            _ => &mut services.chat,
        };
        if std::mem::replace(listed, true) {
            entry.error("listed twice", "name each service once");
        }
    }
    if !rtc && understood {
        item.error("\"rtc\" is missing, which every token has", HINT);
    }
    if services.any() && format == TokenFormat::V006 {
        item.error(
            "a \"006\" token holds RTC alone",
            "write format = \"007\", or services = [\"rtc\"]",
        );
    }
    services
}

fn messaging_id_claim(table: &RawTable<'_>, services: Services) -> String {
    let claim = table.text("messaging_id_claim", "");
    if let Some(item) = table.item("messaging_id_claim")
        && !claim.is_empty()
        && !services.any()
    {
        item.warning(
            "says nothing as long as tokens are for RTC alone",
            "add \"rtm\" or \"chat\" to token.services",
        );
    }
    claim
}

fn whole_seconds(
    table: &RawTable<'_>,
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
