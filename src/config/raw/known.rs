//! Which keys a file may have: those that its reader asks for, and those that are known and not built.
//!
//! Must not know: what a key means, which keys there are.

use super::RawTable;

/// A key that is read. The key of a table inside a list or an inline table stands under that list's path.
#[derive(Clone, Debug)]
pub struct BuiltKey {
    /// Dotted path.
    pub path: String,
    /// The value is a secret or should name one: no excerpt shows its line.
    pub secret: bool,
}

/// The kind of a dotted path.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) enum KnownKey<'k> {
    /// Read by this build.
    Built(&'k BuiltKey),
    /// A table with known keys in it, or a list of such tables.
    Section,
}

/// The keys of a file.
#[derive(Debug, Default)]
pub(in crate::config) struct KnownKeys {
    /// In the order in which they are asked for.
    pub(in crate::config) built: Vec<BuiltKey>,
    /// Paths whose value is a list of tables.
    pub(super) lists: Vec<String>,
}

impl KnownKeys {
    /// The keys that `read` asks for when nothing is there.
    pub(in crate::config) fn asked_for(read: impl FnOnce(&RawTable<'_>)) -> Self {
        super::ConfigReader::record(read)
    }

    pub(super) fn add(&mut self, path: String, secret: bool) {
        match self.built.iter_mut().find(|key| key.path == path) {
            Some(key) => key.secret |= secret,
            None => self.built.push(BuiltKey { path, secret }),
        }
    }

    /// Whether the value under a dotted path is a list of tables.
    pub(in crate::config) fn is_list(&self, path: &str) -> bool {
        self.lists.iter().any(|list| list == path)
    }

    /// Looks a dotted path up; list positions are left out of it.
    pub(in crate::config) fn look_up(&self, path: &str) -> Option<KnownKey<'_>> {
        if let Some(built) = self.built.iter().find(|key| key.path == path) {
            return Some(KnownKey::Built(built));
        }
        let mut inside = self.below(path);
        inside.next().map(|_| KnownKey::Section)
    }

    /// The key that was probably meant by an unknown one: a near name in the same table, else the same name in
    /// another one.
    pub(in crate::config) fn suggestion(&self, table: &str, name: &str) -> Option<String> {
        let siblings = || self.below(table).filter_map(|rest| rest.split('.').next());
        let allowed = (name.len() / 3).clamp(1, 3);
        let near = siblings()
            .map(|sibling| (strsim::damerau_levenshtein(sibling, name), sibling))
            .filter(|(distance, _)| *distance <= allowed)
            .min();
        if let Some((_, sibling)) = near {
            return Some(format!("did you mean `{sibling}`?"));
        }
        let elsewhere = self.paths().find_map(|path| {
            let (other, last) = path.rsplit_once('.')?;
            (last == name && other != table).then_some((other, last))
        });
        if let Some((other, last)) = elsewhere {
            return Some(format!("`{last}` belongs in [{other}]"));
        }
        let mut names: Vec<&str> = siblings().collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| format!("known here: {}", names.join(", ")))
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        self.built.iter().map(|key| key.path.as_str())
    }

    /// The paths in a table, without the table's own.
    fn below(&self, table: &str) -> impl Iterator<Item = &str> {
        self.paths().filter_map(move |path| match table {
            "" => Some(path),
            _ => path.strip_prefix(table)?.strip_prefix('.'),
        })
    }
}
