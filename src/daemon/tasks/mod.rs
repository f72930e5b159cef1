//! The tasks that run beside the requests for as long as the process does, one file a task.
//!
//! Keeps true: no task blocks a worker.
//! Must not know: requests and connections.

pub(crate) mod change_journal;
pub(crate) mod ejection_journal;
pub(crate) mod ejection_requests;
pub(crate) mod exposure;
pub(crate) mod finishing;
pub(crate) mod health;
pub mod lapses;
pub(crate) mod revocation_journal;
pub(crate) mod revocation_sharing;
pub(crate) mod session_journal;
pub(crate) mod session_sharing;
pub(crate) mod upkeep;

use std::time::Duration;

/// `first`, doubled `times` times, and at most `longest`: the pause before a failed attempt is repeated.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times);
    factor
        .and_then(|factor| first.checked_mul(factor))
        .map_or(longest, |pause| pause.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest() {
        let longest = Duration::from_secs(30);
        let pauses = [0, 1, 2, 3, 4, 31, 32, u32::MAX]
            .map(|times| doubled(Duration::from_secs(2), times, longest));
        assert_eq!(
            pauses.map(|pause| pause.as_secs()),
            [2, 4, 8, 16, 30, 30, 30, 30]
        );
    }
}
