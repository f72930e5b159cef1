//! A table as written: a getter for each kind of value, with the default for an absent one.
//!
//! Must not know: which keys there are.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::{ConfigReader, RawItem, join};
use crate::config::diagnostic::FindingSeverity;

/// A table, or the absence of one: its getters then return the defaults.
#[derive(Clone)]
pub(in crate::config) struct RawTable<'r> {
    pub(super) reader: &'r ConfigReader<'r>,
    pub(super) path: String,
    pub(super) header: Option<Range<usize>>,
    pub(super) entries: Option<&'r DeTable<'r>>,
}

impl<'r> RawTable<'r> {
    /// The table under a key. Something else there counts as absent: the survey refuses it.
    pub(in crate::config) fn table(&self, name: &str) -> RawTable<'r> {
        let found = self.find(name);
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

    /// The tables of the list under a key; what isn't one is reported.
    pub(in crate::config) fn tables(&self, name: &str) -> Vec<RawTable<'r>> {
        if self.is_recorded() {
            // One table is asked for what every table of the list is asked for.
            let path = join(&self.path, name);
            self.reader.asked.borrow_mut().lists.push(path);
            return vec![self.table(name)];
        }
        let elements = self.find(name).and_then(|item| item.list());
        let elements = elements.unwrap_or_default();
        elements.iter().filter_map(RawItem::as_table).collect()
    }

    /// Whether there is a table.
    pub(in crate::config) fn is_there(&self) -> bool {
        self.entries.is_some()
    }

    /// The value under a key.
    pub(in crate::config) fn item(&self, name: &str) -> Option<RawItem<'r>> {
        self.ask(name, false);
        self.find(name)
    }

    /// The value under a key that is a secret, or names one.
    pub(in crate::config) fn secret(&self, name: &str) -> Option<RawItem<'r>> {
        self.ask(name, true);
        self.find(name)
    }

    /// The elements of the list under a key; none where there is no list.
    pub(in crate::config) fn list(&self, name: &str) -> Vec<RawItem<'r>> {
        let elements = self.item(name).and_then(|item| item.list());
        elements.unwrap_or_default()
    }

    fn ask(&self, name: &str, secret: bool) {
        if self.is_recorded() {
            let path = join(&self.path, name);
            self.reader.asked.borrow_mut().add(path, secret);
        }
    }

    fn is_recorded(&self) -> bool {
        self.reader.root.is_none()
    }

    /// The value under a key that is asked for by [`Self::table`] or [`Self::tables`] too.
    pub(in crate::config) fn find(&self, name: &str) -> Option<RawItem<'r>> {
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

    /// Reports something about the table as a whole.
    pub(in crate::config) fn error(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(FindingSeverity::Error, &self.path, message, hint);
    }

    /// Reports something about the table as a whole that is allowed.
    pub(in crate::config) fn warning(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(FindingSeverity::Warning, &self.path, message, hint);
    }

    /// The value of a key that must be there; where it isn't, that is reported.
    pub(in crate::config) fn required(&self, name: &str, hint: &str) -> Option<RawItem<'r>> {
        let item = self.item(name);
        if item.is_none() {
            self.missing(name, hint);
        }
        item
    }

    /// Reports a key that must be there and isn't.
    pub(in crate::config) fn missing(&self, name: &str, hint: impl Into<String>) {
        let path = join(&self.path, name);
        self.report(FindingSeverity::Error, &path, "missing", hint);
    }

    /// Says that a key that may be left out had better not be.
    pub(in crate::config) fn unset(
        &self,
        name: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let path = join(&self.path, name);
        self.report(FindingSeverity::Warning, &path, message, hint);
    }

    fn report(
        &self,
        severity: FindingSeverity,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (place, hint) = (self.header.clone(), Some(hint.into()));
        self.reader.report(severity, place, path, message, hint);
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
