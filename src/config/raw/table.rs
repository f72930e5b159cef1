//! A table as written: a getter for each kind of value, with the default for an absent one.
//!
//! Must not know: which keys there are.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::{ConfigReader, RawItem, join};
use crate::config::diagnostic::FindingSeverity;

/// A table, or the absence of one: its getters answer defaults then.
#[derive(Clone)]
pub(in crate::config) struct RawTable<'r> {
    pub(super) reader: &'r ConfigReader<'r>,
    pub(super) path: String,
    pub(super) header: Option<Range<usize>>,
    pub(super) entries: Option<&'r DeTable<'r>>,
}

impl<'r> RawTable<'r> {
    pub(super) fn root(reader: &'r ConfigReader<'r>, entries: &'r DeTable<'r>) -> Self {
        Self {
            reader,
            path: String::new(),
            header: None,
            entries: Some(entries),
        }
    }

    /// The table under a key. Something else there counts as absent: the survey has refused it.
    pub(in crate::config) fn table(&self, name: &str) -> RawTable<'r> {
        let found = self.item(name);
        RawTable {
            reader: self.reader,
            path: join(&self.path, name),
            header: found.as_ref().map(|item| item.key_span.clone()),
            entries: found.and_then(|item| match item.value {
                DeValue::Table(entries) => Some(entries),
                _ => None,
            }),
        }
    }

    /// The value under a key.
    pub(in crate::config) fn item(&self, name: &str) -> Option<RawItem<'r>> {
        let (key, value) = self
            .entries?
            .iter()
            .find(|(key, _)| key.get_ref().as_ref() == name)?;
        Some(RawItem {
            reader: self.reader,
            path: join(&self.path, name),
            key_span: key.span(),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// Reports a key that must be there and isn't.
    pub(in crate::config) fn missing(&self, name: &str, hint: impl Into<String>) {
        let path = join(&self.path, name);
        let place = self.header.clone();
        self.reader.report(
            FindingSeverity::Error,
            place,
            &path,
            "missing",
            Some(hint.into()),
        );
    }

    /// Says that a key that may be left out had better not be.
    pub(in crate::config) fn unset(
        &self,
        name: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let path = join(&self.path, name);
        let place = self.header.clone();
        self.reader.report(
            FindingSeverity::Warning,
            place,
            &path,
            message,
            Some(hint.into()),
        );
    }

    /// Reports keys other than these, for files whose keys aren't in the table of keys.
    pub(in crate::config) fn refuse_others(&self, known: &[&str]) {
        for (key, _) in self.entries.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let hint = format!("known here: {}", known.join(", "));
                let path = join(&self.path, name);
                let place = Some(key.span());
                self.reader.report(
                    FindingSeverity::Error,
                    place,
                    &path,
                    "unknown key",
                    Some(hint),
                );
            }
        }
    }

    pub(in crate::config) fn boolean(&self, name: &str, default: bool) -> bool {
        self.item(name)
            .and_then(|item| item.boolean())
            .unwrap_or(default)
    }

    pub(in crate::config) fn number<T: TryFrom<u64>>(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        default: T,
    ) -> T {
        self.item(name)
            .and_then(|item| T::try_from(item.number(range)?).ok())
            .unwrap_or(default)
    }

    /// `"16KiB"`, or a number of bytes.
    pub(in crate::config) fn size(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        default: usize,
    ) -> usize {
        self.item(name)
            .and_then(|item| usize::try_from(item.size(range)?).ok())
            .unwrap_or(default)
    }

    pub(in crate::config) fn duration(
        &self,
        name: &str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.item(name)
            .and_then(|item| item.duration(range))
            .unwrap_or(default)
    }

    pub(in crate::config) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        self.item(name)
            .and_then(|item| item.choice(choices))
            .unwrap_or(default)
    }

    pub(in crate::config) fn text(&self, name: &str, default: &str) -> String {
        self.item(name)
            .and_then(|item| item.text())
            .unwrap_or(default)
            .to_owned()
    }
}
