//! Writes lines from a thread of its own, so that no request ever waits for a log's reader.
//!
//! Keeps true: writing never blocks; the queue is bounded; what doesn't fit, or can't be written, is counted.
//! Must not know: what a line says.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

/// Lines lost, by all writers that share it.
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
pub type Open = Box<dyn FnMut() -> std::io::Result<Box<dyn Write + Send>> + Send>;

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
    /// Starts the thread; fails where the destination can't be opened or no thread be had. `capacity` is in lines.
    pub fn start(
        name: &str,
        capacity: usize,
        mut open: Open,
        dropped: DropCounter,
    ) -> std::io::Result<Self> {
        let sink = open()?;
        let (queue, messages) = mpsc::sync_channel(capacity);
        let thread = Thread {
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
    pub fn reopen(&self) -> bool {
        self.queue.try_send(Message::Reopen).is_ok()
    }

    /// Waits until everything queued so far is written, at most `deadline`; `false` if it took longer.
    /// Blocks the thread: for stopping only.
    pub fn flush(&self, deadline: Duration) -> bool {
        let (done, written) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        // A full queue has no room for the flush either; std's channel can't wait with a deadline, so try in steps.
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
    sink: Box<dyn Write + Send>,
    open: Open,
    dropped: DropCounter,
}

impl Thread {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Line(line) => {
                    if self.sink.write_all(&line).is_err() {
                        self.dropped.add(1);
                    }
                }
                Message::Reopen => {
                    let _ = self.sink.flush();
                    match (self.open)() {
                        Ok(sink) => self.sink = sink,
                        Err(error) => {
                            tracing::error!(%error, "reopening failed: the old file stays in use");
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
}
