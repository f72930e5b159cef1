//! The list of keys in docs/configuration.md is config.example.toml in another form, which `RENEWD_WRITE_DOCS=1` makes
//! this test write.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::mem;

use crate::support::pages::CONFIGURATION;
use crate::support::source::root;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// The heading of the list, up to which the page is written by hand.
const HEADING: &str = "\n## Every key\n";

/// Columns of a line.
const WIDTH: usize = 120;

/// A block of the example: a comment, the keys below it, and an example of more.
#[derive(Default)]
struct Group<'e> {
    comment: Vec<&'e str>,
    keys: Vec<Key<'e>>,
    shown: Vec<&'e str>,
}

/// A key, its default, and the current app's value.
struct Key<'e> {
    name: &'e str,
    default: Option<&'e str>,
    app: Option<&'e str>,
}

impl<'e> Group<'e> {
    fn key(&mut self, name: &'e str, page: &mut String) -> &mut Key<'e> {
        // An example stands above the keys that the comment is about as well.
        if self.keys.is_empty() && !self.shown.is_empty() {
            mem::take(self).write(page);
        }
        if self.keys.last().is_none_or(|last| last.name != name) {
            let (default, app) = (None, None);
            self.keys.push(Key { name, default, app });
        }
        self.keys.last_mut().expect("a key")
    }

    fn write(self, page: &mut String) {
        let comment = self.comment.join(" ").replace('*', "\\*");
        let keys: Vec<String> = self.keys.iter().map(Key::shown).collect();
        let text = match (keys.is_empty(), comment.is_empty()) {
            (true, _) => comment,
            (false, true) => format!("- {}", keys.join(", ")),
            (false, false) => format!("- {}: {comment}", keys.join(", ")),
        };
        if !text.is_empty() {
            // A list needs no empty lines between its items.
            if !(text.starts_with("- ") && last_line(page).starts_with(['-', ' '])) {
                page.push('\n');
            }
            wrap(&text, page);
        }
        if !self.shown.is_empty() {
            let _ = writeln!(page, "\n```\n{}\n```", self.shown.join("\n"));
        }
    }
}

impl Key<'_> {
    fn shown(&self) -> String {
        match (self.default, self.app) {
            (Some(default), None) => format!("`{} = {default}`", self.name),
            (Some(default), Some(app)) => {
                format!("`{} = {default}`, for the current app `{app}`", self.name)
            }
            (None, app) => format!("`{}`, for example `{}`", self.name, app.unwrap_or_default()),
        }
    }
}

fn last_line(page: &str) -> &str {
    page.lines().next_back().unwrap_or_default()
}

/// Writes the text in lines that break at no blank inside backticks; those of a list's item are indented.
fn wrap(text: &str, page: &mut String) {
    let indent = if text.starts_with("- ") { "  " } else { "" };
    let mut column = 0;
    let mut quoted = false;
    let words = text.split_inclusive(|c: char| {
        quoted ^= c == '`';
        c == ' ' && !quoted
    });
    for word in words {
        let word = word.trim_end_matches(' ');
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            let _ = write!(page, "\n{indent}{word}");
            column = indent.len() + length;
        } else {
            let blank = if column > 0 { " " } else { "" };
            let _ = write!(page, "{blank}{word}");
            column += blank.len() + length;
        }
    }
    page.push('\n');
}

/// `key = value`, where that is all of the line.
fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ")?;
    let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    key.bytes().all(is_key).then_some((key, value))
}

/// Adds a line of the example, which may begin the next group.
fn add<'e>(line: &'e str, group: &mut Group<'e>, page: &mut String) {
    if let Some(shown) = line.strip_prefix("#   ") {
        group.shown.push(shown);
    } else if line == "#" {
        group.shown.push("");
    } else if let Some((key, value)) = line.strip_prefix("# ").and_then(key_and_value) {
        group.key(key, page).default = Some(value);
    } else if let Some((key, value)) = key_and_value(line) {
        group.key(key, page).app = Some(value);
    } else if let Some(comment) = line.strip_prefix("# ") {
        if !group.keys.is_empty() || !group.shown.is_empty() {
            mem::take(group).write(page);
        }
        group.comment.push(comment);
    }
}

/// The list: a heading for each table, and below it the example's comments with their keys.
fn every_key(example: &str) -> String {
    let mut page = String::new();
    let mut tables = BTreeSet::new();
    // The first paragraph is about the file.
    for paragraph in example.split("\n\n").skip(1) {
        let table = paragraph.lines().find(|line| line.starts_with('['));
        // A second table of the name is one more of the current app's rules, which is about no key.
        if table.is_some_and(|table| !tables.insert(table)) {
            continue;
        }
        if let Some(table) = table {
            let _ = writeln!(page, "\n### `{table}`");
        }
        let mut group = Group::default();
        for line in paragraph.lines() {
            if line.starts_with('[') {
                mem::take(&mut group).write(&mut page);
            } else {
                add(line, &mut group, &mut page);
            }
        }
        group.write(&mut page);
    }
    page
}

#[test]
fn the_list_of_keys_is_the_example_in_another_form() {
    let (by_hand, list) = CONFIGURATION.split_once(HEADING).expect("the heading");
    let list = list.split_once("\n### ").expect("the first table").0.len();
    let kept = by_hand.len() + HEADING.len() + list;
    let page = format!("{}{}", &CONFIGURATION[..kept], every_key(EXAMPLE));
    if std::env::var_os("RENEWD_WRITE_DOCS").is_some() {
        std::fs::write(root().join("docs/configuration.md"), &page).expect("the page");
        return;
    }
    assert!(
        page == CONFIGURATION,
        "config.example.toml has changed: RENEWD_WRITE_DOCS=1 cargo nextest run --test house every_key"
    );
}
