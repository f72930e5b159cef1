//! Times as RFC 3339 writes them, in UTC. Pure.
//!
//! Keeps true: every number becomes a valid timestamp; what lies beyond the year 9999, the last that RFC 3339 can
//! write, becomes that year's last moment.

use std::time::{Duration, UNIX_EPOCH};

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// `2026-11-22T23:30:39Z`.
pub(crate) fn from_seconds(unix_seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(LAST_SECOND));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// `2026-11-22T23:30:39.000Z`, as JavaScript's `toISOString` writes it.
pub(crate) fn from_millis(unix_millis: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_millis.min(LAST_SECOND * 1000 + 999));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_year_9999_is_that_years_end() {
        assert_eq!(from_seconds(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(from_seconds(u64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(from_millis(1_800_000_000_007), "2027-01-15T08:00:00.007Z");
        assert_eq!(from_millis(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
