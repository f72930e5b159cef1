//! The daemon's log: `tracing` events as lines on stderr, in the configured format.
//!
//! Keeps true: level and format change while running; audit and access lines pass whatever the level; no value can
//! break out of its line ([`super::line`]); no request waits for the log's reader ([`super::line_writer`]).
//! Must not know: what is logged.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::{Registry, reload};

use super::journal;
use super::line::{Line, Shape};
use super::line_writer::{DropCounter, LineWriter};
use crate::config::model::{Log, LogFormat, LogLevel};
use crate::terms::clock::Clock;
use crate::terms::timestamp;

/// The `target` of audit events.
pub(crate) const AUDIT: &str = "audit";
/// The `target` of access log lines.
pub(crate) const ACCESS: &str = "access";

/// Lines that may wait for stderr's reader: some seconds of a busy access log, and at most some MiB.
const QUEUE_LINES: usize = 8192;

/// A log that is running; dropping it leaves it running.
#[derive(Clone, Debug)]
pub struct LogControl {
    level: reload::Handle<Targets, Registry>,
    shape: Arc<AtomicU8>,
    /// Whether the lines go to a terminal, which `log.format = "auto"` depends on.
    terminal: bool,
    writer: LineWriter,
}

/// The reader of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReader {
    /// A person at a terminal.
    Terminal,
    /// systemd's journal, which takes a priority and adds a time itself.
    Journal,
    /// A file, a pipe, a container's runtime.
    Stream,
}

impl LogControl {
    /// Puts a reloaded `[log]`'s level and format in force.
    pub fn apply(&self, settings: &Log) {
        self.shape.store(
            shape(settings.format, self.terminal) as u8,
            Ordering::Relaxed,
        );
        // This fails only when the subscriber is gone, and with it the log.
        let _ = self.level.reload(targets(settings.level));
    }

    /// Waits until what was logged so far is written, at most `deadline`. Blocks: for stopping only.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.writer.flush(deadline)
    }
}

/// A log to stderr; fails where the writer's thread can't be started. Install the subscriber with
/// `tracing::subscriber::set_global_default`.
pub(crate) fn to_stderr(
    settings: &Log,
    clock: Clock,
    dropped: DropCounter,
) -> io::Result<(impl Subscriber + Send + Sync + use<>, LogControl)> {
    let open = Box::new(|| Ok(Box::new(io::stderr()) as Box<dyn io::Write + Send>));
    let writer = LineWriter::start("log", QUEUE_LINES, open, dropped)?;
    let reader = if io::IsTerminal::is_terminal(&io::stderr()) {
        LogReader::Terminal
    } else if journal::takes_stderr() {
        LogReader::Journal
    } else {
        LogReader::Stream
    };
    Ok(to_writer(settings, clock, writer, reader))
}

/// A log to any writer.
pub fn to_writer(
    settings: &Log,
    clock: Clock,
    writer: LineWriter,
    reader: LogReader,
) -> (impl Subscriber + Send + Sync + use<>, LogControl) {
    let terminal = reader == LogReader::Terminal;
    let shape = Arc::new(AtomicU8::new(shape(settings.format, terminal) as u8));
    let (filter, level) = reload::Layer::new(targets(settings.level));
    let lines = LogLines {
        clock,
        shape: Arc::clone(&shape),
        reader: Some(reader),
        writer: writer.clone(),
    };
    let control = LogControl {
        level,
        shape,
        terminal,
        writer,
    };
    (Registry::default().with(filter).with(lines), control)
}

/// A log that takes audit events alone, as JSON: a file's lines need neither a level nor a target.
pub(super) fn audit_to_file(clock: Clock, writer: LineWriter) -> Dispatch {
    let lines = LogLines {
        clock,
        shape: Arc::new(AtomicU8::new(Shape::Json as u8)),
        reader: None,
        writer,
    };
    let audit_only = Targets::new().with_target(AUDIT, LevelFilter::INFO);
    Dispatch::new(Registry::default().with(audit_only).with(lines))
}

fn shape(format: LogFormat, terminal: bool) -> Shape {
    match format {
        LogFormat::Auto if terminal => Shape::Pretty,
        LogFormat::Auto | LogFormat::Logfmt => Shape::Logfmt,
        LogFormat::Json => Shape::Json,
        LogFormat::Pretty => Shape::Pretty,
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // `log.audit` and `log.access` switch these two, not the level.
    Targets::new()
        .with_default(level)
        .with_target(AUDIT, LevelFilter::INFO)
        .with_target(ACCESS, LevelFilter::INFO)
}

struct LogLines {
    clock: Clock,
    shape: Arc<AtomicU8>,
    /// `None`: the audit file's.
    reader: Option<LogReader>,
    writer: LineWriter,
}

impl<S: Subscriber> Layer<S> for LogLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        const LOGFMT: u8 = Shape::Logfmt as u8;
        const JSON: u8 = Shape::Json as u8;
        let mut line = Line::new(match self.shape.load(Ordering::Relaxed) {
            LOGFMT => Shape::Logfmt,
            JSON => Shape::Json,
            _ => Shape::Pretty,
        });
        let level = *event.metadata().level();
        let to_journal = self.reader == Some(LogReader::Journal);
        if !to_journal {
            line.text("time", &timestamp::from_millis(self.clock.unix_millis()));
        }
        if self.reader.is_some() {
            line.level(level);
        }
        event.record(&mut LogFields(&mut line));
        if self.reader.is_some() {
            line.text("target", event.metadata().target());
        }
        let mut line = line.finish();
        if to_journal {
            line.splice(..0, journal::prefix(level).bytes());
        }
        self.writer.write(line);
    }
}

struct LogFields<'a>(&'a mut Line);

impl Visit for LogFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(key(field), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.text(key(field), &format!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.bare(key(field), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.bare(key(field), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.bare(key(field), value);
    }
}

fn key(field: &Field) -> &'static str {
    match field.name() {
        "message" => "msg",
        name => name,
    }
}
