//! The state directory, which one daemon uses at a time.
//!
//! Keeps true: while a [`StateDirectory`] exists, no other process has one on the same path; a file holds either its
//! old content or its new one, after a crash too.
//! Must not know: what is stored.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file that `flock(2)` locks for the life of the process. The file is never removed: two processes could then
/// lock two files of this name.
const LOCK_FILE: &str = "lock";

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another daemon uses it. Starting would put two daemons on one port, which `SO_REUSEPORT` allows, and on one
    /// state.
    #[error(
        "another renewd{} uses the state directory {}; give each daemon its own `state.directory`",
        .holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        .directory.display()
    )]
    Held {
        /// `state.directory`.
        directory: PathBuf,
        /// The process id of the holder, from the lock file; `None` if the file holds none.
        holder: Option<u32>,
    },
    /// The directory can't be created, opened or written. A daemon can run without it and keep its state in memory
    /// only.
    #[error("the state directory {} can't be used: {source}", .directory.display())]
    Unusable {
        /// `state.directory`.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An open, locked state directory. Dropping it, or the end of the process, releases the lock.
#[derive(Debug)]
pub struct StateDirectory {
    directory: PathBuf,
    /// Synced after each rename: otherwise a new name may not survive a power cut.
    handle: File,
    /// Never read. The lock lasts as long as this descriptor.
    _lock: File,
}

impl StateDirectory {
    /// Creates `directory` (mode 0700) if its parent exists, locks it, and writes this process's id into the lock
    /// file, for the error message of a second daemon.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let unusable = |source: io::Error| StateError::Unusable {
            directory: directory.to_owned(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unusable(error));
            }
            _ => {}
        }
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(rustix::fs::OFlags::DIRECTORY.bits()).unwrap_or(0))
            .open(directory)
            .map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // the holder's process id is in there
            .mode(0o600)
            .open(directory.join(LOCK_FILE))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StateError::Held {
                    directory: directory.to_owned(),
                    holder: read_holder(&mut lock),
                });
            }
            Err(errno) => return Err(unusable(errno.into())),
        }
        // On a full disk the lock still works; only the error message of a second daemon lacks the process id.
        let _ = write_holder(&mut lock);
        Ok(Self {
            directory: directory.to_owned(),
            handle,
            _lock: lock,
        })
    }

    /// The directory's path.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Replaces the file `name` (a bare file name) by `bytes`, mode 0600. When this returns, the new content survives
    /// a power cut; when it fails, the old content stands. One writer at a time per name.
    pub(crate) fn write_atomically(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.begin(name)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.and_then(|()| self.commit(name)).inspect_err(|_| {
            self.abandon(name);
        })
    }

    /// Begins a new content of the file `name`, mode 0600, beside the old one. Sync it before [`Self::commit`].
    pub(crate) fn begin(&self, name: &str) -> io::Result<File> {
        self.file(name)?;
        let unfinished = self.unfinished(name);
        // A file that a crash has left may have another mode or owner, so it is never written to.
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(unfinished)
    }

    /// Replaces the old content by the new one, which then survives a power cut.
    pub(crate) fn commit(&self, name: &str) -> io::Result<()> {
        std::fs::rename(self.unfinished(name), self.file(name)?)?;
        self.handle.sync_all()
    }

    /// Removes the new content that was begun, so that it takes no space.
    pub(crate) fn abandon(&self, name: &str) {
        // An error means that there is no such file: it was renamed already or never created.
        let _ = std::fs::remove_file(self.unfinished(name));
    }

    /// The file `name` for reading; `None` if it was never written.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        match File::open(self.file(name)?) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn unfinished(&self, name: &str) -> PathBuf {
        self.directory.join(format!(".{name}.new"))
    }

    /// The file `name` (a bare file name); `None` if it was never written.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open_file(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let bare = Path::new(name).file_name().is_some_and(|file| file == name);
        if !bare || name == LOCK_FILE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{name}` is not a valid file name in the state directory"),
            ));
        }
        Ok(self.directory.join(name))
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

fn read_holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::{StateDirectory, StateError};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_is_made_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&parent.path().join("state")).unwrap();
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join("lock")), 0o600);
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_the_process_that_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(parent.path()).unwrap();
        let refused = StateDirectory::open(parent.path()).unwrap_err();
        assert!(
            matches!(&refused, StateError::Held { holder, .. } if *holder == Some(std::process::id())),
            "{refused:?}"
        );
        let message = refused.to_string();
        assert!(
            message.contains(&format!("process {}", std::process::id()))
                && message.contains(&parent.path().display().to_string()),
            "{message}"
        );
        drop(first);
        StateDirectory::open(parent.path()).expect("free again once the first is gone");
    }

    #[test]
    fn a_directory_that_cannot_be_is_unusable_not_held() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir_all(parent.path().join("odd/lock")).unwrap();
        for path in ["missing/state", "file", "file/state", "odd"] {
            let refused = StateDirectory::open(&parent.path().join(path)).unwrap_err();
            assert!(
                matches!(refused, StateError::Unusable { .. }),
                "{path}: {refused:?}"
            );
        }
        assert!(
            !parent.path().join("missing").exists(),
            "parents are not made"
        );
    }

    #[test]
    fn a_file_is_replaced_whole_for_its_owner_alone_and_leaves_nothing_beside_it() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(parent.path()).unwrap();
        assert_eq!(state.read("last-valid.toml").unwrap(), None);

        // A crash may have left this file, readable by all.
        let leftover = parent.path().join(".last-valid.toml.new");
        std::fs::write(&leftover, "half").unwrap();
        std::fs::set_permissions(&leftover, PermissionsExt::from_mode(0o644)).unwrap();

        state
            .write_atomically("last-valid.toml", b"one, longer")
            .unwrap();
        state.write_atomically("last-valid.toml", b"two").unwrap();
        assert_eq!(
            state.read("last-valid.toml").unwrap().as_deref(),
            Some(&b"two"[..])
        );
        assert_eq!(mode(&parent.path().join("last-valid.toml")), 0o600);

        let mut names: Vec<_> = std::fs::read_dir(parent.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["last-valid.toml", "lock"]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content_and_no_leftover() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(parent.path()).unwrap();
        // A directory of that name can't be replaced by a file.
        std::fs::create_dir(parent.path().join("taken")).unwrap();
        state.write_atomically("taken", b"new").unwrap_err();
        assert!(parent.path().join("taken").is_dir());
        assert!(!parent.path().join(".taken.new").exists());
    }

    #[test]
    fn names_never_leave_the_directory_or_touch_the_lock() {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(parent.path()).unwrap();
        for name in ["", ".", "..", "../x", "a/b", "/etc/x", "a/", "lock"] {
            assert!(state.write_atomically(name, b"").is_err(), "{name:?}");
            assert!(state.read(name).is_err(), "{name:?}");
        }
    }
}
