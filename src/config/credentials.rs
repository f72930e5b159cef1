//! Secrets: literal, `env:NAME`, `credential:NAME`, or a file under the key with `_file` appended.
//!
//! Keeps true: a secret's bytes are copied into a [`Secret`] and nowhere else; messages name the source.
//! Must not know: what a secret opens.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::raw::{RawItem, RawTable};
use super::secret::Secret;
use super::validate::Strictness;

/// Reads secrets for one configuration, and remembers the files it looked at.
pub(super) struct SecretReader<'e> {
    pub(super) environment: &'e dyn Environment,
    pub(super) origin: &'e Path,
    pub(super) strictness: Strictness,
    pub(super) files: RefCell<Vec<PathBuf>>,
}

/// The result of looking up a key that may hold a secret.
pub(super) enum SecretLookup<'r> {
    /// The file has neither the key nor its `_file`.
    Absent,
    /// There is no value: an error was reported, or a note that it wasn't checked.
    Unknown,
    /// The secret, never empty, and the value that gave it.
    Secret(Secret, RawItem<'r>),
}

impl<'e> SecretReader<'e> {
    pub(super) fn new(
        environment: &'e dyn Environment,
        origin: &'e Path,
        strictness: Strictness,
    ) -> Self {
        Self {
            environment,
            origin,
            strictness,
            files: RefCell::default(),
        }
    }

    /// The secret under `name` or `name_file`.
    pub(super) fn read<'r>(&self, table: &RawTable<'r>, name: &str) -> SecretLookup<'r> {
        let file_name = format!("{name}_file");
        let (item, from_file) = match (table.secret(name), table.secret(&file_name)) {
            (None, None) => return SecretLookup::Absent,
            (Some(item), None) => (item, false),
            (None, Some(item)) => (item, true),
            (Some(_), Some(item)) => {
                item.error(
                    format!("`{name}` is given too"),
                    format!("keep one of `{name}` and `{file_name}`"),
                );
                return SecretLookup::Unknown;
            }
        };
        let Some(text) = item.text() else {
            return SecretLookup::Unknown;
        };
        let bytes = if from_file {
            self.warn_of_readers(&item);
            self.warn_of_writers(&item);
            self.file(&item, &self.resolve(text))
        } else if let Some(variable) = text.strip_prefix("env:") {
            self.variable(&item, variable)
        } else if let Some(credential) = text.strip_prefix("credential:") {
            self.credential(&item, credential)
        } else {
            self.literal(&item, text)
        };
        match bytes {
            None => SecretLookup::Unknown,
            Some(secret) if secret.expose().is_empty() => {
                item.error("the secret is empty", "an empty secret protects nothing");
                SecretLookup::Unknown
            }
            Some(secret) => {
                warn_of_pasting(&secret, &item);
                SecretLookup::Secret(secret, item)
            }
        }
    }

    /// The content of the file that a key names.
    pub(super) fn named_file(&self, item: &RawItem<'_>) -> Option<Secret> {
        let secret = self.file(item, &self.resolve(item.text()?))?;
        if secret.expose().is_empty() {
            item.error("the file is empty", "put the secret in it, on one line");
            return None;
        }
        Some(secret)
    }

    /// Warns if every user can read a file with a secret. Only `check` warns: Kubernetes mounts secrets like that,
    /// and they work.
    pub(super) fn warn_of_readers(&self, item: &RawItem<'_>) {
        let open = |path: &Path| self.environment.world_readable(path);
        self.warn_of(
            item,
            open,
            "every user can read this file, which holds a secret",
        );
    }

    /// Warns if every user can write a file that keys or secrets are read from.
    pub(super) fn warn_of_writers(&self, item: &RawItem<'_>) {
        let open = |path: &Path| self.environment.world_writable(path);
        self.warn_of(
            item,
            open,
            "every user can write this file, and so decide what is in it",
        );
    }

    fn warn_of(&self, item: &RawItem<'_>, open: impl Fn(&Path) -> Option<bool>, what: &str) {
        if self.strictness == Strictness::Check
            && let Some(text) = item.if_text().filter(|text| !text.is_empty())
            && open(&self.resolve(text)) == Some(true)
        {
            item.warning(
                what,
                "chmod 0640 it, and chgrp it to the daemon's group, or use credential:NAME",
            );
        }
    }

    /// An absolute path; a relative one starts at the configuration file's directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.origin
            .parent()
            .map_or_else(|| PathBuf::from(path), |directory| directory.join(path))
    }

    fn file(&self, item: &RawItem<'_>, path: &Path) -> Option<Secret> {
        self.content(item, path, |shown, error| {
            (
                format!("{shown} can't be read: {error}"),
                "name a file that the daemon's user may read".to_owned(),
            )
        })
    }

    /// A file's content; `complaint` makes message and hint from the path, if it may be shown, and the error.
    fn content(
        &self,
        item: &RawItem<'_>,
        path: &Path,
        complaint: impl Fn(&str, &io::Error) -> (String, String),
    ) -> Option<Secret> {
        self.files.borrow_mut().push(path.to_path_buf());
        match self.environment.read(path) {
            Ok(content) => Some(Secret::new(without_newline(&content).to_vec())),
            Err(error) => {
                // A value that doesn't look like a path may be the secret itself, put under the wrong key.
                let is_path = item.if_text().is_some_and(|text| {
                    text.starts_with(['/', '.']) || text.starts_with("credential:")
                });
                let shown = if is_path {
                    path.display().to_string()
                } else {
                    "the file".to_owned()
                };
                let (message, hint) = complaint(&shown, &error);
                item.error(message, hint);
                None
            }
        }
    }

    fn variable(&self, item: &RawItem<'_>, name: &str) -> Option<Secret> {
        if !could_be_a_variable(name) {
            item.error("no environment variable is named", "write env:NAME");
            return None;
        }
        let value = self.environment.variable(name);
        if value.is_none() {
            // A secret written after `env:` by mistake must not come back in an error.
            let shown = if is_variable_name(name) {
                name
            } else {
                "named here"
            };
            self.not_here(
                item,
                &format!("the environment variable {shown} isn't set"),
                "set it for the daemon (`Environment=` or `EnvironmentFile=` in the unit)",
            );
        }
        value.map(|value| Secret::new(value.into_bytes()))
    }

    fn credential(&self, item: &RawItem<'_>, name: &str) -> Option<Secret> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            item.error(
                "not a credential's name",
                "write credential:NAME as in the unit's LoadCredential=NAME:PATH",
            );
            return None;
        }
        let Some(directory) = self.environment.credentials_directory() else {
            self.not_here(
                item,
                &format!("there is no credentials directory to read {name} from"),
                &format!("add LoadCredential={name}:PATH to the unit"),
            );
            return None;
        };
        self.content(item, &directory.join(name), |shown, error| {
            (
                format!("the credential {name} ({shown}) can't be read: {error}"),
                format!(
                    "add LoadCredential={name}:PATH to the unit, or put it where its LoadCredential= looks \
                     (/etc/credstore/renewd.{name}), and restart: systemd reads credentials when it starts the unit"
                ),
            )
        })
    }

    fn literal(&self, item: &RawItem<'_>, text: &str) -> Option<Secret> {
        if self.environment.world_readable(self.origin) == Some(true) {
            item.error(
                "a literal secret in a file that every user can read",
                "chmod o-r the file, or write credential:NAME, env:NAME or a *_file",
            );
            return None;
        }
        Some(Secret::new(text.as_bytes().to_vec()))
    }

    /// Reports that something is missing which only the unit has: an error, or under `check` a note.
    fn not_here(&self, item: &RawItem<'_>, what: &str, hint: &str) {
        match self.strictness {
            Strictness::Run => item.error(what, hint),
            Strictness::Check => item.note(format!("not checked: {what}")),
        }
    }
}

/// Warns if a secret was probably copied with the text around it, or is a placeholder. The secret is used all the same.
pub(super) fn warn_of_pasting(secret: &Secret, item: &RawItem<'_>) {
    const PLACEHOLDERS: [&str; 5] = ["your-", "your_", "changeme", "change-me", "<"];
    /// In the connection strings that MongoDB Atlas shows.
    const ATLAS: [&str; 2] = ["<password>", "<db_password>"];
    let Ok(text) = std::str::from_utf8(secret.expose()) else {
        return;
    };
    let quotes = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    let lower = text.get(..16.min(text.len())).unwrap_or_default();
    let lower = lower.to_ascii_lowercase();
    let assigned = text.split_once('=').is_some_and(|(name, value)| {
        let name = name.trim_end();
        let name = name.strip_prefix("export ").unwrap_or(name);
        is_variable_name(name) && name.len() > 2 && !value.trim_matches('=').is_empty()
    });
    let (message, hint) = if assigned {
        (
            "the secret begins like NAME=value: the name may be copied with it",
            "keep what stands behind the `=`",
        )
    } else if ['"', '\'', '`'].into_iter().any(quotes) {
        (
            "the secret has quotes around it, which count as a part of it",
            "leave the quotes out",
        )
    } else if text.trim() != text {
        (
            "the secret begins or ends with a blank, which counts as a part of it",
            "leave the blank out",
        )
    } else if PLACEHOLDERS.iter().any(|begins| lower.starts_with(begins))
        || ATLAS.iter().any(|placeholder| text.contains(placeholder))
    {
        (
            "the secret reads like an example's placeholder",
            "put the real one in its place",
        )
    } else {
        return;
    };
    item.warning(message, hint);
}

/// Editors end files with a newline that isn't part of the secret.
fn without_newline(content: &[u8]) -> &[u8] {
    let end = content
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    content.get(..end).unwrap_or_default()
}

/// Whether an environment can hold a variable of this name; it needn't be one that a shell could set.
pub(super) fn could_be_a_variable(name: &str) -> bool {
    let never = |character: char| character == '=' || character == '\0';
    !name.trim().is_empty() && !name.contains(never)
}

/// POSIX.1 section 8.1: capitals, digits and underscores, no digit first.
pub(super) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_uppercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newlines_at_the_end_are_dropped() {
        assert_eq!(without_newline(b" a\nb \r\n\n"), b" a\nb ");
        assert_eq!(without_newline(b"\n"), b"");
    }
}
