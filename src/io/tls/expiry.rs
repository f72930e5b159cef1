//! When a certificate expires: a field of X.509 that rustls checks and doesn't expose
//! (<https://github.com/rustls/rustls/issues/1804>).
//!
//! Must not know: any other field of a certificate, or what time it is.

use std::time::UNIX_EPOCH;

use crate::pki::der::serial_number;

/// `notAfter` (RFC 5280 §4.1.2.5) in seconds since the Unix epoch; 0 for times before it. `None` if this is no
/// certificate.
pub(super) fn not_after(der: &[u8]) -> Option<u64> {
    // serialNumber, signature, issuer, validity.
    let validity = serial_number(der)?.next()?.next()?.next()?;
    let after = validity.inner()?.next()?;
    let time = after.content;
    let time = std::str::from_utf8(time).ok()?;
    match after.tag {
        UTC_TIME => {
            let (year, rest) = time.split_at_checked(2)?;
            let century = if year < "50" { "20" } else { "19" };
            seconds(&[century, year].concat(), rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = time.split_at_checked(4)?;
            seconds(year, rest)
        }
        _ => None,
    }
}

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since the epoch of `MMDDHHMMSSZ` in this year, UTC.
fn seconds(year: &str, rest: &str) -> Option<u64> {
    if year < "1970" {
        return Some(0);
    }
    let two = |at| rest.get(at..at + 2);
    let (month, day) = (two(0)?, two(2)?);
    let (hour, minute, second) = (two(4)?, two(6)?, two(8)?);
    let written = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let time = humantime::parse_rfc3339(&written).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
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
