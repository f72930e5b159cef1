//! A real daemon's clock, moved forward: what takes minutes happens now. The time of day stays as it is.
//!
//! The kernel's timers go by its own clock, so that a thread that waits with a deadline waits for longer. Whatever
//! waits on tokio's timers, as all of renewd's tasks do, sees the time that has passed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// See the module.
pub struct MovedClock {
    directory: tempfile::TempDir,
    seconds: File,
}

impl MovedClock {
    /// A clock that is not moved yet.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/moved_clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(directory.path().join("clock.so"))
            .arg(source)
            .status();
        assert!(compiled.expect("cc (Debian: build-essential)").success());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let seconds = options.open(directory.path().join("seconds")).unwrap();
        let clock = Self { directory, seconds };
        clock.forward(Duration::ZERO);
        clock
    }

    /// Gives a daemon that is to be started this clock.
    pub fn is_used_by(&self, command: &mut Command) {
        let file = |name: &str| self.directory.path().join(name);
        command
            .env("LD_PRELOAD", file("clock.so"))
            .env("RENEWD_TEST_CLOCK", file("seconds"));
    }

    /// Lets this time have passed, beside what really has.
    pub fn forward(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap();
        let bytes = seconds.to_ne_bytes();
        self.seconds.write_all_at(&bytes, 0).unwrap();
    }
}
