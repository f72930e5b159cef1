//! Aligned columns for people, in colour where the output is a terminal.
//!
//! Keeps true: a text from outside can't drive the terminal; without the colours nothing is lost.
//! Must not know: what is shown. Colours are written always: the output that `cli` hands to its commands takes them out
//! where it is no terminal, or where `NO_COLOR` is set.

use std::io::{self, Write};

use serde_json::Value;

use crate::telemetry::escape::{deceives, escape_into};

/// A text from anywhere, as a terminal may show it.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if deceives(character) {
            escape_into(&mut shown, character.encode_utf8(&mut [0; 4]));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A value of the daemon's answer, as a terminal may show it: a string without quotes, and nothing for null.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As everything else.
    Plain,
    /// A column's name, or what is of no weight.
    Faint,
    /// In order.
    Good,
    /// Somebody should look at it.
    Doubtful,
    /// Wrong.
    Bad,
}

impl Tone {
    /// The text in this tone. It must be harmless already.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Faint => "2",
            Self::Good => "32",
            Self::Doubtful => "33",
            Self::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A text in a table.
#[derive(Clone, Debug)]
pub(crate) struct TableCell {
    text: String,
    tone: Tone,
}

impl TableCell {
    /// A cell with a text from anywhere.
    pub(crate) fn new(text: &str, tone: Tone) -> Self {
        Self {
            text: harmless(text),
            tone,
        }
    }

    /// The usual cell.
    pub(crate) fn plain(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows below the names of their columns.
#[derive(Clone, Debug)]
pub(crate) struct TextTable<const COLUMNS: usize> {
    rows: Vec<[TableCell; COLUMNS]>,
}

impl<const COLUMNS: usize> TextTable<COLUMNS> {
    /// No row yet.
    pub(crate) fn new(names: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![names.map(|name| TableCell::new(name, Tone::Faint))],
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [TableCell; COLUMNS]) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Prints the rows, two spaces between the columns. A column in which nothing stands is left out.
    pub(crate) fn print(&self, to: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let length = |cell: &TableCell| cell.text.chars().count();
        let mut widths = [0; COLUMNS];
        for row in self.rows.iter().skip(1) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = length(cell).max(*width);
            }
        }
        let names = self.rows.first();
        for (width, name) in widths.iter_mut().zip(names.into_iter().flatten()) {
            if *width > 0 {
                *width = length(name).max(*width);
            }
        }
        for row in &self.rows {
            // Blanks wait for a text behind them: no line ends with one.
            let mut blanks = 0;
            for (cell, width) in row.iter().zip(widths).filter(|(_, width)| *width > 0) {
                if !cell.text.is_empty() {
                    write!(to, "{:blanks$}{}", "", cell.tone.paint(&cell.text))?;
                    blanks = 0;
                }
                blanks += width - length(cell) + 2;
            }
            writeln!(to)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut table = TextTable::new(["NAME", "NOTE", "STATE"]);
        assert!(table.is_empty());
        table.row([
            TableCell::plain("a"),
            TableCell::plain(""),
            TableCell::new("up", Tone::Good),
        ]);
        table.row(["longer\n", "", ""].map(TableCell::plain));
        let mut printed = Vec::new();
        table.print(&mut printed).unwrap();
        let plain = anstream::adapter::strip_bytes(&printed).into_vec();
        let plain = String::from_utf8(plain).unwrap();
        assert_eq!(plain, "NAME      STATE\na         up\nlonger\\n\n");
    }
}
