//! `config.example.toml` is held to the code: it loads, its comments are the defaults, and it leaves no key out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may panic in its helpers too

use std::path::Path;
use std::time::Duration;

use crate::support::environment::FixedEnvironment;
use http::Method;
use renewd::config;
use renewd::config::keys::built;
use renewd::config::model::{Config, ZeroUid};
use renewd::http::cors::{CorsPolicy, Origins};
use renewd::http::readings::Readings;

const EXAMPLE: &str = include_str!("../../config.example.toml");

fn load(text: &str) -> Config {
    let origin = Path::new("/etc/renewd/config.toml");
    match config::load(text, origin, &FixedEnvironment::default()) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors}"),
    }
}

/// One `key = value` line, commented out or not.
struct Line {
    number: usize,
    section: String,
    key: String,
    commented: bool,
}

/// The lines with keys. Examples inside comments are indented further, and aren't among them.
fn lines() -> Vec<Line> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for (number, line) in EXAMPLE.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut section);
        }
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = bare.split_once(" = ") else {
            continue;
        };
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        if key.bytes().all(is_key) {
            lines.push(Line {
                number,
                section: section.clone(),
                key: key.to_owned(),
                commented: line.starts_with('#'),
            });
        }
    }
    lines
}

/// A key that is refused unless the other one is there too.
const NEEDS: [(&str, &str); 2] = [
    ("accounts.session_field", "auth.jwt.session_claim"),
    ("streams.source", "accounts.source"),
];

/// The example without the lines of a key, then with the commented one of them as well.
fn without_and_with(default: &Line) -> (String, String) {
    let all = lines();
    let is_rival = |number: usize| {
        all.iter().any(|line| {
            let same = line.section == default.section && line.key == default.key;
            let pair = [line, default].map(|line| format!("{}.{}", line.section, line.key));
            let lost = NEEDS.iter().any(|(key, other)| pair == [*key, *other]);
            line.number == number && (same || lost)
        })
    };
    let text = |with: bool| {
        let kept = EXAMPLE.lines().enumerate().filter_map(|(number, line)| {
            if number == default.number {
                return with.then(|| &line[2..]);
            }
            (!is_rival(number)).then_some(line)
        });
        kept.collect::<Vec<_>>().join("\n")
    };
    (text(false), text(true))
}

#[test]
fn the_example_as_shipped_is_a_configuration_for_the_current_app() {
    let config = load(EXAMPLE);
    assert_eq!(config.jwt.subject_claim, "astrologerId");
    assert_eq!(config.token.zero_uid, ZeroUid::Allow);
    assert!(config.jwt.require_exp);
    assert!(config.admin.token.is_some());
    let owned = [config.routes.token, config.routes.refresh].concat();
    for route in ["/api/live/agora-token", "/api/live/refresh-token"] {
        assert!(owned.iter().any(|owned| owned == route), "{route}");
    }
}

#[test]
fn the_example_is_the_drop_in_for_the_current_app_and_its_pages() {
    let config = load(EXAMPLE);
    assert_eq!(config.upstream.try_duration, Duration::from_secs(20));
    let Some(CorsPolicy {
        origins: Origins::Listed(patterns),
        ..
    }) = config.cors
    else {
        panic!("{:?}", config.cors);
    };
    let allowed = |origin: &str| patterns.iter().any(|pattern| pattern.matches(origin));
    for origin in [
        "http://localhost:5173",
        "http://127.0.0.1:8080",
        "http://10.0.2.2:3000",
        "https://your-project-git-main.vercel.app",
    ] {
        assert!(allowed(origin), "{origin}");
    }
    for origin in [
        "https://somebody-else.vercel.app",
        "https://your-project-x.mallory.vercel.app",
        "https://localhost:5173",
        "http://10.0.2.3:3000",
    ] {
        assert!(!allowed(origin), "{origin}");
    }
}

#[test]
fn the_blocks_that_the_example_offers_close_what_the_app_leaves_open() {
    assert!(
        load(EXAMPLE).routes.block.is_empty(),
        "none without being asked"
    );
    // Each `#   [[routes.block]]` with the lines of its own, uncommented.
    let commented = EXAMPLE.lines().filter_map(|line| line.strip_prefix("#   "));
    let mut blocks: Vec<String> = Vec::new();
    for line in commented {
        if line.starts_with("[[") {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks.retain(|block| block.starts_with("[[routes.block]]") && block.contains("/api/"));
    assert_eq!(blocks.len(), 3, "{blocks:?}");
    let rules = load(&format!("{EXAMPLE}\n{}", blocks.concat()))
        .routes
        .block;
    let anyone = "203.0.113.9".parse().ok();
    let closed = |path: &str| {
        let readings = Readings::of(path);
        let mut rules = rules.iter();
        rules.any(|rule| rule.refuses(&Method::POST, &readings, anyone, || false))
    };
    for path in [
        "/api/live/65f0/force-end",
        "/api/seed/streams",
        "/API/Migration/run",
    ] {
        assert!(closed(path), "{path}");
    }
    for path in [
        "/api/live/cleanup",
        "/api/live/start",
        "/api/live/65f0/join",
    ] {
        assert!(!closed(path), "{path}");
    }
}

#[test]
fn uncommenting_a_default_changes_nothing() {
    let defaults: Vec<Line> = lines().into_iter().filter(|line| line.commented).collect();
    assert!(defaults.len() > 40, "only {} were found", defaults.len());
    for default in defaults {
        let (without, with) = without_and_with(&default);
        assert_eq!(
            load(&without),
            load(&with),
            "line {}: {}.{}",
            default.number + 1,
            default.section,
            default.key
        );
    }
}

#[test]
fn every_key_that_is_read_is_in_the_example() {
    let is_word = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    for key in built() {
        let mut section = key.path.as_str();
        let text = loop {
            section = section.rsplit_once('.').expect("a section").0;
            if let Some((_, rest)) = EXAMPLE.split_once(&format!("\n[{section}]\n")) {
                let mut parts = rest.split("\n[");
                let own = parts.next().unwrap();
                // The lists of tables in it follow.
                let list = format!("[{section}.");
                let lists = parts.take_while(|part| part.starts_with(&list));
                break lists.fold(own.to_owned(), |text, part| text + part);
            }
        };
        let name = key.path.rsplit('.').next().unwrap();
        assert!(
            text.split(|byte| !is_word(byte)).any(|word| word == name),
            "{} isn't under [{section}]",
            key.path
        );
    }
}

#[test]
fn a_configuration_as_it_is_shown_is_the_same_configuration() {
    let environment = FixedEnvironment::default();
    let origin = Path::new("/etc/renewd/config.toml");
    let load = |text: &str| config::load(text, origin, &environment).unwrap();
    let blocks =
        "[[routes.block]]\npath = \"/x\"\nallow = [\"::1\"]\n[upstream.health]\npath = \"/h\"\n";
    let short = EXAMPLE.replacen("# lifetime = \"1h\"", "lifetime = \"10m\"", 1);
    for text in [EXAMPLE.to_owned(), format!("{short}\n{blocks}")] {
        let loaded = load(&text);
        let shown = loaded.shown.to_toml("  # default");
        assert!(!shown.contains("[redacted]"), "{shown}");
        assert_eq!(load(&shown).config, loaded.config, "{shown}");
    }
}

#[test]
fn every_key_with_a_default_is_shown() {
    let shown = config::load(
        EXAMPLE,
        Path::new("/etc/renewd/config.toml"),
        &FixedEnvironment::default(),
    );
    let shown = shown.unwrap().shown;
    for line in lines() {
        let section = line.section.trim_start_matches('[');
        let key = format!("{section}.{}", line.key);
        let within = |shown: &str| key.starts_with(shown);
        assert!(shown.keys.iter().any(|shown| within(&shown.key)), "{key}");
    }
}
