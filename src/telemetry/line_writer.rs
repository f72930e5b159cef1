//! Writes lines on a thread of its own, so that no request ever waits for a log's reader.
//!
//! Keeps true: writing never blocks; the queue is bounded; what doesn't fit, or can't be written, is counted; the log
//! says when lines begin to be lost to a full disk, and when they no longer are; a line that was cut ends before the
//! next.
//! Must not know: what a line says.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

/// How many lines all writers that share this have lost.
#[derive(Clone, Debug, Default)]
pub struct DropCounter(Arc<AtomicU64>);

impl DropCounter {
    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Opens the destination: at start, and again on [`LineWriter::reopen`].
pub(crate) type OpenDestination = Box<dyn FnMut() -> std::io::Result<Box<dyn Write + Send>> + Send>;

/// A bounded queue in front of a writing thread. Clones share it; the thread ends when all are gone.
#[derive(Clone, Debug)]
pub struct LineWriter {
    queue: SyncSender<Message>,
    dropped: DropCounter,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

impl LineWriter {
    /// Starts the thread; fails where the destination can't be opened or the thread can't be started. `capacity` is
    /// in lines.
    pub fn start(
        name: &str,
        capacity: usize,
        mut open: OpenDestination,
        dropped: DropCounter,
    ) -> std::io::Result<Self> {
        let sink = open()?;
        let (queue, messages) = mpsc::sync_channel(capacity);
        let thread = Thread {
            name: name.to_owned(),
            failing: false,
            cut: false,
            sink,
            open,
            dropped: dropped.clone(),
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || thread.run(&messages))?;
        Ok(Self { queue, dropped })
    }

    /// Queues one line, its line feed included; drops and counts it when the queue is full.
    pub fn write(&self, line: Vec<u8>) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.add(1);
        }
    }

    /// Opens the destination anew, behind what is queued (log rotation). If that fails, the old one stays in use.
    /// A full queue ignores it: call again.
    pub(crate) fn reopen(&self) -> bool {
        self.queue.try_send(Message::Reopen).is_ok()
    }

    /// Waits until everything queued so far is written, at most `deadline`; `false` if it took longer.
    /// Blocks the thread: for stopping only.
    pub fn flush(&self, deadline: Duration) -> bool {
        let (done, written) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        // A full queue has no room for the flush either. `SyncSender` of the standard library can't wait with a
        // deadline (https://doc.rust-lang.org/std/sync/mpsc/struct.SyncSender.html), so this tries in steps.
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Disconnected(_)) => return false,
                Err(mpsc::TrySendError::Full(_)) if waited >= deadline => return false,
                Err(mpsc::TrySendError::Full(back)) => message = back,
            }
            thread::sleep(step);
            waited += step;
        }
        written
            .recv_timeout(deadline.saturating_sub(waited))
            .is_ok()
    }
}

struct Thread {
    name: String,
    /// Whether the last line couldn't be written.
    failing: bool,
    /// Whether a part of the last line was written.
    cut: bool,
    sink: Box<dyn Write + Send>,
    open: OpenDestination,
    dropped: DropCounter,
}

impl Thread {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Line(line) => self.line(&line),
                Message::Reopen => {
                    let _ = self.sink.flush();
                    match (self.open)() {
                        Ok(sink) => {
                            self.sink = sink;
                            self.cut = false;
                        }
                        Err(error) => {
                            tracing::error!(%error, "can't reopen the file; the old one stays in use");
                        }
                    }
                }
                Message::Flush(done) => {
                    let _ = self.sink.flush();
                    let _ = done.send(());
                }
            }
        }
        let _ = self.sink.flush();
    }

    fn line(&mut self, line: &[u8]) {
        let written = self.write(line);
        if written.is_err() {
            self.dropped.add(1);
        }
        if self.failing == written.is_err() {
            return;
        }
        self.failing = written.is_err();
        // One message when lines begin to be lost, and one when they no longer are. The log's own writer may lose
        // both.
        let writer = self.name.as_str();
        match written {
            Ok(()) => tracing::info!(writer, "log lines are being written again"),
            Err(error) => tracing::error!(
                writer,
                %error,
                "can't write log lines; lost lines are counted in renewd_log_dropped_total"
            ),
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.cut {
            self.sink.write_all(b"\n")?;
            self.cut = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            let length = match self.sink.write(rest) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            rest = rest.get(length..).unwrap_or_default();
            self.cut = !rest.is_empty();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{DropCounter, LineWriter};

    /// A disk with so much room for each write in turn, and then with enough.
    struct Disk {
        room: VecDeque<usize>,
        content: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = self.room.pop_front().unwrap_or(bytes.len());
            if length == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = bytes.get(..length).unwrap_or(bytes);
            self.content.lock().unwrap().extend_from_slice(written);
            Ok(written.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_cut_by_a_full_disk_ends_before_the_next_and_each_loss_is_counted() {
        let content = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&content);
        let open = move || {
            let disk = Disk {
                room: VecDeque::from([3, 0, 0]),
                content: Arc::clone(&content),
            };
            Ok(Box::new(disk) as Box<dyn Write + Send>)
        };
        let dropped = DropCounter::default();
        let writer = LineWriter::start("audit", 8, Box::new(open), dropped.clone()).unwrap();
        for line in ["first\n", "second\n", "third\n"] {
            writer.write(line.as_bytes().to_vec());
        }
        assert!(writer.flush(Duration::from_secs(10)));
        assert_eq!(*written.lock().unwrap(), b"fir\nthird\n");
        assert_eq!(dropped.get(), 2);
    }
}
