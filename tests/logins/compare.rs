//! One token, two verdicts: renewd's and that of Node's `jsonwebtoken`.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here fails a test

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use renewd::config::model::{Jwt, JwtAlgorithm, JwtKey, KeyMaterial};
use renewd::config::secret::Secret;
use renewd::logins::jwt::{JwtError, Verifier};
use renewd::pki::public_key::PublicKey;
use renewd::terms::clock::Clock;
use serde_json::{Value, json};

use super::table::{NOW, Row, Token, Verdict};
use crate::support::npm;

/// The verdict of renewd: the subject, or the reason for the refusal.
pub fn ours(token: &str, row: &Row) -> Result<String, JwtError> {
    // Both sides take a text that reads as a public key for one, and any other text for a secret.
    let material = match PublicKey::from_pem(row.secret.as_bytes()) {
        Ok(key) => KeyMaterial::Public(key),
        Err(_) => KeyMaterial::Secret(Secret::new(row.secret.clone().into_bytes())),
    };
    let key = JwtKey {
        id: String::new(),
        algorithm: None,
        material,
    };
    let config = Jwt {
        algorithms: row.settings.algorithms.clone(),
        keys: vec![key],
        jwks_url: None,
        issuer: row.settings.issuer.into(),
        audience: row.settings.audience.into(),
        leeway: Duration::from_secs(row.settings.leeway),
        require_exp: true,
        key_grace: Duration::ZERO,
        subject_claim: row.settings.claim.into(),
        session_claim: String::new(),
    };
    let clock = Clock::manual(NOW);
    clock.advance(Duration::from_millis(999));
    let verified = Verifier::new(&config, None, &clock).verify(token, &clock)?;
    Ok(verified.subject.into())
}

fn our_verdict(token: &str, row: &Row) -> Verdict {
    match ours(token, row) {
        Ok(subject) => Verdict::Accepted(subject),
        Err(JwtError::Subject) => Verdict::Anonymous,
        Err(JwtError::Expired) => Verdict::Expired,
        Err(JwtError::NotYetValid) => Verdict::Inactive,
        Err(_) => Verdict::Refused,
    }
}

/// Each row's token and Node's verdict on it, with Node's message.
pub fn node(rows: &[Row]) -> Vec<(String, Verdict, String)> {
    let directory = npm::package("jwt");
    npm::ensure(&directory);
    let mut node = Command::new("node")
        .arg("verify.js")
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let mut stdin = node.stdin.take().unwrap();
    let mut lines = String::new();
    for row in rows {
        writeln!(lines, "{}", question(row)).unwrap();
    }
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = node.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = text.lines().map(answer).collect();
    assert_eq!(answers.len(), rows.len());
    answers
}

fn question(row: &Row) -> Value {
    let algorithms: Vec<_> = row
        .settings
        .algorithms
        .iter()
        .map(|algorithm| {
            let (name, _) = JwtAlgorithm::NAMES
                .iter()
                .find(|(_, named)| named == algorithm)
                .unwrap();
            *name
        })
        .collect();
    let mut options = json!({"algorithms": algorithms, "clockTimestamp": NOW, "clockTolerance": row.settings.leeway});
    if !row.settings.issuer.is_empty() {
        options["issuer"] = row.settings.issuer.into();
    }
    if !row.settings.audience.is_empty() {
        options["audience"] = row.settings.audience.into();
    }
    let mut question =
        json!({"secret": row.secret, "claim": row.settings.claim, "options": options});
    match &row.token {
        Token::Text(text) => question["token"] = text.as_str().into(),
        Token::Minted(payload, options) => {
            question["mint"] = json!({"payload": payload, "options": options});
        }
    }
    question
}

fn answer(line: &str) -> (String, Verdict, String) {
    // A subject with a lone surrogate doesn't fit into UTF-8; those rows are made on purpose and kept out of here.
    let answer: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let verdict = match (answer["verdict"].as_str(), answer["subject"].as_str()) {
        (Some("accepted"), Some(subject)) => Verdict::Accepted(subject.into()),
        (Some("accepted"), None) => Verdict::Anonymous,
        (Some("expired"), _) => Verdict::Expired,
        (Some("inactive"), _) => Verdict::Inactive,
        _ => Verdict::Refused,
    };
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    (text("token"), verdict, text("message"))
}

/// Both sides give the same verdict, and the expected one where there is one.
pub fn assert_equal(rows: &[Row]) {
    let mut differences = Vec::new();
    for (row, (token, theirs, message)) in rows.iter().zip(node(rows)) {
        let ours = our_verdict(&token, row);
        let expected = row.expected.as_ref().unwrap_or(&theirs);
        if ours != theirs || ours != *expected {
            differences.push(format!("{}: ours {ours:?}, Node's {theirs:?} ({message}), expected {expected:?}\n  {token}", row.name));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
