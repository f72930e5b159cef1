//! A journal: records are appended in batches, each of which is synced; the journal is rewritten when most of it is
//! outdated.
//!
//! Keeps true: a finished batch survives a power cut; a rewritten journal replaces the old one in one step; after any
//! error the journal is rewritten, so that nothing is appended to a half-written batch. There is one writer at a
//! time.
//! Must not know: what the records hold.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use super::directory::StateDirectory;
use super::frames::{self, RecordReader};

/// Bytes written at once.
const CHUNK: usize = 256 * 1024;

/// A journal is rewritten when it has grown by this much and has doubled.
const LEAST_GROWTH: u64 = 4 * 1024 * 1024;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    directory: Arc<StateDirectory>,
    name: &'static str,
    /// The file to append to; `None` where the journal must be rewritten first.
    file: Option<File>,
    length: u64,
    /// The length when the journal was last rewritten.
    whole: u64,
}

/// The result of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalReading {
    /// Intact records.
    pub records: u64,
    /// Bytes that belong to no record: damage, or a batch that a crash cut short.
    pub damaged_bytes: u64,
}

/// Reads the journal `name` record by record; a missing journal is empty. A read error ends the reading; `each` has
/// then been called for all records before it.
pub fn read(
    directory: &StateDirectory,
    name: &str,
    mut each: impl FnMut(&[u8]),
) -> (JournalReading, io::Result<()>) {
    let mut reading = JournalReading::default();
    let file = match directory.open_file(name) {
        Ok(Some(file)) => file,
        Ok(None) => return (reading, Ok(())),
        Err(error) => return (reading, Err(error)),
    };
    let mut frames = RecordReader::new(file);
    let result = loop {
        match frames.next() {
            Ok(Some(record)) => {
                reading.records += 1;
                each(record);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    reading.damaged_bytes = frames.skipped();
    (reading, result)
}

impl Journal {
    /// A journal whose first batch replaces the file that is there.
    pub fn new(directory: Arc<StateDirectory>, name: &'static str) -> Self {
        Self {
            directory,
            name,
            file: None,
            length: 0,
            whole: 0,
        }
    }

    /// Whether the next batch has to hold everything.
    pub(crate) fn must_be_whole(&self) -> bool {
        let grown = self.length > 2 * self.whole && self.length - self.whole > LEAST_GROWTH;
        let file = self.file.as_ref();
        // If the file was removed, everything appended to it would be lost.
        let there = file.is_some_and(|file| file.metadata().is_ok_and(|file| file.nlink() > 0));
        grown || !there
    }

    /// Begins a batch; `whole` rewrites the journal, which is required where [`Self::must_be_whole`]. Fails where the
    /// file can't be created, or the journal must be rewritten and `whole` is false.
    pub fn begin(&mut self, whole: bool) -> io::Result<Batch<'_>> {
        let file = if whole {
            self.file = None;
            self.directory.begin(self.name)?
        } else {
            self.file
                .take()
                .ok_or_else(|| io::Error::other("the journal must be rewritten"))?
        };
        Ok(Batch {
            written: if whole { 0 } else { self.length },
            journal: self,
            file: Some(file),
            whole,
            buffer: Vec::new(),
        })
    }
}

/// A batch that is being written. If it is dropped unfinished, it has no effect and the next batch must be whole.
#[derive(Debug)]
pub struct Batch<'a> {
    journal: &'a mut Journal,
    /// `None` once the batch is finished.
    file: Option<File>,
    whole: bool,
    buffer: Vec<u8>,
    written: u64,
}

impl Batch<'_> {
    /// Adds a record of at most 65 535 bytes; a longer one is left out.
    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        if !frames::write(record, &mut self.buffer) {
            tracing::warn!(
                bytes = record.len(),
                "a record is too long for the journal and is left out"
            );
        }
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the batch to the disk. Returns the journal's length in bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        if self.whole {
            self.journal.directory.commit(self.journal.name)?;
            self.journal.whole = self.written;
        }
        self.journal.length = self.written;
        self.journal.file = self.file.take();
        Ok(self.written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(mut file) = self.file.as_ref() {
            file.write_all(&self.buffer)?;
        }
        self.written += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.whole && self.file.is_some() {
            self.journal.directory.abandon(self.journal.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "things.journal";

    fn all(directory: &StateDirectory) -> (Vec<String>, JournalReading) {
        let mut records = Vec::new();
        let (reading, result) = read(directory, NAME, |record| {
            records.push(String::from_utf8(record.to_vec()).unwrap());
        });
        result.unwrap();
        (records, reading)
    }

    fn batch(journal: &mut Journal, records: &[&str]) -> io::Result<u64> {
        let whole = journal.must_be_whole();
        let mut batch = journal.begin(whole)?;
        for record in records {
            batch.write(record.as_bytes())?;
        }
        batch.finish()
    }

    #[test]
    fn batches_follow_each_other_and_the_first_replaces_what_was_there() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Arc::new(StateDirectory::open(parent.path()).unwrap());
        assert_eq!(all(&directory), (Vec::new(), JournalReading::default()));
        for round in ["first", "second"] {
            let mut journal = Journal::new(Arc::clone(&directory), NAME);
            batch(&mut journal, &[round, "b"]).unwrap();
            batch(&mut journal, &["c"]).unwrap();
            let (records, reading) = all(&directory);
            assert_eq!(records, [round, "b", "c"]);
            assert_eq!((reading.records, reading.damaged_bytes), (3, 0));
        }
    }

    #[test]
    fn an_unfinished_batch_changes_nothing_and_the_next_one_is_whole() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Arc::new(StateDirectory::open(parent.path()).unwrap());
        let mut journal = Journal::new(Arc::clone(&directory), NAME);
        batch(&mut journal, &["a"]).unwrap();
        assert!(!journal.must_be_whole());
        journal.begin(true).unwrap().write(b"lost").unwrap();
        assert_eq!(all(&directory).0, ["a"]);
        assert!(!parent.path().join(format!(".{NAME}.new")).exists());
        assert!(journal.must_be_whole());
        batch(&mut journal, &["b"]).unwrap();
        assert_eq!(all(&directory).0, ["b"]);
        assert!(!journal.must_be_whole());
    }

    #[test]
    fn a_journal_that_was_removed_is_written_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Arc::new(StateDirectory::open(parent.path()).unwrap());
        let mut journal = Journal::new(Arc::clone(&directory), NAME);
        batch(&mut journal, &["a"]).unwrap();
        std::fs::remove_file(parent.path().join(NAME)).unwrap();
        assert!(journal.must_be_whole());
        batch(&mut journal, &["b"]).unwrap();
        assert_eq!(all(&directory).0, ["b"]);
    }

    #[test]
    fn a_journal_grown_out_of_date_is_written_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Arc::new(StateDirectory::open(parent.path()).unwrap());
        let mut journal = Journal::new(Arc::clone(&directory), NAME);
        batch(&mut journal, &["a"]).unwrap();
        let large = "x".repeat(60_000);
        let batches = (0..1000).take_while(|_| {
            batch(&mut journal, &[&large]).unwrap();
            !journal.must_be_whole()
        });
        assert_eq!(batches.count(), 4 * 1024 * 1024 / 60_009);
    }
}
