//! TOML as written, with the place of every key and value: a typed reader that goes on after an error.
//!
//! Serde stops at the first error; an operator wants all of them. So this module walks the spanned tree itself: a
//! getter that meets a wrong value reports it and returns `None` (or the default), and the caller continues. A
//! configuration that was built with errors is dropped when [`ConfigReader::finish`] returns them.
//!
//! Keeps true: no finding shows the line of a secret, of an unknown key (it may be a misspelt secret) or of an
//! unbuilt one. After a syntax error only syntax is reported, since an unclosed quote can turn a secret into keys. No
//! finding is reported twice.
//! Must not know: what a key means; files; the environment.

mod item;
mod known;
mod syntax;
mod table;

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{ConfigErrors, Diagnostic, FindingSeverity, SourceText, quoted};

pub(super) use item::{RawItem, in_one_unit};
pub use known::BuiltKey;
pub(super) use known::{KnownKey, KnownKeys};
pub(super) use table::RawTable;

/// A parsed file and what was found wrong with it.
pub(super) struct ConfigReader<'r> {
    source: SourceText<'r>,
    /// `None` where there is no file, and what is asked for is recorded instead.
    root: Option<&'r DeTable<'r>>,
    asked: RefCell<KnownKeys>,
    findings: RefCell<Vec<Finding>>,
    hidden: RefCell<Vec<Range<usize>>>,
}

#[derive(PartialEq)]
struct Finding {
    severity: FindingSeverity,
    span: Option<Range<usize>>,
    key: String,
    message: String,
    hint: Option<String>,
}

/// Warnings and notes of a file without errors.
#[derive(Debug)]
pub(super) struct Remarks {
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) notes: Vec<Diagnostic>,
}

/// Parses TOML. Every syntax error is reported at once, except what only follows from a bracket that isn't closed. A
/// text without a key is an error too, whose hint is `empty_hint`. A line with a key that isn't `known` is never
/// shown.
pub(super) fn parse<'t>(
    text: &'t str,
    file: &Path,
    empty_hint: &str,
    known: &KnownKeys,
) -> Result<DeTable<'t>, ConfigErrors> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(ConfigErrors {
            errors: syntax::findings(text, file, &errors, known),
            warnings: Vec::new(),
            files: Vec::new(),
        });
    }
    let root = root.into_inner();
    if root.is_empty() {
        return Err(ConfigErrors::of_file(file, "the file is empty", empty_hint));
    }
    Ok(root)
}

/// The string under a key of a table, whatever else is wrong with the text.
pub(super) fn text_at(text: &str, table: &str, key: &str) -> Option<String> {
    let (root, _) = DeTable::parse_recoverable(text);
    let value = root.get_ref().get(table)?.get_ref().as_table()?.get(key)?;
    value.get_ref().as_str().map(str::to_owned)
}

impl<'r> ConfigReader<'r> {
    pub(super) fn new(
        text: &'r str,
        file: &'r Path,
        root: impl Into<Option<&'r DeTable<'r>>>,
    ) -> Self {
        Self {
            source: SourceText { file, text },
            root: root.into(),
            asked: RefCell::default(),
            findings: RefCell::default(),
            hidden: RefCell::default(),
        }
    }

    /// Gives the keys that `read` asks for when nothing is there.
    fn record(read: impl FnOnce(&RawTable<'_>)) -> KnownKeys {
        let reader = ConfigReader::new("", Path::new(""), None);
        read(&reader.root());
        reader.asked.take()
    }

    /// The table of everything.
    pub(super) fn root(&'r self) -> RawTable<'r> {
        RawTable {
            reader: self,
            path: String::new(),
            header: None,
            entries: self.root,
        }
    }

    /// Refuses unknown keys wherever they stand, and hides what must not be shown.
    pub(super) fn survey(&self, known: &KnownKeys) {
        if let Some(root) = self.root {
            self.survey_table("", root, known);
        }
    }

    fn survey_table(&self, table: &str, entries: &DeTable<'_>, known: &KnownKeys) {
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let path = join(table, name);
            let place = Some(key.span());
            match known.look_up(&plain(&path)) {
                None => {
                    self.hide(value.get_ref(), &value.span());
                    let hint = known.suggestion(&plain(table), name);
                    self.report(FindingSeverity::Error, place, &path, "unknown key", hint);
                }
                Some(KnownKey::Built(key)) => {
                    if key.secret {
                        self.hide(value.get_ref(), &value.span());
                    }
                    if let DeValue::Table(inner) = value.get_ref() {
                        self.survey_table(&path, inner, known);
                    }
                }
                Some(KnownKey::Section) => self.survey_section(&path, place, value, known),
            }
        }
    }

    fn survey_section(
        &self,
        path: &str,
        place: Option<Range<usize>>,
        spanned: &toml::Spanned<DeValue<'_>>,
        known: &KnownKeys,
    ) {
        let value = spanned.get_ref();
        let list = known.lists.iter().any(|list| list == path);
        match value {
            DeValue::Table(inner) => self.survey_table(path, inner, known),
            // The getter reports an element that isn't a table.
            DeValue::Array(elements) if list => {
                for (index, element) in elements.iter().enumerate() {
                    match element.get_ref() {
                        DeValue::Table(inner) => {
                            self.survey_table(&format!("{path}[{index}]"), inner, known);
                        }
                        other => self.hide(other, &element.span()),
                    }
                }
            }
            _ if list => self.hide(value, &spanned.span()),
            _ => {
                self.hide(value, &spanned.span());
                let hint = format!("write its keys under [{path}]");
                self.report(
                    FindingSeverity::Error,
                    place,
                    path,
                    "must be a table",
                    Some(hint),
                );
            }
        }
    }

    fn hide(&self, value: &DeValue<'_>, span: &Range<usize>) {
        match value {
            DeValue::Table(entries) => {
                for (key, value) in entries {
                    self.hidden.borrow_mut().push(key.span());
                    self.hide(value.get_ref(), &value.span());
                }
            }
            DeValue::Array(elements) => {
                for element in elements {
                    self.hide(element.get_ref(), &element.span());
                }
            }
            _ => {}
        }
        self.hidden.borrow_mut().push(span.clone());
    }

    fn report(
        &self,
        severity: FindingSeverity,
        span: Option<Range<usize>>,
        key: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.findings.borrow_mut().push(Finding {
            severity,
            span,
            key: key.to_owned(),
            message: message.into(),
            hint,
        });
    }

    /// All findings in the file's order: the errors, or else the warnings and notes.
    pub(super) fn finish(&self) -> Result<Remarks, ConfigErrors> {
        let mut findings = Vec::new();
        for finding in self.findings.take() {
            // A value that is read twice is reported once.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings.sort_by_key(|finding| finding.span.as_ref().map(|span| span.start));
        let (mut errors, mut warnings, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for finding in findings {
            let diagnostic = self.diagnostic(finding);
            match diagnostic.severity {
                FindingSeverity::Error => errors.push(diagnostic),
                FindingSeverity::Warning => warnings.push(diagnostic),
                FindingSeverity::Note => notes.push(diagnostic),
            }
        }
        if errors.is_empty() {
            Ok(Remarks { warnings, notes })
        } else {
            Err(ConfigErrors {
                errors,
                warnings,
                files: Vec::new(),
            })
        }
    }

    fn diagnostic(&self, finding: Finding) -> Diagnostic {
        let shown = finding.span.as_ref().filter(|span| {
            let line = self.source.lines(&(span.start..span.start));
            let hidden = self.hidden.borrow();
            !hidden
                .iter()
                .any(|secret| secret.start <= line.end && line.start <= secret.end)
        });
        Diagnostic {
            severity: finding.severity,
            file: self.source.file.to_path_buf(),
            place: finding
                .span
                .as_ref()
                .map(|span| self.source.place(span.start)),
            excerpt: shown.and_then(|span| self.source.excerpt(span)),
            key: finding.key,
            message: finding.message,
            hint: finding.hint,
        }
    }

    /// The text without the values of secret keys, for a hash that gives nothing away.
    pub(super) fn public_text(&self) -> Vec<&'r str> {
        let mut hidden = self.hidden.borrow().clone();
        hidden.sort_by_key(|span| span.start);
        let mut parts = Vec::new();
        let mut from = 0;
        for span in hidden {
            parts.extend(self.source.text.get(from..span.start));
            from = from.max(span.end);
        }
        parts.extend(self.source.text.get(from..));
        parts
    }
}

fn join(table: &str, name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    let name = if bare { name.to_owned() } else { quoted(name) };
    if table.is_empty() {
        name
    } else {
        format!("{table}.{name}")
    }
}

/// A path without its list positions, as the table of keys has it.
fn plain(path: &str) -> String {
    let mut inside = false;
    let outside = |character: &char| {
        inside = (inside || *character == '[') && *character != ']';
        !inside && *character != ']'
    };
    path.chars().filter(outside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_positions_are_left_out_of_a_plain_path() {
        assert_eq!(plain("auth.jwt.keys[12].secret"), "auth.jwt.keys.secret");
    }

    #[test]
    fn every_syntax_error_is_reported_and_none_shows_text() {
        let text = "a = \"hunter2\nb = 1 1\nc = \n";
        let errors = parse(text, Path::new("f"), "", &KnownKeys::default()).unwrap_err();
        assert!(errors.errors.len() >= 3, "{errors}");
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
    }

    #[test]
    fn comments_alone_are_an_empty_file() {
        let errors = parse(
            "# nothing\n\n",
            Path::new("f"),
            "write something",
            &KnownKeys::default(),
        )
        .unwrap_err();
        assert!(errors.to_string().contains("the file is empty"));
    }
}
