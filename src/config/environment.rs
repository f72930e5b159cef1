//! Where configuration comes from besides its text: variables, credentials, files, the number of cores.
//!
//! Keeps true: nothing in `config` asks the system but through this trait, so tests share no global state.
//! Must not know: how the answers are used.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// No secret, streams file or configuration is larger than this.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// The questions that configuration may ask the system.
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

    /// Whether the file, by its name or where its name leads to, is a mount point of its own, as a file that is mounted
    /// into a container; `None` if it can't be told.
    fn is_mount_point(&self, path: &Path) -> Option<bool>;

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

    fn is_mount_point(&self, path: &Path) -> Option<bool> {
        let path = path.canonicalize().ok()?;
        let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
        Some(mount_points(&mounts).any(|mounted| mounted == path.as_os_str().as_bytes()))
    }

    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// The mount points in a `mountinfo` (proc(5)): the fifth field of each line, whose blanks and backslashes are written
/// as `\\` and three octal digits.
fn mount_points(mounts: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let lines = mounts.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| {
        let mut path = Vec::with_capacity(field.len());
        let mut rest = field;
        while let Some((&byte, after)) = rest.split_first() {
            let digits = after.get(..3).filter(|_| byte == b'\\');
            let escaped = digits
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 8).ok());
            path.push(escaped.unwrap_or(byte));
            rest = match escaped {
                Some(_) => after.get(3..).unwrap_or_default(),
                None => after,
            };
        }
        path
    })
}

fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(metadata.permissions().mode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_they_are_named() {
        let mounts = b"22 1 0:20 / / rw shared:1 - ext4 /dev/vda rw\n\
            31 22 0:20 /srv/a /etc/renewd/config.toml rw - ext4 /dev/vda rw\n\
            32 22 0:20 /srv/b /with\\040a\\134blank\\011 rw - ext4 /dev/vda rw\n";
        let read: Vec<_> = mount_points(mounts).collect();
        let expected: [&[u8]; 3] = [b"/", b"/etc/renewd/config.toml", b"/with a\\blank\t"];
        assert_eq!(read, expected);
        assert_eq!(
            SystemEnvironment.is_mount_point(Path::new("/proc")),
            Some(true)
        );
        assert_eq!(
            SystemEnvironment.is_mount_point(Path::new("/proc/version")),
            Some(false)
        );
    }
}
