//! The JWT verdicts of renewd equal those of Node's `jsonwebtoken`, which the backend uses.
//!
//! Each token goes through both: the named ones of `table`, each with the verdict it must get, and some thousand made
//! from good ones by small random edits.

// Clippy takes only functions marked as tests for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::compare::{assert_equal, node, ours};
use crate::table::{Row, Settings, Table, Token, Verdict, table};
use crate::tokens::{GOOD, SECRET, TYPED, UNTYPED, claims, token};
use renewd::logins::jwt::JwtError;

#[test]
fn every_named_token_gets_nodes_verdict() {
    let rows = table();
    let names: std::collections::HashSet<_> = rows.iter().map(|row| &row.name).collect();
    assert_eq!(names.len(), rows.len(), "every row has its own name");
    assert!(rows.len() >= 384, "{} rows", rows.len());
    for kind in [
        Verdict::Anonymous,
        Verdict::Expired,
        Verdict::Inactive,
        Verdict::Refused,
    ] {
        assert!(rows.iter().any(|row| row.expected.as_ref() == Some(&kind)));
    }
    assert_equal(&rows);
}

#[test]
fn subjects_that_we_can_not_keep_are_refused_though_node_takes_them() {
    let too_long = format!(r#"{{"sub":"{}"}}"#, "x".repeat(256));
    let mut table = Table::default();
    table.row(
        Verdict::Accepted("x".repeat(256)),
        "256 bytes",
        claims(&too_long),
    );
    let lone = claims(r#"{"sub":"\ud800"}"#);
    for (row, (token, theirs, _)) in table.0.iter().zip(node(&table.0)) {
        assert_eq!(Some(theirs), row.expected);
        assert_eq!(ours(&token, row), Err(JwtError::Subject), "{}", row.name);
    }
    assert_eq!(ours(&lone, &table.0[0]), Err(JwtError::Subject));
}

// === Edited at random ===

/// A fixed sequence (xorshift, Marsaglia 2003), so that a failure is seen again.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// Removes, replaces, repeats or inserts a few bytes.
    fn edit(&mut self, text: &mut Vec<u8>) {
        const BYTES: &[u8] = b"\"\"\\u{}[],:0123456789.eE+-dDxn \t\n\0\x7f\xff\xc3\xa9\xed\xa0";
        const PIECES: [&[u8]; 12] = [
            b"\\ud800",
            b"null",
            b"1e999",
            b"-1",
            b"\"exp\":",
            b"\"sub\":\"eve\",",
            b"\"nbf\":0,",
            b"{}",
            b"[1]",
            b"\\u0073",
            b"1700000000",
            b"\"alg\":\"HS256\",",
        ];
        for _ in 0..=self.below(3) {
            let at = self.below(text.len() + 1);
            match self.below(4) {
                0 if at < text.len() => {
                    text.remove(at);
                }
                1 if at < text.len() => text[at] = BYTES[self.below(BYTES.len())],
                2 => text.insert(at, BYTES[self.below(BYTES.len())]),
                _ => {
                    let piece = PIECES[self.below(PIECES.len())];
                    text.splice(at..at, piece.iter().copied());
                }
            }
        }
    }
}

#[test]
fn randomly_edited_tokens_get_nodes_verdict() {
    let headers = [
        TYPED,
        UNTYPED,
        r#"{"typ":"JWT","kid":"a","alg":"HS256","x":[1,{"y":"\u00e9"}]}"#,
    ];
    let payloads = [
        GOOD,
        r#"{"sub":"ada","iat":1699999990,"exp":1700003600}"#,
        r#"{"sub":7,"exp":1700000000.5,"nbf":1699999999,"aud":["us"],"iss":"me"}"#,
        r#""{\"sub\":\"ada\"}""#,
        r#"{"x":{"y":[{"z":"\ud83d\ude00"},-1.5e-3,true]},"sub":"ada"}"#,
    ];
    let mut sequence = Sequence(0x9e37_79b9_7f4a_7c15);
    let mut rows = Vec::new();
    for number in 0..6000 {
        let mut header = headers[sequence.below(headers.len())].as_bytes().to_vec();
        let mut payload = payloads[sequence.below(payloads.len())].as_bytes().to_vec();
        match sequence.below(5) {
            0 => sequence.edit(&mut header),
            _ => sequence.edit(&mut payload),
        }
        rows.push(Row {
            name: format!(
                "edit {number}: {} . {}",
                header.escape_ascii(),
                payload.escape_ascii()
            ),
            token: Token::Text(token(&header, &payload)),
            secret: SECRET.into(),
            settings: Settings::default(),
            expected: None,
        });
        // A subject that doesn't fit into UTF-8 is refused by renewd alone.
        if String::from_utf8_lossy(&payload)
            .to_lowercase()
            .contains("\\ud")
        {
            rows.pop();
        }
    }
    assert!(rows.len() > 4000);
    assert_equal(&rows);
}
