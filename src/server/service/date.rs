//! The `Date` field of renewd's own responses (RFC 9110 §6.6.1), formatted once a second.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

use crate::terms::clock::Clock;

/// The field of the last second in which one was needed.
#[derive(Debug, Default)]
pub(crate) struct DateField(RefCell<Option<(u64, HeaderValue)>>);

impl DateField {
    /// The field for now.
    pub(crate) fn now(&self, clock: &Clock) -> HeaderValue {
        let second = clock.unix_seconds();
        let mut last = self.0.borrow_mut();
        match &*last {
            Some((written, value)) if *written == second => value.clone(),
            _ => {
                let value = field(second);
                *last = Some((second, value.clone()));
                value
            }
        }
    }
}

fn field(unix_seconds: u64) -> HeaderValue {
    // 9999-12-31 is the last day that the format can write.
    let time = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(253_402_300_799));
    HeaderValue::try_from(httpdate::fmt_http_date(time))
        .unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_follows_the_clock_in_imf_fixdate() {
        let clock = Clock::manual(784_111_777);
        let date = DateField::default();
        assert_eq!(date.now(&clock), "Sun, 06 Nov 1994 08:49:37 GMT");
        clock.advance(Duration::from_secs(1));
        assert_eq!(date.now(&clock), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
