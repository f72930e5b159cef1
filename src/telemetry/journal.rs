//! How lines reach systemd's journal with their priority: `<N>` in front of each (`sd-daemon(3)`).
//!
//! Keeps true: nothing changes where stderr is anything but the journal, such as a file to which a unit sends it.
//! Must not know: what a line says.

use std::ffi::OsStr;
use std::io::{self, Write};

use tracing::Level;

/// Whether stderr is the stream that the service manager connected to the journal (`$JOURNAL_STREAM`,
/// `systemd.exec(5)`).
pub(crate) fn takes_stderr() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = rustix::fs::fstat(io::stderr());
    stderr
        .is_ok_and(|stderr| stream == *OsStr::new(&format!("{}:{}", stderr.st_dev, stderr.st_ino)))
}

/// The prefix of a line of this level: the priority of `syslog(3)`.
pub(crate) fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Writes a report of errors to stderr, each of its lines an error in the journal.
pub(crate) fn report(text: &str) -> io::Result<()> {
    let prefix = if takes_stderr() {
        prefix(Level::ERROR)
    } else {
        ""
    };
    let mut lines = String::new();
    for line in text.lines() {
        lines.push_str(prefix);
        lines.push_str(line);
        lines.push('\n');
    }
    io::stderr().write_all(lines.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_syslogs_number() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG];
        assert_eq!(levels.map(prefix), ["<3>", "<4>", "<6>", "<7>"]);
    }
}
