//! One value as written: what it is, or a finding that says what it should be.
//!
//! Must not know: which key it stands under.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::DeValue;

use super::{ConfigReader, RawTable};
use crate::config::diagnostic::{FindingSeverity, quoted};

/// A value with its place.
#[derive(Clone)]
pub(in crate::config) struct RawItem<'r> {
    pub(super) reader: &'r ConfigReader<'r>,
    pub(super) path: String,
    pub(super) key_span: Range<usize>,
    pub(super) span: Range<usize>,
    pub(super) value: &'r DeValue<'r>,
}

impl<'r> RawItem<'r> {
    pub(in crate::config) fn error(&self, message: impl Into<String>, hint: impl Into<String>) {
        let hint = Some(hint.into());
        self.report(FindingSeverity::Error, message, hint);
    }

    pub(in crate::config) fn warning(&self, message: impl Into<String>, hint: impl Into<String>) {
        let hint = Some(hint.into());
        self.report(FindingSeverity::Warning, message, hint);
    }

    pub(in crate::config) fn note(&self, message: impl Into<String>) {
        self.report(FindingSeverity::Note, message, None);
    }

    fn report(&self, severity: FindingSeverity, message: impl Into<String>, hint: Option<String>) {
        let place = Some(self.span.clone());
        self.reader
            .report(severity, place, &self.path, message, hint);
    }

    fn wrong_type(&self, wanted: &str, hint: impl Into<String>) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(format!("expected {wanted}, found {found}"), hint);
    }

    /// Keeps this value's line out of every finding.
    pub(in crate::config) fn hide(&self) {
        self.reader.hide(self.value, &self.span);
    }

    /// The string, if it is one; reports nothing.
    pub(in crate::config) fn if_text(&self) -> Option<&'r str> {
        self.value.as_str()
    }

    pub(in crate::config) fn text(&self) -> Option<&'r str> {
        if self.value.as_str().is_none() {
            self.wrong_type("a string", "put it in double quotes");
        }
        self.value.as_str()
    }

    /// A string as it is; an integer or a boolean as it is written in JSON.
    pub(in crate::config) fn scalar(&self) -> Option<String> {
        match self.value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Boolean(value) => Some(value.to_string()),
            DeValue::Integer(number) => {
                let number = i64::from_str_radix(number.as_str(), number.radix());
                if number.is_err() {
                    self.error("out of range", "write it as a string");
                }
                number.ok().map(|number| number.to_string())
            }
            _ => {
                self.wrong_type(
                    "a string, an integer or a boolean",
                    "write one value, a fraction as a string",
                );
                None
            }
        }
    }

    pub(in crate::config) fn boolean(&self) -> Option<bool> {
        if self.value.as_bool().is_none() {
            self.wrong_type("a boolean", "write true or false, without quotes");
        }
        self.value.as_bool()
    }

    pub(in crate::config) fn number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let hint = format!("write a whole number, {} to {}", range.start(), range.end());
        if !self.value.is_integer() {
            self.wrong_type("an integer", hint);
            return None;
        }
        let number = integer(self.value).filter(|number| range.contains(number));
        if number.is_none() {
            self.error("out of range", hint);
        }
        number
    }

    pub(in crate::config) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let hint = format!(
            "write a size such as \"16KiB\", or a number of bytes, {} to {} bytes",
            range.start(),
            range.end()
        );
        let size = match self.value {
            DeValue::Integer(_) => integer(self.value),
            DeValue::String(text) => parse_size(text),
            _ => {
                self.wrong_type("a size", hint);
                return None;
            }
        };
        match size {
            None => self.error("not a size", hint),
            Some(size) if !range.contains(&size) => self.error("out of range", hint),
            Some(size) => return Some(size),
        }
        None
    }

    pub(in crate::config) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        const HINT: &str = "write a number with a unit, such as \"30s\" or \"1h\"";
        let DeValue::String(text) = self.value else {
            self.wrong_type("a duration", HINT);
            return None;
        };
        let Ok(duration) = humantime::parse_duration(text) else {
            self.error(format!("{} is not a duration", quoted(text)), HINT);
            return None;
        };
        if !range.contains(&duration) {
            let (least, most) = (in_one_unit(*range.start()), in_one_unit(*range.end()));
            self.error("out of range", format!("write \"{least}\" to \"{most}\""));
            return None;
        }
        Some(duration)
    }

    pub(in crate::config) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| quoted(name)).collect();
            self.error(
                format!("{} is none of the choices", quoted(text)),
                format!("write {}", names.join(" or ")),
            );
        }
        found.map(|(_, choice)| *choice)
    }

    /// The elements of a list, each under its position.
    pub(in crate::config) fn list(&self) -> Option<Vec<RawItem<'r>>> {
        let DeValue::Array(elements) = self.value else {
            self.wrong_type("a list", "put it in square brackets");
            return None;
        };
        let item = |(index, element): (usize, &'r toml::Spanned<DeValue<'r>>)| RawItem {
            reader: self.reader,
            path: format!("{}[{index}]", self.path),
            key_span: element.span(),
            span: element.span(),
            value: element.get_ref(),
        };
        Some(elements.iter().enumerate().map(item).collect())
    }

    /// This value as a table.
    pub(in crate::config) fn as_table(&self) -> Option<RawTable<'r>> {
        let DeValue::Table(entries) = self.value else {
            self.wrong_type("a table", "write its keys in braces or under a header");
            return None;
        };
        Some(RawTable {
            reader: self.reader,
            path: self.path.clone(),
            header: Some(self.span.clone()),
            entries: Some(entries),
        })
    }
}

impl fmt::Debug for RawItem<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.path) // never the value: it may be a secret
    }
}

pub(super) fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A duration as an operator would write it: `365d`, `24h`, `90s`.
pub(in crate::config) fn in_one_unit(duration: Duration) -> String {
    const UNITS: [(&str, u128); 4] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ];
    let millis = duration.as_millis();
    let fits = |&&(name, unit): &&(&str, u128)| {
        // "24h", not "1d".
        let least = if name == "d" { 2 * unit } else { unit };
        millis >= least && millis.is_multiple_of(unit)
    };
    match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let scale = match text.get(digits.len()..)?.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_or_none() {
        assert_eq!(parse_size("16KiB"), Some(16384));
        assert_eq!(parse_size("2 MiB"), Some(2 << 20));
        assert_eq!(parse_size("100"), Some(100));
        for wrong in [
            "",
            "KiB",
            "16kb",
            "-1KiB",
            "1.5MiB",
            "18446744073709551615KiB",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_shown_as_one_would_write_them() {
        let shown = |millis| in_one_unit(Duration::from_millis(millis));
        assert_eq!(shown(365 * 86_400_000), "365d");
        assert_eq!(shown(86_400_000), "24h");
        assert_eq!(shown(90_000), "90s");
        assert_eq!(shown(60_000), "1m");
        assert_eq!(shown(1), "1ms");
        assert_eq!(shown(0), "0s");
    }
}
