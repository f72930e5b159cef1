//! The `process_*` metrics that every Prometheus client exports, read from `/proc/self` alone.
//!
//! Keeps true: what can't be read is left out, never invented. `/proc/stat`, which the unit's `ProcSubset=pid` hides,
//! isn't needed: the start time is taken in-process.
//! Must not know: renewd's own metrics.

use std::fmt::Write as _;
use std::fs;

/// The families in text format; `started` is the process's start in seconds since the Unix epoch.
pub(crate) fn render(started: f64) -> String {
    let mut text = String::new();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = Stat::parse(&stat);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let descriptors = open_descriptors();

    let ticks = rustix::param::clock_ticks_per_second();
    let page = rustix::param::page_size();
    let mut family = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a string can't fail.
            let _ = write!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        }
    };
    family(
        "process_cpu_seconds_total",
        "counter",
        "User and system CPU time spent, in seconds.",
        stat.as_ref()
            .map(|stat| number(stat.cpu_ticks) / number(ticks.max(1))),
    );
    family(
        "process_threads",
        "gauge",
        "Threads of the process.",
        stat.as_ref().map(|stat| number(stat.threads)),
    );
    family(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory size in bytes.",
        stat.as_ref().map(|stat| number(stat.virtual_bytes)),
    );
    family(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        stat.as_ref()
            .map(|stat| number(stat.resident_pages) * number(page)),
    );
    family(
        "process_open_fds",
        "gauge",
        "Open file descriptors.",
        descriptors.map(number),
    );
    family(
        "process_max_fds",
        "gauge",
        "The soft limit of open file descriptors.",
        soft_descriptor_limit(&limits),
    );
    family(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since the Unix epoch.",
        Some(started),
    );
    text
}

/// The open descriptors of this process. Linux tells their number as the directory's size from 6.2 on, which costs
/// nothing; listing ten thousand of them takes longer than all the rest of a scrape.
fn open_descriptors() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    let told = fs::metadata(DIRECTORY).ok()?.len();
    if told > 0 {
        return Some(told);
    }
    let listed = fs::read_dir(DIRECTORY).ok()?.count();
    // Listing the directory opens one more.
    u64::try_from(listed).ok()?.checked_sub(1)
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads `proc_pid_stat(5)`. Fields are counted from the end of the command's name, which may hold spaces and
    /// brackets.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The manual counts from 1 and the state behind the name is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn soft_descriptor_limit(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(number(u64::MAX)),
        soft => soft.parse::<u64>().ok().map(number),
    }
}

#[allow(clippy::cast_precision_loss)] // exact to 2^53
pub(super) fn number(value: impl TryInto<u64>) -> f64 {
    value.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let text = "7 (a) 1 2) S 1 7 7 0 -1 4194560 500 0 0 0 30 12 0 0 20 0 9 0 4711 1000 25 18446744073709551615 1";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                cpu_ticks: 42,
                threads: 9,
                virtual_bytes: 1000,
                resident_pages: 25
            })
        );
        assert_eq!(Stat::parse("7 (x) S 1"), None);
    }

    #[test]
    fn the_soft_limit_is_the_first_number() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_descriptor_limit(limits), Some(1024.0));
        assert_eq!(soft_descriptor_limit(""), None);
    }

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let text = render(1.5);
        for name in [
            "process_cpu_seconds_total",
            "process_threads",
            "process_virtual_memory_bytes",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name} in {text}");
        }
        assert!(text.contains("\nprocess_start_time_seconds 1.5\n"));
    }

    #[test]
    fn each_open_file_is_one_descriptor_more() {
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..500)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let with_files = open_descriptors().unwrap();
        drop(files);
        // Other tests of the same process may open some as well.
        assert!((450..=550).contains(&(with_files - before)));
    }
}
