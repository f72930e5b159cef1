//! Time and randomness, injected: the only file that asks the system for either.
//!
//! Keeps true: the monotonic clock starts at 0 when the clock is made (process start) and never goes back, whatever
//! becomes of the time of day.
//! Must not know: what is measured with it.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The plausible times of day, in Unix seconds: from 2020 to 2100. A machine whose battery is empty starts in 1970, or
/// in the year its firmware was made. Such a time doesn't tell whether a login or a token has expired.
const PLAUSIBLE: Range<u64> = 1_577_836_800..4_102_444_800;

/// Whether a time of day may be the true one.
pub(crate) fn is_plausible(unix_seconds: u64) -> bool {
    PLAUSIBLE.contains(&unix_seconds)
}

/// The time of day and the time since the process started.
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

#[derive(Clone, Debug)]
enum TimeSource {
    System { start: Instant },
    Manual(Arc<ManualTime>),
}

#[derive(Debug)]
struct ManualTime {
    /// The time of day when the clock was made, moved along with each later setting.
    start_unix_millis: AtomicI64,
    elapsed_millis: AtomicU64,
}

impl Clock {
    /// The machine's clocks.
    #[allow(clippy::disallowed_methods)] // this file is the one place
    pub fn system() -> Self {
        Self(TimeSource::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it, for tests.
    pub fn manual(start_unix_seconds: u64) -> Self {
        Self(TimeSource::Manual(Arc::new(ManualTime {
            start_unix_millis: AtomicI64::new(signed_millis(start_unix_seconds)),
            elapsed_millis: AtomicU64::new(0),
        })))
    }

    /// Moves a manual clock forward; the system's clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let TimeSource::Manual(time) = &self.0 {
            time.elapsed_millis.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Sets the time of day of a manual clock, forward or back; the time since the start goes on as before. The
    /// system's clock ignores it.
    pub fn set(&self, unix_seconds: u64) {
        if let TimeSource::Manual(time) = &self.0 {
            let elapsed = time.elapsed_millis.load(Ordering::SeqCst);
            let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
            let start = signed_millis(unix_seconds).saturating_sub(elapsed);
            time.start_unix_millis.store(start, Ordering::SeqCst);
        }
    }

    /// Whether the time of day may be the true one.
    pub(crate) fn is_plausible(&self) -> bool {
        is_plausible(self.unix_seconds())
    }

    /// Seconds since the Unix epoch; 0 where the time of day can't be the true one, so that nothing counts as over.
    pub(crate) fn plausible_seconds(&self) -> u64 {
        let now = self.unix_seconds();
        if is_plausible(now) { now } else { 0 }
    }

    /// Milliseconds since the Unix epoch. A clock set before 1970 reads 0.
    #[allow(clippy::disallowed_methods)] // this file is the one place
    pub(crate) fn unix_millis(&self) -> u64 {
        match &self.0 {
            TimeSource::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, millis),
            TimeSource::Manual(time) => {
                let start = time.start_unix_millis.load(Ordering::SeqCst);
                let now = start.saturating_add_unsigned(time.elapsed_millis.load(Ordering::SeqCst));
                u64::try_from(now).unwrap_or(0)
            }
        }
    }

    /// Whole seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_millis() / 1000
    }

    /// [`Clock::elapsed`] as of the [`Turn`]'s time, for metrics.
    pub(crate) fn elapsed_in_turn(&self) -> Duration {
        match &self.0 {
            TimeSource::System { start } => turn_now().into_std().saturating_duration_since(*start),
            TimeSource::Manual(_) => self.elapsed(),
        }
    }

    /// [`Clock::elapsed`], which is the [`Turn`]'s time from here on.
    pub(crate) fn elapsed_for_turn(&self) -> Duration {
        if let TurnTime::Read(_) = TURN.get() {
            TURN.set(TurnTime::Unread);
        }
        self.elapsed_in_turn()
    }

    /// Time since this clock was made; monotonic.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            TimeSource::System { start } => start.elapsed(),
            TimeSource::Manual(time) => {
                Duration::from_millis(time.elapsed_millis.load(Ordering::SeqCst))
            }
        }
    }
}

thread_local! {
    /// The time of this thread's turn, once it was asked for.
    static TURN: Cell<TurnTime> = const { Cell::new(TurnTime::None) };
}

#[derive(Clone, Copy)]
enum TurnTime {
    /// No turn is under way.
    None,
    /// Nobody has asked yet.
    Unread,
    Read(tokio::time::Instant),
}

/// One turn of a task, in which [`turn_now`] reads the clock once.
#[derive(Debug)]
pub(crate) struct Turn(());

impl Turn {
    /// Begins with a poll of the task, and ends when it is dropped.
    pub(crate) fn begin() -> Self {
        TURN.set(TurnTime::Unread);
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.set(TurnTime::None);
    }
}

/// [`timer_now`], read at most once in a [`Turn`]: exact enough for deadlines and metrics. Whatever decides whether an
/// answer is older than a request asks a [`Clock`] instead.
pub(crate) fn turn_now() -> tokio::time::Instant {
    if let TurnTime::Read(now) = TURN.get() {
        return now;
    }
    let now = timer_now();
    if let TurnTime::Unread = TURN.get() {
        TURN.set(TurnTime::Read(now));
    }
    now
}

/// The time of the runtime's timers, for IO deadlines; tests that pause tokio's time pause it too.
#[allow(clippy::disallowed_methods)] // this file is the one place
pub fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn signed_millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Random numbers from the system's generator, or fixed ones for byte-equal tests.
#[derive(Clone, Copy, Debug)]
pub enum Entropy {
    /// `getrandom(2)`.
    System,
    /// Always this number.
    Fixed(u64),
}

/// The system's generator gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("the system's random generator failed: {0}")]
pub struct EntropyError(getrandom::Error);

impl Entropy {
    /// 64 random bits.
    #[allow(clippy::disallowed_methods)] // this file is the one place
    pub(crate) fn u64(self) -> Result<u64, EntropyError> {
        match self {
            Self::Fixed(number) => Ok(number),
            Self::System => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).map_err(EntropyError)?;
                Ok(u64::from_ne_bytes(bytes))
            }
        }
    }

    /// A token's salt, 1 to 99 999 999 as Agora's own builders draw it.
    pub(crate) fn salt(self) -> Result<u32, EntropyError> {
        let number = self.u64()?;
        Ok(u32::try_from(number % 99_999_999).unwrap_or(0) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_says_so_and_goes_on_as_before() {
        let clock = Clock::manual(1_800_000_000);
        clock.advance(Duration::from_secs(10));
        for time in [1_799_996_410, 0, 4_294_967_296, 1_800_000_010] {
            clock.set(time);
            assert_eq!(clock.unix_seconds(), time);
            clock.advance(Duration::from_secs(1));
            assert_eq!(clock.unix_seconds(), time + 1);
        }
        assert_eq!(clock.elapsed(), Duration::from_secs(14));
        clock.set(u64::MAX);
        assert!(!clock.is_plausible());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_read_once_in_a_turn_and_anew_outside() {
        let start = timer_now();
        let second = Duration::from_secs(1);
        let turn = Turn::begin();
        tokio::time::advance(second).await;
        assert_eq!(
            turn_now(),
            start + second,
            "the turn begins to count when it is asked"
        );
        tokio::time::advance(second).await;
        assert_eq!(turn_now(), start + second);
        Clock::system().elapsed_for_turn();
        assert_eq!(
            turn_now(),
            start + 2 * second,
            "a time is the turn's from then on"
        );
        tokio::time::advance(second).await;
        assert_eq!(turn_now(), start + 2 * second);
        drop(turn);
        assert_eq!(turn_now(), start + 3 * second);
        tokio::time::advance(second).await;
        assert_eq!(turn_now(), start + 4 * second);
    }

    #[test]
    fn only_times_from_2020_to_2100_may_be_true() {
        for (text, plausible) in [
            ("1970-01-01T00:00:00Z", false),
            ("2019-12-31T23:59:59Z", false),
            ("2020-01-01T00:00:00Z", true),
            ("2099-12-31T23:59:59Z", true),
            ("2100-01-01T00:00:00Z", false),
            ("2106-02-07T06:28:16Z", false),
        ] {
            let time = humantime::parse_rfc3339(text).unwrap();
            let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(is_plausible(seconds), plausible, "{text}");
        }
    }
}
