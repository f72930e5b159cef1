//! Time and randomness, injected: the only file that asks the system for either.
//!
//! Keeps true: the monotonic clock starts at 0 when the clock is made (process start) and never goes back.
//! Must not know: what anybody measures with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of day and the time since the process started.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant },
    Manual(Arc<ManualTime>),
}

#[derive(Debug)]
struct ManualTime {
    start_unix_millis: u64,
    elapsed_millis: AtomicU64,
}

impl Clock {
    /// The machine's clocks.
    #[allow(clippy::disallowed_methods)] // this file is the one place
    pub fn system() -> Self {
        Self(Source::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it: for tests that travel in time.
    pub fn manual(start_unix_seconds: u64) -> Self {
        Self(Source::Manual(Arc::new(ManualTime {
            start_unix_millis: start_unix_seconds.saturating_mul(1000),
            elapsed_millis: AtomicU64::new(0),
        })))
    }

    /// Moves a manual clock forward; the system's clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(time) = &self.0 {
            time.elapsed_millis.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    /// Milliseconds since the Unix epoch. A clock set before 1970 reads 0.
    #[allow(clippy::disallowed_methods)] // this file is the one place
    pub fn unix_millis(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, millis),
            Source::Manual(time) => time
                .start_unix_millis
                .saturating_add(time.elapsed_millis.load(Ordering::SeqCst)),
        }
    }

    /// Whole seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_millis() / 1000
    }

    /// Time since this clock was made; monotonic.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual(time) => {
                Duration::from_millis(time.elapsed_millis.load(Ordering::SeqCst))
            }
        }
    }
}

/// The time of the runtime's timers, for IO deadlines; tests that pause tokio's time pause it too.
#[allow(clippy::disallowed_methods)] // this file is the one place
pub fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
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
    pub fn u64(self) -> Result<u64, EntropyError> {
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
    pub fn salt(self) -> Result<u32, EntropyError> {
        let number = self.u64()?;
        Ok(u32::try_from(number % 99_999_999).unwrap_or(0) + 1)
    }
}
