//! Where configuration comes from besides its text: variables, credentials, files, the number of cores.
//!
//! Keeps true: nothing in `config` asks the system but through this trait, so tests share no global state.
//! Must not know: how the answers are used.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// No secret, streams file or configuration is larger than this.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// What configuration may ask of the system.
pub trait Environment {
    /// An environment variable; `None` if unset or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// `$CREDENTIALS_DIRECTORY`, which systemd sets for a unit with `LoadCredential=`.
    fn credentials_directory(&self) -> Option<PathBuf>;

    /// A file's whole content.
    fn read(&self, path: &Path) -> io::Result<Zeroizing<Vec<u8>>>;

    /// Whether every user can read the file; `None` if it can't be told, as for text that comes from no file.
    fn world_readable(&self, path: &Path) -> Option<bool>;

    /// Whether every user can write the file; `None` if it can't be told.
    fn world_writable(&self, path: &Path) -> Option<bool>;

    /// Whether there is a directory at this path; `None` if it can't be told.
    fn is_directory(&self, path: &Path) -> Option<bool>;

    /// How many threads run at once; at least 1.
    fn cores(&self) -> usize;
}

/// The process's own environment.
#[derive(Clone, Copy, Debug)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
    }

    fn read(&self, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        // Reading a pipe would block the start forever.
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if metadata.len() > LARGEST_FILE {
            return Err(io::Error::other("larger than 16 MiB"));
        }
        let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(capacity));
        std::fs::File::open(path)?
            .take(LARGEST_FILE)
            .read_to_end(&mut content)?;
        Ok(content)
    }

    fn world_readable(&self, path: &Path) -> Option<bool> {
        Some(mode(path)? & 0o004 != 0)
    }

    fn world_writable(&self, path: &Path) -> Option<bool> {
        Some(mode(path)? & 0o002 != 0)
    }

    fn is_directory(&self, path: &Path) -> Option<bool> {
        match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
            Err(_) => None,
        }
    }

    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(metadata.permissions().mode())
}
