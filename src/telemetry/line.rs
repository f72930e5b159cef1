//! One log line, field by field, in one of three shapes. Pure.
//!
//! Keeps true: whatever the values hold, the result is one line, no value can pose as another field, none is longer
//! than [`VALUE_LIMIT`].
//! Must not know: what is logged, and where to.

use std::fmt::{Display, Write as _};

use super::escape::{bounded, escape_into, needs_escape};

/// Bytes kept of one value: room for an error with its causes, too little to fill a disk.
pub(crate) const VALUE_LIMIT: usize = 4096;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `key=value`, quoted where needed.
    Logfmt,
    /// One JSON object.
    Json,
    /// `time LEVEL message  key=value`, coloured.
    Pretty,
}

/// A line being written.
#[derive(Debug)]
pub(crate) struct Line {
    shape: Shape,
    text: String,
}

impl Line {
    /// An empty line.
    pub(crate) fn new(shape: Shape) -> Self {
        let mut text = String::with_capacity(256);
        if shape == Shape::Json {
            text.push('{');
        }
        Self { shape, text }
    }

    /// Adds text from anywhere; the pretty shape leaves out the keys `time` and `msg`.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let (value, cut) = bounded(value, VALUE_LIMIT);
        let ellipsis = if cut { "…" } else { "" };
        let bare = match self.shape {
            Shape::Json => false,
            Shape::Logfmt => is_bare(value),
            Shape::Pretty => is_bare(value) || !shows_key(key),
        };
        let quote = if bare { "" } else { "\"" };
        self.text.push_str(quote);
        escape_into(&mut self.text, value);
        self.text.push_str(ellipsis);
        self.text.push_str(quote);
    }

    /// Adds a number or a boolean: anything that JSON writes bare.
    pub(crate) fn bare(&mut self, key: &str, value: impl Display) {
        self.key(key);
        // Writing to a string can't fail.
        let _ = write!(self.text, "{value}");
    }

    /// Adds the level, which the pretty shape colours.
    pub(crate) fn level(&mut self, level: tracing::Level) {
        let (name, colour) = match level {
            tracing::Level::ERROR => ("error", "31"),
            tracing::Level::WARN => ("warn", "33"),
            tracing::Level::INFO => ("info", "32"),
            tracing::Level::DEBUG => ("debug", "34"),
            tracing::Level::TRACE => ("trace", "35"),
        };
        if self.shape == Shape::Pretty {
            let _ = write!(self.text, " \u{1b}[{colour}m{name:>5}\u{1b}[0m");
        } else {
            self.text("level", name);
        }
    }

    /// The line with its line feed.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.shape == Shape::Json {
            self.text.push('}');
        }
        self.text.push('\n');
        self.text.into_bytes()
    }

    fn key(&mut self, key: &str) {
        match self.shape {
            Shape::Json => {
                if self.text.len() > 1 {
                    self.text.push(',');
                }
                self.text.push('"');
                escape_into(&mut self.text, key);
                self.text.push_str("\":");
            }
            Shape::Pretty if !shows_key(key) => {
                if !self.text.is_empty() {
                    self.text.push(' ');
                }
            }
            Shape::Logfmt | Shape::Pretty => {
                if !self.text.is_empty() {
                    self.text.push(' ');
                }
                // Keys come from renewd and its dependencies; one with unusual characters must still be one key.
                self.text.extend(key.chars().map(|character| {
                    if needs_escape(character) || matches!(character, ' ' | '=') {
                        '_'
                    } else {
                        character
                    }
                }));
                self.text.push('=');
            }
        }
    }
}

fn shows_key(key: &str) -> bool {
    !matches!(key, "time" | "msg")
}

fn is_bare(value: &str) -> bool {
    !value.is_empty()
        && !value.chars().any(|character| {
            needs_escape(character) || character.is_whitespace() || character == '='
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(shape: Shape, value: &str) -> String {
        let mut line = Line::new(shape);
        line.text("time", "T");
        line.level(tracing::Level::INFO);
        line.text("msg", value);
        line.text("subject", value);
        line.bare("uid", 7);
        String::from_utf8(line.finish()).unwrap()
    }

    #[test]
    fn each_shape_has_its_form() {
        assert_eq!(
            line(Shape::Logfmt, "a b"),
            "time=T level=info msg=\"a b\" subject=\"a b\" uid=7\n"
        );
        assert_eq!(
            line(Shape::Json, "a b"),
            "{\"time\":\"T\",\"level\":\"info\",\"msg\":\"a b\",\"subject\":\"a b\",\"uid\":7}\n"
        );
        assert_eq!(
            line(Shape::Pretty, "a b"),
            "T \u{1b}[32m info\u{1b}[0m a b subject=\"a b\" uid=7\n"
        );
    }

    #[test]
    fn a_hostile_value_can_neither_end_the_line_nor_pose_as_a_field() {
        let hostile =
            "x\" level=error msg=\"y\n{\"uid\":0}\r\u{1b}]0;title\u{7}\u{9b}2J\u{2028}\u{202e}";
        for shape in [Shape::Logfmt, Shape::Json, Shape::Pretty] {
            let text = line(shape, hostile);
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            let own_colours = text.replace("\u{1b}[32m", "").replace("\u{1b}[0m", "");
            assert!(
                !own_colours
                    .trim_end_matches('\n')
                    .chars()
                    .any(char::is_control),
                "{text:?}"
            );
            assert!(!text.contains(" level=error msg=\"y"), "{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&line(Shape::Json, hostile)).unwrap();
        assert_eq!(json["subject"], hostile);
        assert_eq!(json["uid"], 7);
    }

    #[test]
    fn a_long_value_is_cut_and_says_so() {
        let text = line(Shape::Logfmt, &"a".repeat(100_000));
        assert!(text.len() < 2 * VALUE_LIMIT + 100);
        assert!(text.contains("a… "), "{}", &text[text.len() - 40..]);
    }

    #[test]
    fn an_empty_value_is_quoted() {
        assert!(line(Shape::Logfmt, "").contains("subject=\"\" "));
    }
}
