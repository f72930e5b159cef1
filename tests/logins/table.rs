//! Named tokens, each with the verdict that both sides must give.

#![allow(dead_code)] // each test file uses its own part

use renewd::config::model::JwtAlgorithm;
use serde_json::{Value, json};

use super::tokens::{GOOD, SECRET, TYPED, UNTYPED, claims, encode, mac, signed, token};

/// The time of every verification, in seconds; renewd's adds 999 ms, which must not count.
pub const NOW: u64 = 1_700_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted(String),
    /// Verified, but without a subject: renewd answers 401.
    Anonymous,
    Expired,
    Inactive,
    Refused,
}

#[derive(Clone)]
pub struct Row {
    pub name: String,
    pub token: Token,
    pub secret: String,
    pub settings: Settings,
    pub expected: Option<Verdict>,
}

#[derive(Clone)]
pub enum Token {
    Text(String),
    /// `jwt.sign(payload, secret, options)`.
    Minted(Value, Value),
}

#[derive(Clone)]
pub struct Settings {
    pub algorithms: Vec<JwtAlgorithm>,
    pub issuer: &'static str,
    pub audience: &'static str,
    pub leeway: u64,
    pub claim: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            algorithms: vec![JwtAlgorithm::Hs256],
            issuer: "",
            audience: "",
            leeway: 0,
            claim: "sub",
        }
    }
}

#[derive(Default)]
pub struct Table(pub Vec<Row>);

impl Table {
    pub fn row(&mut self, expected: Verdict, name: &str, token: impl Into<String>) -> &mut Row {
        self.0.push(Row {
            name: name.into(),
            token: Token::Text(token.into()),
            secret: SECRET.into(),
            settings: Settings::default(),
            expected: Some(expected),
        });
        self.0.last_mut().unwrap()
    }

    pub fn ada(&mut self, name: &str, token: impl Into<String>) -> &mut Row {
        self.row(Verdict::Accepted("ada".into()), name, token)
    }

    pub fn subject(&mut self, subject: &str, payload: &str) {
        self.row(
            Verdict::Accepted(subject.into()),
            &format!("subject in {payload}"),
            claims(payload),
        );
    }

    pub fn anonymous(&mut self, name: &str, token: impl Into<String>) -> &mut Row {
        self.row(Verdict::Anonymous, name, token)
    }

    pub fn refused(&mut self, name: &str, token: impl Into<String>) -> &mut Row {
        self.row(Verdict::Refused, name, token)
    }
}

/// The cases that are text alone; the file's head says how to read it.
const CASES: &str = include_str!("cases.txt");

/// The sections of the file.
const SECTIONS: [&str; 9] = [
    "[minted]",
    "[header]",
    "[payload]",
    "[time]",
    "[leeway]",
    "[nameless]",
    "[issuer]",
    "[audience]",
    "[algorithm]",
];

/// The lines of a section, each with its verdict.
fn section(name: &str) -> impl Iterator<Item = (Verdict, &'static str)> {
    let (_, rest) = CASES.split_once(&format!("\n[{name}]\n")).expect(name);
    let lines = rest.split("\n[").next().unwrap().lines();
    let mut lines = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    assert!(lines.peek().is_some(), "{name} is empty");
    lines.map(|line| {
        let (verdict, rest) = line.split_once(" | ").expect(line);
        (verdict_of(verdict), rest)
    })
}

fn verdict_of(word: &str) -> Verdict {
    match word {
        "accepted" => Verdict::Accepted("ada".into()),
        "anonymous" => Verdict::Anonymous,
        "expired" => Verdict::Expired,
        "inactive" => Verdict::Inactive,
        "refused" => Verdict::Refused,
        word => panic!("{word} is no verdict"),
    }
}

fn columns<const COUNT: usize>(line: &str) -> [&str; COUNT] {
    let columns: Vec<&str> = line.split(" | ").collect();
    columns.try_into().expect(line)
}

pub fn table() -> Vec<Row> {
    let sections: Vec<_> = CASES.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(sections, SECTIONS, "each section is read");

    let mut table = Table::default();
    minted(&mut table);
    shapes(&mut table);
    base64_leniency(&mut table);
    signatures(&mut table);
    algorithms(&mut table);
    headers(&mut table);
    payloads(&mut table);
    times(&mut table);
    subjects(&mut table);
    issuers_and_audiences(&mut table);
    table.0
}

fn minted(table: &mut Table) {
    for (verdict, line) in section("minted") {
        let [name, payload, options] = columns(line);
        let json = |text: &str| serde_json::from_str(text).unwrap();
        table.row(verdict, &format!("minted: {name}"), "").token =
            Token::Minted(json(payload), json(options));
    }
}

fn shapes(table: &mut Table) {
    let good = claims(GOOD);
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    table.ada("shape: a good token", good.clone());
    table.refused("shape: one part", header);
    table.refused("shape: two parts", format!("{header}.{payload}"));
    table.refused("shape: four parts", format!("{good}.{signature}"));
    table.refused("shape: trailing dot", format!("{good}."));
    table.refused("shape: leading dot", format!(".{good}"));
    table.refused("shape: only dots", "..");
    table.refused("shape: empty header", format!(".{payload}.{signature}"));
    table.refused("shape: empty header, signed", signed("", payload));
    table.refused("shape: empty payload, signed", signed(header, ""));
    table.refused("shape: empty signature", format!("{header}.{payload}."));
    table.refused("shape: blank signature", format!("{header}.{payload}. "));
    table.refused("shape: leading space", format!(" {good}"));
    table.refused("shape: trailing space", format!("{good} "));
    table.refused("shape: trailing newline", format!("{good}\n"));
    table.refused("shape: inner newline", good.replace('.', ".\n"));
    table.refused("shape: quoted", format!("\"{good}\""));
    table.refused("shape: with its scheme", format!("Bearer {good}"));
    table.refused(
        "shape: JSON serialization",
        r#"{"payload":"x","signatures":[]}"#,
    );
    table.refused("shape: null", "null");
    table.refused("shape: undefined", "undefined");
    table.refused("shape: not ASCII", good.replace('.', "．"));
    table.refused("shape: a NUL inside", good.replace('.', ".\0"));
    table.refused("shape: upper-cased", good.to_uppercase());
    let long = format!(r#"{{"sub":"ada","x":"{}"}}"#, "y".repeat(9000));
    table.ada("shape: nine thousand bytes of payload", claims(&long));
    let long = format!(r#"{{"alg":"HS256","x":"{}"}}"#, "y".repeat(9000));
    table.ada("shape: nine thousand bytes of header", token(long, GOOD));
}

fn base64_leniency(table: &mut Table) {
    let header = encode(UNTYPED);
    // 13 bytes: of the last character, Q, the lower four bits count for nothing.
    let payload = encode(GOOD);
    let ending_in =
        |last: char| signed(&header, &format!("{}{last}", &payload[..payload.len() - 1]));
    for last in ['Q', 'R', 'X', 'a', 'f'] {
        table.ada(&format!("base64: payload ends in {last}"), ending_in(last));
    }
    for last in ['P', 'g', 'A', '_'] {
        table.anonymous(&format!("base64: payload ends in {last}"), ending_in(last));
    }
    table.ada(
        "base64: a stray last character",
        signed(&header, &format!("{}A", encode(format!("{GOOD}  ")))),
    );
    table.ada(
        "base64: a stray last character in the header",
        signed(&format!("{header}A"), &payload),
    );
    table.refused(
        "base64: padded header",
        signed(&format!("{header}="), &payload),
    );
    table.refused(
        "base64: padded payload",
        signed(&header, &format!("{payload}==")),
    );
    table.refused(
        "base64: standard alphabet, plus",
        signed(&header, &format!("{payload}+")),
    );
    table.refused(
        "base64: standard alphabet, slash",
        signed(&header, &format!("{payload}/")),
    );
    table.refused(
        "base64: percent-encoded",
        signed(&header, &format!("{payload}%3D")),
    );
    table.ada(
        "base64: dashes and underscores",
        claims("{\"sub\":\"ada\",\"x\":\"\u{fbff}\u{ffff}???>>>\"}"),
    );
    table.refused("base64: a header of one character", signed("e", &payload));
    table.anonymous("base64: a payload of one character", signed(&header, "e"));
}

fn signatures(table: &mut Table) {
    let input = format!("{}.{}", encode(TYPED), encode(GOOD));
    let good = encode(mac(256, SECRET, &input));
    let with = |signature: &str| format!("{input}.{signature}");
    table.refused(
        "signature: another secret's",
        with(&encode(mac(256, "another", &input))),
    );
    table.refused("signature: cut", with(&good[..good.len() - 1]));
    table.refused("signature: longer", with(&format!("{good}A")));
    table.refused("signature: padded", with(&format!("{good}=")));
    table.refused("signature: one character", with("A"));
    table.refused("signature: the right length, zeros", with(&"A".repeat(43)));
    let hexadecimal =
        format!("{:02x?}", mac(256, SECRET, &input)).replace(['[', ']', ',', ' '], "");
    table.refused("signature: hexadecimal", with(&hexadecimal));
    table.refused(
        "signature: other letter case",
        with(
            &good
                .chars()
                .map(|c| {
                    if c.is_lowercase() {
                        c.to_ascii_uppercase()
                    } else {
                        c.to_ascii_lowercase()
                    }
                })
                .collect::<String>(),
        ),
    );
    other_spellings(table, &input, &good);
    table.refused(
        "signature: over the payload alone",
        with(&encode(mac(256, SECRET, &encode(GOOD)))),
    );
    table.refused(
        "signature: over decoded parts",
        with(&encode(mac(256, SECRET, &format!("{TYPED}.{GOOD}")))),
    );
    table.refused(
        "signature: of another payload",
        claims(GOOD).replace(&encode(GOOD), &encode(r#"{"sub":"eve"}"#)),
    );
    table.refused(
        "signature: of another header",
        claims(GOOD).replace(&encode(TYPED), &encode(UNTYPED)),
    );
    for secret in [
        "x",
        "é😀 zufällig",
        &"long ".repeat(60),
        "-----BEGIN not a key",
        " padded ",
    ] {
        let row = table.ada(
            &format!("signature: with secret {secret:.9}"),
            format!("{input}.{}", encode(mac(256, secret, &input))),
        );
        row.secret = secret.into();
    }
}

/// 32 bytes are 42 characters and four bits: three other last characters decode to the same bytes.
fn other_spellings(table: &mut Table, input: &str, good: &str) {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let position = alphabet.find(good.chars().last().unwrap()).unwrap();
    for other in (position / 4 * 4..position / 4 * 4 + 4).filter(|other| *other != position) {
        let bent = format!("{}{}", &good[..good.len() - 1], &alphabet[other..=other]);
        table.refused(
            &format!("signature: another spelling, {other}"),
            format!("{input}.{bent}"),
        );
    }
}

/// A token that names one algorithm and is signed by another.
fn signed_with(name: &str, bits: u32) -> String {
    let input = format!(
        "{}.{}",
        encode(json!({"alg":name}).to_string()),
        encode(GOOD)
    );
    format!("{input}.{}", encode(mac(bits, SECRET, &input)))
}

fn algorithms(table: &mut Table) {
    use JwtAlgorithm::{Hs256, Hs384, Hs512};
    for (name, bits, algorithm) in [
        ("HS256", 256, Hs256),
        ("HS384", 384, Hs384),
        ("HS512", 512, Hs512),
    ] {
        table
            .ada(&format!("algorithm: {name} alone"), signed_with(name, bits))
            .settings
            .algorithms = vec![algorithm];
        table
            .ada(
                &format!("algorithm: {name} of three"),
                signed_with(name, bits),
            )
            .settings
            .algorithms = vec![Hs512, Hs256, Hs384];
        let others = [Hs256, Hs384, Hs512]
            .into_iter()
            .filter(|other| *other != algorithm)
            .collect();
        table
            .refused(
                &format!("algorithm: {name} not allowed"),
                signed_with(name, bits),
            )
            .settings
            .algorithms = others;
    }
    for (name, bits) in [("HS256", 512), ("HS384", 256), ("HS512", 384)] {
        table
            .refused(
                &format!("algorithm: says {name}, is {bits}"),
                signed_with(name, bits),
            )
            .settings
            .algorithms = vec![Hs256, Hs384, Hs512];
    }
    misnamed_algorithms(table);
}

fn misnamed_algorithms(table: &mut Table) {
    for (verdict, quoted) in section("algorithm") {
        let name: &str = serde_json::from_str(quoted).unwrap();
        table.row(
            verdict.clone(),
            &format!("algorithm: named {name:?}"),
            signed_with(name, 256),
        );
        let unsigned = format!(
            "{}.{}.",
            encode(json!({"alg":name}).to_string()),
            encode(GOOD)
        );
        table.row(
            verdict,
            &format!("algorithm: named {name:?}, unsigned"),
            unsigned,
        );
    }
}

fn headers(table: &mut Table) {
    let with = |header: &str| token(header, GOOD);
    let named = |header: &str| format!("header: {}", header.escape_debug());
    for (verdict, header) in section("header") {
        table.row(verdict, &named(header), with(header));
    }
    for header in [r#" { "alg" : "HS256" } "#, "\t{\r\n\"alg\":\"HS256\"}\n"] {
        table.ada(&named(header), with(header));
    }
    table.ada(
        "header: bytes that are no UTF-8",
        token(b"{\"alg\":\"HS256\",\"x\":\"\xff\xfe\xc3\"}", GOOD),
    );
    let deep = format!(
        r#"{{"alg":"HS256","x":{}{}}}"#,
        "[".repeat(3000),
        "]".repeat(3000)
    );
    table.ada("header: three thousand arrays deep", with(&deep));
    for header in [
        "",
        "{\"alg\":\"HS256\",\"x\":\"\n\"}",
        "{\"alg\":\"HS256\",\"t\typ\":1}",
        "\u{feff}{\"alg\":\"HS256\"}",
        "\u{a0}{\"alg\":\"HS256\"}",
        "\u{c}{\"alg\":\"HS256\"}",
        "\0",
    ] {
        table.refused(&named(header), with(header));
    }
}

fn payloads(table: &mut Table) {
    let named = |payload: &str, how: &str| format!("payload: {} {how}", payload.escape_debug());
    for (verdict, line) in section("payload") {
        let (untyped, payload) = line.split_once(" | ").unwrap();
        table.row(verdict, &named(payload, "typed"), claims(payload));
        let token = token(UNTYPED, payload);
        table.row(verdict_of(untyped), &named(payload, "untyped"), token);
    }
    for payload in [
        " \t\r\n{\"sub\" : \"ada\"}\n",
        "{\"sub\":\"ada\",\"x\":\"\u{2028}\u{2029}\u{7f}\"}",
    ] {
        table.ada(&named(payload, "typed"), claims(payload));
        table.ada(&named(payload, "untyped"), token(UNTYPED, payload));
    }
    for payload in [
        "\u{feff}{\"sub\":\"ada\"}",
        "{\"sub\":\"a\u{1}\"}",
        "{\"sub\":\"ada\",\"i\nat\":1}",
        "\u{c}\"{}\"",
        "\0",
    ] {
        table.refused(&named(payload, "typed"), claims(payload));
        table.anonymous(&named(payload, "untyped"), token(UNTYPED, payload));
    }
    odd_payloads(table);
    payloads_in_strings(table);
}

fn odd_payloads(table: &mut Table) {
    let deep = format!(
        r#"{{"x":{}1{},"sub":"ada"}}"#,
        r#"[{"y":"#.repeat(1000),
        "}]".repeat(1000)
    );
    table.ada("payload: two thousand levels deep", claims(&deep));
    table.ada(
        "payload: bytes that are no UTF-8",
        claims(b"{\"sub\":\"ada\",\"x\":\"\xff\xc3\"}"),
    );
    table.row(
        Verdict::Accepted("a\u{fffd}a".into()),
        "payload: subject that is no UTF-8",
        claims(b"{\"sub\":\"a\xffa\"}"),
    );
    table.row(
        Verdict::Accepted("\u{fffd}\u{fffd}\u{fffd}x".into()),
        "payload: a surrogate in UTF-8",
        claims(b"{\"sub\":\"\xed\xa0\x80x\"}"),
    );
    table.row(
        Verdict::Accepted("\u{fffd}x".into()),
        "payload: a cut character",
        claims(b"{\"sub\":\"\xf0\x9f\x98x\"}"),
    );
}

fn payloads_in_strings(table: &mut Table) {
    let twice = json!(GOOD).to_string();
    table.ada("payload: JSON in a JSON string, typed", claims(&twice));
    table.anonymous(
        "payload: JSON in a JSON string, untyped",
        token(UNTYPED, &twice),
    );
    table.anonymous(
        "payload: JSON in JSON in JSON",
        claims(json!(twice).to_string()),
    );
    table.row(
        Verdict::Expired,
        "payload: an expired one in a JSON string",
        claims(json!(r#"{"sub":"ada","exp":1}"#).to_string()),
    );
    table.refused(
        "payload: JSON in a string that isn't one",
        claims(r#""{"sub":"ada"}""#),
    );
    table.refused("payload: null, typed", claims("null"));
    table.anonymous("payload: null, untyped", token(UNTYPED, "null"));
}

fn times(table: &mut Table) {
    let with = |claim, value| claims(format!(r#"{{"sub":"ada","{claim}":{value}}}"#));
    for (verdict, line) in section("time") {
        let [claim, value] = columns(line);
        table.row(
            verdict,
            &format!("time: {claim} {value}"),
            with(claim, value),
        );
    }
    for (verdict, line) in section("leeway") {
        let [claim, value, leeway] = columns(line);
        let name = format!("time: {claim} {value} with leeway {leeway}");
        let row = table.row(verdict, &name, with(claim, value));
        row.settings.leeway = leeway.parse().unwrap();
    }
    let both = |exp: &str, nbf: &str| claims(format!(r#"{{"sub":"ada","exp":{exp},"nbf":{nbf}}}"#));
    table.row(
        Verdict::Inactive,
        "time: expired before it begins",
        both("1", "2700000000"),
    );
    table.row(
        Verdict::Inactive,
        "time: not active, exp no number",
        both("null", "2700000000"),
    );
    table.row(
        Verdict::Refused,
        "time: expired, nbf no number",
        both("1", "null"),
    );
    table.row(
        Verdict::Expired,
        "time: expired and anonymous",
        claims(r#"{"exp":1}"#),
    );
    table.row(
        Verdict::Expired,
        "time: the last exp counts",
        claims(r#"{"sub":"ada","exp":2700000000,"exp":1}"#),
    );
}

fn subjects(table: &mut Table) {
    for (payload, subject) in [
        (r#"{"sub":"a"}"#, "a"),
        (r#"{"sub":" "}"#, " "),
        (r#"{"sub":"a b"}"#, "a b"),
        (r#"{"sub":"\u0000"}"#, "\0"),
        (r#"{"sub":"\ud83d\ude00é"}"#, "😀é"),
        (r#"{"sub":"null"}"#, "null"),
        (r#"{"sub":7}"#, "7"),
        (r#"{"sub":0}"#, "0"),
        (r#"{"sub":-0}"#, "0"),
        (r#"{"sub":-7}"#, "-7"),
        (r#"{"sub":1.0}"#, "1"),
        (r#"{"sub":1e3}"#, "1000"),
        (r#"{"sub":9007199254740991}"#, "9007199254740991"),
    ] {
        table.subject(subject, payload);
    }
    let longest = "é".repeat(127);
    table.subject(&longest, &format!(r#"{{"sub":"{longest}"}}"#));
    for (verdict, payload) in section("nameless") {
        table.row(verdict, &format!("subject: {payload}"), claims(payload));
    }
    let app = claims(r#"{"astrologerId":"65f0c0ffee65f0c0ffee65f0","sub":"ada"}"#);
    table
        .row(
            Verdict::Accepted("65f0c0ffee65f0c0ffee65f0".into()),
            "subject: the current app's claim",
            app,
        )
        .settings
        .claim = "astrologerId";
    table
        .row(
            Verdict::Accepted("me".into()),
            "subject: the issuer",
            claims(r#"{"iss":"me"}"#),
        )
        .settings
        .claim = "iss";
    table
        .row(
            Verdict::Accepted("2700000000".into()),
            "subject: the expiry",
            claims(r#"{"exp":2700000000}"#),
        )
        .settings
        .claim = "exp";
}

fn issuers_and_audiences(table: &mut Table) {
    for (verdict, value) in section("issuer") {
        let token = claims(format!(r#"{{"sub":"ada","iss":{value}}}"#));
        table.ada(&format!("issuer: {value} ignored"), token.clone());
        let row = table.row(verdict, &format!("issuer: {value}"), token);
        row.settings.issuer = "me";
    }
    table.refused("issuer: none", claims(GOOD)).settings.issuer = "me";
    for (verdict, value) in section("audience") {
        let token = claims(format!(r#"{{"sub":"ada","aud":{value}}}"#));
        table.ada(&format!("audience: {value} ignored"), token.clone());
        let row = table.row(verdict, &format!("audience: {value}"), token);
        row.settings.audience = "us";
    }
    table
        .refused("audience: none", claims(GOOD))
        .settings
        .audience = "us";
    table
        .refused(
            "audience: of a payload that is text",
            token(UNTYPED, "text"),
        )
        .settings
        .audience = "us";
    table
        .row(
            Verdict::Expired,
            "audience: wrong and expired",
            claims(r#"{"exp":1,"aud":"x"}"#),
        )
        .settings
        .audience = "us";
}
