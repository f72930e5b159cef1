//! The configuration as `renewd config show` prints it: every key with its value, defaults filled in, secrets left out.
//!
//! The defaults are read from the comments of `config.example.toml`, which `tests/config/config_example.rs` holds to the
//! code: one list of them is enough.
//!
//! Keeps true: the value of a secret is never in it, only the place where the secret is; printed as TOML and read again,
//! it is the same configuration but for what was left out.
//! Must not know: files, the environment, what a key means.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::credentials::is_variable_name;
use super::keys::{built, known};
use super::model::Config;
use super::raw::in_one_unit;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Stands where a secret stands.
const REDACTED: &str = "[redacted]";

/// The defaults that `config.example.toml` gives.
static DEFAULTS: LazyLock<Vec<ShownKey>> = LazyLock::new(defaults);

/// The configuration, key by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigShown {
    /// The keys that the file has or that have a default, in no table twice.
    pub keys: Vec<ShownKey>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownKey {
    /// Dotted path: `token.lifetime`.
    pub key: String,
    /// As the file has it. A secret is `[redacted]`, unless the value only says where it is.
    pub value: Value,
    /// Whether the file leaves it out, and the default applies.
    pub default: bool,
}

impl ConfigShown {
    /// The configuration of a file with this text; the text has been validated, with this result.
    pub(super) fn of(text: &str, config: &Config) -> Self {
        let written: Map<String, Value> = toml::from_str(text).unwrap_or_default();
        let written = Value::Object(written);
        let mut keys: Vec<ShownKey> = Vec::new();
        for path in outermost() {
            let found = path.split('.').try_fold(&written, |table, name| {
                table.get(name).filter(|value| !value.is_null())
            });
            if let Some(value) = found {
                keys.push(ShownKey {
                    key: path.to_owned(),
                    value: redacted(path, value),
                    default: false,
                });
            } else if let Some(default) = DEFAULTS.iter().find(|default| default.key == path) {
                let mut default = default.clone();
                if path == "token.refresh_before" {
                    // The one default that depends on another key.
                    default.value = in_one_unit(config.token.refresh_before).into();
                }
                keys.push(default);
            }
        }
        Self { keys }
    }

    /// The same, but for keys whose change waits for a restart: those keep the values of the configuration that runs.
    pub(crate) fn in_force(mut self, running: &Self, waiting: &[&'static str]) -> Self {
        let waits = |key: &ShownKey| {
            let below = |path: &&str| {
                let rest = key.key.strip_prefix(path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            waiting.iter().any(below)
        };
        self.keys.retain(|key| !waits(key));
        let kept = running.keys.iter().filter(|key| waits(key));
        self.keys.extend(kept.cloned());
        self
    }

    /// The keys as a configuration file. `default` stands behind each default.
    pub fn to_toml(&self, default: &str) -> String {
        let table = |key: &ShownKey| {
            let (table, name) = key.key.rsplit_once('.').unwrap_or(("", &key.key));
            (table.to_owned(), name.to_owned())
        };
        let mut tables: Vec<String> = Vec::new();
        for key in &self.keys {
            let (table, _) = table(key);
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        // A table stands behind the table that it is in: by the first appearance of the outer one.
        let first = |name: &str| {
            let outer = |name: &str| name.split('.').next().map(str::to_owned);
            tables.iter().position(|table| outer(table) == outer(name))
        };
        let mut ordered = tables.clone();
        ordered.sort_by_key(|name| (first(name), name.matches('.').count()));
        let mut text = String::new();
        for name in ordered {
            let keys = || self.keys.iter().filter(|key| table(key).0 == name);
            let (lists, plain): (Vec<_>, Vec<_>) = keys().partition(|key| is_list_of_tables(key));
            let separator = if text.is_empty() { "" } else { "\n" };
            if !plain.is_empty() {
                let _ = writeln!(text, "{separator}[{name}]");
            }
            for key in plain {
                let behind = if key.default { default } else { "" };
                let _ = writeln!(text, "{} = {}{behind}", table(key).1, toml(&key.value));
            }
            for list in lists {
                for entry in list.value.as_array().into_iter().flatten() {
                    let _ = writeln!(text, "\n[[{}]]", list.key);
                    for (name, value) in entry.as_object().into_iter().flatten() {
                        let _ = writeln!(text, "{name} = {}", toml(value));
                    }
                }
            }
        }
        text
    }
}

/// The keys of which none is inside another: a list of tables and an inline table are one value each.
fn outermost() -> Vec<&'static str> {
    let mut paths: Vec<&'static str> = Vec::new();
    let is_whole =
        |path: &str| known().is_list(path) || built().iter().any(|other| other.path == path);
    for key in built() {
        let dots = key.path.match_indices('.').map(|(dot, _)| dot);
        let prefixes = dots.filter_map(|dot| key.path.get(..dot));
        let mut wholes = prefixes
            .chain([key.path.as_str()])
            .filter(|path| is_whole(path));
        if let Some(path) = wholes.next()
            && !paths.contains(&path)
        {
            paths.push(path);
        }
    }
    paths
}

/// The lines `# key = value` of the example, each under the table it stands in.
fn defaults() -> Vec<ShownKey> {
    let mut section = "";
    let mut found = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.split(']').next().unwrap_or_default();
        }
        let Some((name, _)) = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(" = "))
        else {
            continue;
        };
        let is_key = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let parsed = toml::from_str::<Map<String, Value>>(line.trim_start_matches("# "));
        if let (true, Some(value)) = (is_key, parsed.ok().and_then(|mut table| table.remove(name)))
        {
            found.push(ShownKey {
                key: format!("{section}.{name}"),
                value,
                default: true,
            });
        }
    }
    found
}

/// The value without its secrets.
fn redacted(path: &str, value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let inside = |(name, value): (&String, &Value)| {
                (name.clone(), redacted(&format!("{path}.{name}"), value))
            };
            Value::Object(table.iter().map(inside).collect())
        }
        Value::Array(elements) => {
            let elements = elements.iter().map(|element| redacted(path, element));
            Value::Array(elements.collect())
        }
        _ => {
            let secret = built().iter().any(|key| key.secret && key.path == path);
            let shown = !secret || value.as_str().is_some_and(|text| is_a_place(path, text));
            if shown {
                value.clone()
            } else {
                REDACTED.into()
            }
        }
    }
}

/// Whether the value of a secret's key only says where the secret is.
fn is_a_place(path: &str, text: &str) -> bool {
    let is_variable = text.strip_prefix("env:").is_some_and(is_variable_name);
    // A file that was read; a secret that was put under the wrong key would have been refused.
    text.is_empty() || is_variable || text.starts_with("credential:") || path.ends_with("_file")
}

fn is_list_of_tables(key: &ShownKey) -> bool {
    let elements = key.value.as_array();
    elements.is_some_and(|elements| !elements.is_empty() && elements.iter().all(Value::is_object))
}

/// A value on one line. JSON's strings are TOML's, except DEL, which JSON may leave as it is.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(toml).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::Object(table) => {
            let pairs = table
                .iter()
                .map(|(name, value)| format!("{name} = {}", toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}
