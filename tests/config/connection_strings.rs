//! Connection strings that Node apps have, against the parser of npm's `mongodb`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use renewd::config::{ConfigErrors, Loaded};
use serde_json::Value;

use crate::config::{base_without, compare, load_with};
use crate::support::environment::FixedEnvironment;
use crate::support::npm;

const STRINGS: &str = include_str!("connection_strings.txt");

/// The options that renewd refuses although Node's parser takes them, because no client can be made with them: the
/// driver refuses the interval, and the file isn't there.
const FAILS_LATER: [&str; 2] = ["heartbeatFrequencyMS=100", "tlsCAFile=/nonexistent/ca.pem"];

fn node() -> Value {
    let package = npm::package("express");
    npm::ensure(&package);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/connection_strings.js");
    let mut child = Command::new("node")
        .arg(script)
        .arg(package)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(STRINGS.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ours(string: &str) -> Result<Loaded, ConfigErrors> {
    let mut environment = FixedEnvironment::default();
    environment.variables.insert("TRIED_URI", string.to_owned());
    let client = ["/etc/renewd/tls.pem", "/etc/renewd/tls.key"]
        .map(|path| environment.files[Path::new(path)].clone())
        .concat();
    environment
        .files
        .insert("/etc/ssl/client.pem".into(), client);
    let text = base_without("") + "mongodb.uri = \"env:TRIED_URI\"\n";
    load_with(&text, &environment)
}

#[test]
fn each_string_is_taken_or_refused_for_the_reason_that_stands_beside_it() {
    let node = node();
    let mut table = String::new();
    for (string, node) in STRINGS.lines().zip(node["strings"].as_array().unwrap()) {
        let takes = node["takes"] == true;
        let there = if takes {
            format!("takes it, database {}", node["database"].as_str().unwrap())
        } else {
            format!("refuses it: {}", node["said"].as_str().unwrap())
        };
        let loaded = ours(string);
        let here = match &loaded {
            Ok(loaded) => {
                let database = &loaded.config.mongodb.as_ref().unwrap().database;
                let warnings = loaded.warnings.iter().map(|warning| &warning.message);
                let warnings = warnings.fold(String::new(), |all, one| all + "; " + one);
                format!("takes it, database {database}{warnings}")
            }
            Err(errors) => {
                assert_eq!(errors.errors.len(), 1, "{errors}");
                let error = &errors.errors[0];
                format!(
                    "refuses it: {}; {}",
                    error.message,
                    error.hint.as_ref().unwrap()
                )
            }
        };
        if takes && loaded.is_err() {
            let known = FAILS_LATER.iter().any(|known| string.contains(known));
            assert!(
                known || here.contains(": this build has no "),
                "{string}: {here}"
            );
        }
        if takes && loaded.is_ok() {
            assert!(here.starts_with(&there), "{string}: {here}, not {there}");
        }
        writeln!(table, "{string}\n  node {there}\n  here {here}").unwrap();
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/connection_strings.txt");
    compare(&beside, table.trim_end());
}

#[test]
fn every_option_that_node_takes_is_known_here() {
    let node = node();
    let options = node["options"].as_object().unwrap();
    assert!(options.len() > 60, "{options:?}");
    for (option, values) in options {
        // One of the values that Node takes is enough: a file has to be there, a number in range.
        let known = values.as_array().unwrap().iter().any(|value| {
            let value = value.as_str().unwrap();
            match ours(&format!("mongodb://u:p@localhost/?{option}={value}")) {
                Ok(_) => true,
                Err(errors) => {
                    let said = &errors.errors[0].message;
                    said.contains("this build has no ") || said.contains("can't be read")
                }
            }
        });
        assert!(known, "{option}");
    }
}

#[test]
fn files_in_a_string_start_at_the_configuration_and_are_looked_into() {
    let string = |option: &str| format!("mongodb://h/db?{option}");
    let loaded = ours(&string("tlsCAFile=tls.pem")).unwrap();
    let uri = loaded.config.mongodb.unwrap().uri;
    assert_eq!(
        uri.expose(),
        b"mongodb://h/db?tlsCAFile=/etc/renewd/tls.pem"
    );
    assert!(loaded.files.contains(&"/etc/renewd/tls.pem".into()));
    for (option, said) in [
        (
            "tlsCAFile=missing.pem",
            "`tlsCAFile` names /etc/renewd/missing.pem, which can't be read",
        ),
        (
            "tlsCAFile=tls.key",
            "`tlsCAFile` names /etc/renewd/tls.key, which holds no certificate",
        ),
        (
            "tlsCertificateKeyFile=tls.pem",
            "`tlsCertificateKeyFile` names /etc/renewd/tls.pem, which holds no key",
        ),
    ] {
        let errors = ours(&string(option)).unwrap_err();
        assert!(errors.errors[0].message.contains(said), "{errors}");
        assert!(
            !errors.files.is_empty(),
            "what may have to be mended is watched"
        );
    }
}
