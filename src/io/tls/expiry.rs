//! When a certificate expires: the one field of X.509 that rustls reads and doesn't tell.
//!
//! Must not know: anything else of a certificate, or what time it is.

use crate::pki::der::serial_number;

/// `notAfter` (RFC 5280 §4.1.2.5) in seconds since the Unix epoch; 0 for times before it. `None` if this is no
/// certificate.
pub(super) fn not_after(der: &[u8]) -> Option<u64> {
    // serialNumber, signature, issuer, validity.
    let validity = serial_number(der)?.next()?.next()?.next()?;
    let after = validity.inner()?.next()?;
    let time = after.content;
    match after.tag {
        UTC_TIME => {
            // Two digits of a year: 1950 to 2049.
            let (year, rest) = digits(time, 2)?;
            seconds(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits(time, 4)?;
            seconds(year, rest)
        }
        _ => None,
    }
}

/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH: u64 = 719_468;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

fn digits(text: &[u8], count: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = text.split_at_checked(count)?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((number, rest))
}

/// Seconds since the epoch of `MMDDHHMMSSZ` in this year, UTC.
fn seconds(year: u64, text: &[u8]) -> Option<u64> {
    let (month, text) = digits(text, 2)?;
    let (day, text) = digits(text, 2)?;
    let (hour, text) = digits(text, 2)?;
    let (minute, text) = digits(text, 2)?;
    let (second, _) = digits(text, 2)?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    // Years begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days.saturating_sub(EPOCH)) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(not_after: &[u8], tag: u8) -> Vec<u8> {
        fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
            let length = u8::try_from(content.len()).unwrap();
            [&[tag, length], content].concat()
        }
        let validity = [wrap(UTC_TIME, b"200101000000Z"), wrap(tag, not_after)].concat();
        let fields = [
            wrap(0xa0, &[2, 1, 2]),
            wrap(2, &[1]),
            wrap(0x30, &[]),
            wrap(0x30, &[]),
            wrap(0x30, &validity),
        ]
        .concat();
        wrap(0x30, &wrap(0x30, &fields))
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let table: [(&[u8], u8, u64); 6] = [
            (b"700101000000Z", UTC_TIME, 0),
            (b"261123014311Z", UTC_TIME, 1_795_398_191),
            (b"240229235959Z", UTC_TIME, 1_709_251_199),
            (b"491231235959Z", UTC_TIME, 2_524_607_999),
            (b"20500101000000Z", GENERALIZED_TIME, 2_524_608_000),
            (b"99991231235959Z", GENERALIZED_TIME, 253_402_300_799),
        ];
        for (time, tag, expected) in table {
            let found = not_after(&certificate(time, tag));
            assert_eq!(found, Some(expected), "{:?}", std::str::from_utf8(time));
        }
    }

    #[test]
    fn a_damaged_certificate_has_no_expiry_and_never_panics() {
        let whole = certificate(b"261123014311Z", UTC_TIME);
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None, "{length}");
        }
        assert_eq!(not_after(&certificate(b"261323014311Z", UTC_TIME)), None);
        assert_eq!(not_after(&[0x30, 0xff]), None);
    }
}
