//! Findings about a configuration: what is wrong, where, and how to correct it, shown as a compiler does.
//!
//! Keeps true: a finding carries source text only if the code that made it knows that the line holds no secret; strings
//! from outside are escaped.
//! Must not know: which keys exist.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::terms::labels::labels;

labels! {
    /// How bad a finding is.
    #[derive(PartialOrd, Ord)]
    pub enum FindingSeverity {
        /// The configuration can't be used.
        Error => "error",
        /// The configuration can be used, but the operator should know; an error under `check --strict`.
        Warning => "warning",
        /// Something that only the unit has was not checked.
        Note => "note",
    }
}

/// A place in a file; line and column count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// A line of the file with the part that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    line: String,
    width: usize,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The severity.
    pub severity: FindingSeverity,
    /// The file as it was named.
    pub file: PathBuf,
    /// The place in the file; `None` when the finding is about the file as a whole.
    pub place: Option<Position>,
    /// Dotted key path, list positions in brackets: `server.listen[1]`; empty for syntax errors.
    pub key: String,
    /// The problem.
    pub message: String,
    /// How to correct it.
    pub hint: Option<String>,
    /// The line, if it holds no secret.
    pub excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// For logs, where one finding is one event: `FILE:LINE:COLUMN: key: message; hint`, without the excerpt.
    pub(crate) fn one_line(&self) -> impl fmt::Display + '_ {
        OneLine(self)
    }

    /// The same finding as a warning.
    pub(super) fn into_warning(self) -> Self {
        Self {
            severity: FindingSeverity::Warning,
            ..self
        }
    }

    /// For programs: `{file, line, column, key, message, hint}`; line, column and hint may be null. No excerpt.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file.to_string_lossy(),
            "line": self.place.map(|place| place.line),
            "column": self.place.map(|place| place.column),
            "key": self.key,
            "message": self.message,
            "hint": self.hint,
        })
    }
}

struct OneLine<'d>(&'d Diagnostic);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(finding) = self;
        write!(formatter, "{}:", finding.file.display())?;
        if let Some(place) = finding.place {
            write!(formatter, "{}:{}:", place.line, place.column)?;
        }
        if !finding.key.is_empty() {
            write!(formatter, " {}:", finding.key)?;
        }
        write!(formatter, " {}", finding.message)?;
        if let Some(hint) = &finding.hint {
            write!(formatter, "; {hint}")?;
        }
        Ok(())
    }
}

/// Prints findings compiler-style, an empty line after each.
pub fn write_report<'d>(
    to: &mut impl io::Write,
    findings: impl IntoIterator<Item = &'d Diagnostic>,
) -> io::Result<()> {
    for finding in findings {
        writeln!(to, "{finding}\n")?;
    }
    Ok(())
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = self.severity.as_str();
        if self.key.is_empty() {
            write!(formatter, "{severity}: {}", self.message)?;
        } else {
            write!(formatter, "{severity}: `{}`: {}", self.key, self.message)?;
        }
        let number = self
            .place
            .map_or_else(String::new, |place| place.line.to_string());
        let margin = " ".repeat(number.len());
        write!(formatter, "\n{margin}--> {}", self.file.display())?;
        if let Some(place) = self.place {
            write!(formatter, ":{}:{}", place.line, place.column)?;
            if let Some(excerpt) = &self.excerpt {
                let indent: String = excerpt
                    .line
                    .chars()
                    .take(place.column.saturating_sub(1))
                    .map(|character| if character == '\t' { '\t' } else { ' ' })
                    .collect();
                let carets = "^".repeat(excerpt.width.max(1));
                write!(formatter, "\n{margin} |\n{number} | {}", excerpt.line)?;
                write!(formatter, "\n{margin} | {indent}{carets}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(formatter, "\n{margin} = help: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the file's order; at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// Never empty.
    pub errors: Vec<Diagnostic>,
    /// The warnings.
    pub warnings: Vec<Diagnostic>,
    /// The secret and stream files it refers to, as far as it could be read: the error may be in one of
    /// them.
    pub files: Vec<PathBuf>,
}

impl ConfigErrors {
    /// One error about a file as a whole.
    pub(crate) fn of_file(
        file: &Path,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            errors: vec![Diagnostic {
                severity: FindingSeverity::Error,
                file: file.to_path_buf(),
                place: None,
                key: String::new(),
                message: message.into(),
                hint: Some(hint.into()),
                excerpt: None,
            }],
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n\n")?;
            }
            error.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Lines longer than this aren't shown.
const LONGEST_EXCERPT: usize = 160;

/// A file's text, for turning byte offsets into places and excerpts.
#[derive(Debug)]
pub(super) struct SourceText<'t> {
    pub(super) file: &'t Path,
    pub(super) text: &'t str,
}

impl SourceText<'_> {
    /// The place of a byte offset; past the end it is the end.
    pub(super) fn place(&self, offset: usize) -> Position {
        let before = self.before(offset);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The bytes of the lines that `span` touches.
    pub(super) fn lines(&self, span: &Range<usize>) -> Range<usize> {
        let start = self
            .before(span.start)
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let last = self.before(span.end.max(span.start)).len();
        let end = self.text[last..]
            .find('\n')
            .map_or(self.text.len(), |newline| last + newline);
        start..end
    }

    /// The text between a byte offset and the end of its line.
    pub(super) fn rest_of_line(&self, offset: usize) -> &str {
        let start = self.before(offset).len();
        let end = self.lines(&(start..start)).end;
        self.text.get(start..end).unwrap_or_default()
    }

    /// The first line of `span` with the span's width in it; `None` for a line that is too long or has control
    /// characters. It ends at a `#` after the span: a secret may have been commented out there.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> Option<Excerpt> {
        let lines = self.lines(&(span.start..span.start));
        let end = span.end.min(lines.end);
        let rest = self.text.get(end..lines.end)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let line = self.text.get(lines.start..end + rest.len())?.trim_end();
        let end = end.min(lines.start + line.len());
        let width = self.text.get(span.start..end)?.chars().count();
        let shown = line.len() <= LONGEST_EXCERPT
            && !line
                .chars()
                .any(|character| character.is_control() && character != '\t');
        shown.then(|| Excerpt {
            line: line.to_owned(),
            width,
        })
    }

    fn before(&self, offset: usize) -> &str {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        &self.text[..end]
    }
}

/// An outside string for a message: in quotes, escaped, cut at 60 characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> SourceText<'_> {
        SourceText {
            file: Path::new("f.toml"),
            text,
        }
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let text = "a = 1\né = \"ü\" x";
        let offset = text.find('x').unwrap();
        assert_eq!(source(text).place(offset), Position { line: 2, column: 9 });
    }

    #[test]
    fn an_offset_past_the_end_is_the_end() {
        assert_eq!(source("ab").place(99), Position { line: 1, column: 3 });
    }

    #[test]
    fn a_finding_reads_like_a_compilers() {
        let text = "[server]\nworkers = -1\n";
        let source = source(text);
        let start = text.find("-1").unwrap();
        let shown = Diagnostic {
            severity: FindingSeverity::Error,
            file: source.file.to_path_buf(),
            place: Some(source.place(start)),
            key: "server.workers".into(),
            message: "out of range".into(),
            hint: Some("write 0 to 1024".into()),
            excerpt: source.excerpt(&(start..start + 2)),
        }
        .to_string();
        let expected = "error: `server.workers`: out of range\n --> f.toml:2:11\n  |\n2 | workers = -1\n  |           ^^\n  = help: write 0 to 1024";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_finding_fits_one_line_of_a_log() {
        let finding = Diagnostic {
            severity: FindingSeverity::Error,
            file: "f.toml".into(),
            place: Some(Position {
                line: 2,
                column: 11,
            }),
            key: "server.workers".into(),
            message: "out of range".into(),
            hint: Some("write 0 to 1024".into()),
            excerpt: source("workers = -1").excerpt(&(10..12)),
        };
        let expected = "f.toml:2:11: server.workers: out of range; write 0 to 1024";
        assert_eq!(finding.one_line().to_string(), expected);
        let whole_file = Diagnostic {
            place: None,
            key: String::new(),
            hint: None,
            ..finding
        };
        assert_eq!(whole_file.one_line().to_string(), "f.toml: out of range");
    }

    #[test]
    fn a_comment_after_the_span_is_not_shown() {
        let text = "listen = \"a#b\" # secret = \"hunter2\"";
        let excerpt = source(text).excerpt(&(9..14)).unwrap();
        assert_eq!(excerpt.line, "listen = \"a#b\"");
    }

    #[test]
    fn outside_strings_are_escaped_and_cut() {
        assert_eq!(quoted("a\u{1b}[1m"), "\"a\\u{1b}[1m\"");
        assert!(quoted(&"x".repeat(100)).ends_with("…\""));
    }
}
