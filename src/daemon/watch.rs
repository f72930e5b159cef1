//! Reports when the content of a watched file has changed: written in place, renamed over, swapped through a symlink,
//! deleted, or put back.
//!
//! A watch of notify 8 on a file follows its inode and misses the second rename
//! (<https://github.com/notify-rs/notify/issues/531>), so the directories are watched, and an event only leads to
//! another reading: the contents' hashes decide. A slow poll finds what inotify misses (network file systems, replaced
//! directories) and works alone where inotify isn't available.
//!
//! Keeps true: a change is reported once, after a moment without events, but never later than
//! [`Timing::longest`] after its first event; nothing is reported while contents stay equal.
//! Must not know: what is in the files, or what is done about a change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, INotifyWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use zeroize::Zeroizing;

/// How soon and how often the files are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The time without an event after which the writer counts as done: 250 ms.
    pub quiet: Duration,
    /// The time after which files are read even if events go on: 2 s.
    pub longest: Duration,
    /// How often files are read without any event: 5 s.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(250),
            longest: Duration::from_secs(2),
            poll: Duration::from_secs(5),
        }
    }
}

/// Watches a set of files until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    orders: mpsc::Sender<Order>,
    changes: mpsc::Receiver<Vec<PathBuf>>,
}

/// Another set of files, and the sender of the answer that it is watched.
type Order = (Vec<PathBuf>, oneshot::Sender<()>);

impl Watcher {
    /// Starts watching; must be called inside a tokio runtime. The contents that count as unchanged are those at the
    /// time of the call, read here once: start watching a file before using it, and no change is lost.
    pub fn start(files: Vec<PathBuf>, timing: Timing) -> Self {
        let events = Arc::new(Notify::new());
        let eyes = InotifyReader::open(Arc::clone(&events));
        Self::start_with(eyes, events, files, timing)
    }

    fn start_with(
        mut eyes: InotifyReader,
        events: Arc<Notify>,
        files: Vec<PathBuf>,
        timing: Timing,
    ) -> Self {
        let contents = eyes.look(&files);
        let (orders, received) = mpsc::channel(1);
        let (report, changes) = mpsc::channel(1);
        let task = Task {
            eyes,
            files,
            contents,
            pending: BTreeSet::new(),
            events,
            orders: received,
            report,
            timing,
        };
        tokio::spawn(task.run());
        Self { orders, changes }
    }

    /// Watches these files instead; returns when it does. A file that was watched already keeps its known content; a
    /// new one's is taken as it is now.
    pub async fn set_files(&self, files: Vec<PathBuf>) {
        let (done, is_done) = oneshot::channel();
        if self.orders.send((files, done)).await.is_ok() {
            // An error means that the runtime is shutting down.
            let _ended = is_done.await;
        }
    }

    /// Waits for changes: the files whose content differs from when it was last reported, a file that appeared or
    /// disappeared among them. Cancelling loses nothing. Never returns if the runtime is shutting down.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        match self.changes.recv().await {
            Some(changed) => changed,
            None => std::future::pending().await,
        }
    }
}

/// `None` for a file that can't be read.
type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

struct Task {
    eyes: InotifyReader,
    files: Vec<PathBuf>,
    contents: Contents,
    /// Changed files that [`Watcher::changed`] has not returned yet.
    pending: BTreeSet<PathBuf>,
    events: Arc<Notify>,
    orders: mpsc::Receiver<Order>,
    report: mpsc::Sender<Vec<PathBuf>>,
    timing: Timing,
}

impl Task {
    async fn run(mut self) {
        loop {
            let mut done = None;
            tokio::select! {
                permit = self.report.reserve(), if !self.pending.is_empty() => {
                    let Ok(permit) = permit else { return };
                    permit.send(mem::take(&mut self.pending).into_iter().collect());
                    continue;
                }
                order = self.orders.recv() => {
                    let Some((files, asker)) = order else { return };
                    self.files = files;
                    done = Some(asker);
                }
                () = self.events.notified() => self.until_quiet().await,
                () = sleep(self.timing.poll) => {}
            }
            let files = self.files.clone();
            let mut eyes = self.eyes;
            // A hung network file system holds this thread, not the runtime.
            let looked = tokio::task::spawn_blocking(move || {
                let contents = eyes.look(&files);
                (eyes, contents)
            });
            let Ok((eyes, contents)) = looked.await else {
                return;
            };
            self.eyes = eyes;
            self.pending.extend(differing(&self.contents, &contents));
            self.contents = contents;
            if let Some(asker) = done {
                // The caller may have stopped waiting.
                let _unheard = asker.send(());
            }
        }
    }

    async fn until_quiet(&self) {
        let mut longest = pin!(sleep(self.timing.longest));
        loop {
            tokio::select! {
                () = &mut longest => return,
                () = self.events.notified() => {}
                () = sleep(self.timing.quiet) => return,
            }
        }
    }
}

/// Files known before whose content differs now.
fn differing(before: &Contents, now: &Contents) -> Vec<PathBuf> {
    let differs = |(path, content): (&PathBuf, &Option<[u8; 32]>)| {
        let known = before.get(path)?;
        (known != content).then(|| path.clone())
    };
    now.iter().filter_map(differs).collect()
}

/// Which directory a path led to when it was watched.
type DirectoryIdentity = (u64, u64);

/// inotify on the directories that matter, and the reading of files.
struct InotifyReader {
    inotify: Option<INotifyWatcher>,
    watched: BTreeMap<PathBuf, DirectoryIdentity>,
    refused: BTreeSet<PathBuf>,
}

impl InotifyReader {
    fn open(events: Arc<Notify>) -> Self {
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_only_reading(event.kind)) {
                return;
            }
            events.notify_one();
        };
        let inotify = INotifyWatcher::new(on_event, notify::Config::default())
            .inspect_err(|error| {
                tracing::warn!(%error, "inotify is not available; files are polled");
            })
            .ok();
        Self {
            inotify,
            watched: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Watches the files' directories, then reads the files, so that no later change is missed.
    fn look(&mut self, files: &[PathBuf]) -> Contents {
        self.watch(&directories(files));
        let read = |file: &PathBuf| (file.clone(), content(file).ok());
        files.iter().map(read).collect()
    }

    fn watch(&mut self, wanted: &BTreeSet<PathBuf>) {
        let Some(inotify) = &mut self.inotify else {
            return;
        };
        let gone = |path: &PathBuf, identity: DirectoryIdentity| {
            !wanted.contains(path) || directory_identity(path) != Some(identity)
        };
        self.watched.retain(|path, identity| {
            let keep = !gone(path, *identity);
            if !keep {
                // This fails where the kernel has removed the watch together with the directory, which does no harm.
                let _already_gone = inotify.unwatch(path);
            }
            keep
        });
        for path in wanted {
            if self.watched.contains_key(path) {
                continue;
            }
            let Some(identity) = directory_identity(path) else {
                continue; // the poll finds the directory later
            };
            // /var/run is /run: the kernel has one watch for both names, and removing it for one removes it for both.
            if self.watched.values().any(|known| *known == identity) {
                continue;
            }
            match inotify.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.refused.remove(path);
                    self.watched.insert(path.clone(), identity);
                }
                Err(error) => {
                    if self.refused.insert(path.clone()) {
                        let directory = path.display();
                        tracing::warn!(%error, %directory, "can't watch the directory; its files are polled");
                    }
                }
            }
        }
    }
}

/// Whether an event comes from reading. The watcher's own reading causes such events too, and would never end if they
/// counted as changes. notify 8 subscribes to them on Linux (`inotify.rs`, `WatchMask::OPEN`) and can't be told not
/// to (<https://github.com/notify-rs/notify/pull/736>).
fn is_only_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}

/// The directory of each file, and of its target if it is a symlink.
fn directories(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_path_buf),
    };
    let written = files.iter().filter_map(|file| parent(file));
    let resolved = files
        .iter()
        .filter_map(|file| parent(&file.canonicalize().ok()?));
    written.chain(resolved).collect()
}

fn directory_identity(path: &Path) -> Option<DirectoryIdentity> {
    let metadata = std::fs::metadata(path).ok()?;
    metadata.is_dir().then(|| (metadata.dev(), metadata.ino()))
}

fn content(path: &Path) -> io::Result<[u8; 32]> {
    // A named pipe in place of a file would block the thread for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = Zeroizing::new([0; 8192]); // secrets pass through it
    loop {
        match file.read(&mut buffer[..])? {
            0 => return Ok(hasher.finalize().into()),
            length => hasher.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_no_event_but_the_end_of_writing_is() {
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(is_only_reading(open));
        assert!(!is_only_reading(written));
        assert!(!is_only_reading(EventKind::Any));
    }

    #[test]
    fn only_known_files_with_another_content_differ() {
        let file = |name: &str, content| (PathBuf::from(name), content);
        let before = Contents::from([file("same", Some([1; 32])), file("other", Some([2; 32]))]);
        let now = Contents::from([
            file("same", Some([1; 32])),
            file("other", None),
            file("new", Some([3; 32])),
        ]);
        assert_eq!(differing(&before, &now), [PathBuf::from("other")]);
    }

    #[tokio::test]
    async fn without_inotify_the_poll_goes_on_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, "one").unwrap();
        let events = Arc::new(Notify::new());
        let blind = InotifyReader {
            inotify: None,
            ..InotifyReader::open(Arc::clone(&events))
        };
        let timing = Timing {
            poll: Duration::from_millis(20),
            ..Timing::default()
        };
        let mut watcher = Watcher::start_with(blind, events, vec![file.clone()], timing);
        std::fs::write(&file, "two").unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(20), watcher.changed());
        assert_eq!(changed.await.unwrap(), [file]);
    }

    #[test]
    fn a_bare_file_name_is_in_the_current_directory() {
        let found = directories(&[PathBuf::from("surely-not-there.toml")]);
        assert_eq!(found, BTreeSet::from([PathBuf::from(".")]));
    }
}
