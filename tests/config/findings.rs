//! The findings of `check`: each fault once, where it is, and no finding that only follows from another.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use renewd::config::keys::built;

use crate::config::{Check, base_and, base_with_streams, base_without, load};

/// Tables that need more than one key: what the others lack is an error of its own.
const WITH_OTHERS: [&str; 12] = [
    "accounts.deny_when.",
    "agora.rest.",
    "auth.jwt.keys.",
    "rate_limit.address.",
    "rate_limit.channel.",
    "rate_limit.global.",
    "rate_limit.subject.",
    "reissue.",
    "routes.block.",
    "streams.headers.",
    "token.tier.",
    "upstream.health.",
];

/// Values that are wrong nearly everywhere: of a wrong type, out of range, of no meaning.
const WRONG: [&str; 9] = [
    "[[]]",
    "{}",
    "-1",
    "1.5",
    "true",
    "\"\\u0001\"",
    "\"10000d\"",
    "[\"\\u0001\"]",
    "99999999999",
];

#[test]
fn a_wrong_value_is_one_error_and_no_other_follows_from_it() {
    let mut faults = Vec::new();
    for key in built() {
        if WITH_OTHERS.iter().any(|table| key.path.starts_with(table)) {
            continue;
        }
        for wrong in WRONG {
            let Err(errors) = load(&base_and(&key.path, wrong)) else {
                continue;
            };
            let twice = |at: usize| errors.errors[..at].contains(&errors.errors[at]);
            let others = errors.errors.iter().chain(&errors.warnings);
            let mut others = others.filter(|finding| !finding.key.starts_with(&key.path));
            if (0..errors.errors.len()).any(twice) || others.next().is_some() {
                faults.push(format!("{} = {wrong}\n{errors}", key.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn nothing_is_compared_with_a_value_that_is_wrong() {
    for text in [
        "token.lifetime = \"25h\"\ntoken.refresh_before = \"2h\"\n",
        "token.lifetime = \"25h\"\ntoken.jitter = \"2h\"\ntoken.backup = \"23h\"\n",
        "server.listen = \"[::]:3000\"\n",
        "server.listen = 3000\nadmin.listen = \"127.0.0.1:3000\"\n",
    ] {
        let errors = load(&(base_without("") + text)).unwrap_err();
        assert_eq!(errors.errors.len(), 1, "{errors}");
    }
}

#[test]
fn a_table_that_stands_twice_names_both_places() {
    let example = include_str!("../../config.example.toml");
    let text = format!("{example}\n[decision]\nmode = \"observe\"\n");
    let errors = load(&text).unwrap_err();
    let [error] = errors.errors.as_slice() else {
        panic!("{errors}");
    };
    let line_of = |number: usize| text.lines().nth(number - 1).unwrap();
    let second = error.place.unwrap().line;
    assert_eq!(
        (error.key.as_str(), line_of(second)),
        ("decision", "[decision]")
    );
    let first = error
        .message
        .strip_prefix("given twice: the first is at line ");
    let first: usize = first.unwrap().parse().unwrap();
    assert!(first < second);
    assert_eq!(line_of(first), "[decision]");
    let hint = error.hint.as_deref();
    assert_eq!(
        hint,
        Some("move the keys of this [decision] to the first one")
    );
}

#[test]
fn an_environment_variable_needs_a_name() {
    for (path, value) in [
        ("auth.jwt.secret", "\"env:\""),
        ("agora.app_certificate", "\"env: \""),
        ("mongodb.uri", "\"env:A=B\""),
        ("server.listen", "[\"env:\"]"),
    ] {
        let text = base_with_streams().replace(
            &crate::config::BASE
                .iter()
                .find(|(key, _)| *key == path)
                .map_or_else(String::new, |(key, value)| format!("{key} = {value}\n")),
            "",
        );
        let (code, _, stderr) = Check::of(&format!("{text}{path} = {value}\n")).run(false, false);
        assert_eq!(code, 78, "{path}: {stderr}");
        assert!(
            stderr.contains("no environment variable is named"),
            "{stderr}"
        );
    }
}

fn chmod(check: &Check, name: &str, mode: u32) {
    fs::set_permissions(check.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_others_may_read_or_write_are_warned_of_and_fail_under_strict_alone() {
    let pair = ["tls_certificate.pem", "tls_key.pem"].map(|name| {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/environment");
        fs::read_to_string(path.join(name)).unwrap()
    });
    let text = base_with_streams().replace("auth.jwt.secret = \"env:JWT_SECRET\"\n", "")
        + "auth.jwt.secret_file = \"jwt\"\nadmin.token_file = \"token\"\n\
           server.tls = { certificate_file = \"tls.pem\", private_key_file = \"tls.key\" }\n\
           agora.previous_certificate_file = \"former\"\n";
    let check = Check::of(&text);
    for (name, content) in [
        ("jwt", "0123456789abcdef0123456789abcdef"),
        ("token", "0123456789abcdef"),
        ("former", "0123456789abcdef0123456789abcdef"),
        ("tls.pem", pair[0].as_str()),
        ("tls.key", pair[1].as_str()),
    ] {
        fs::write(check.path(name), content).unwrap();
        chmod(&check, name, 0o600);
    }
    let (code, _, stderr) = check.run(true, false);
    assert_eq!(code, 0, "{stderr}");

    let readable = "every user can read this file, which holds a secret";
    let writable = "every user can write this file, and so decide what";
    for (name, mode, key, said) in [
        ("jwt", 0o644, "auth.jwt.secret_file", readable),
        ("token", 0o604, "admin.token_file", readable),
        ("former", 0o644, "agora.previous_certificate_file", readable),
        ("tls.pem", 0o666, "server.tls.certificate_file", writable),
        ("tls.key", 0o602, "server.tls.private_key_file", writable),
        ("token", 0o602, "admin.token_file", writable),
        ("streams.toml", 0o666, "streams.file", writable),
        ("config.toml", 0o602, "", writable),
    ] {
        chmod(&check, name, mode);
        let (code, _, stderr) = check.run(false, false);
        assert_eq!(code, 0, "it worked before: {stderr}");
        let finding = if key.is_empty() {
            format!("warning: {said}")
        } else {
            format!("warning: `{key}`: {said}")
        };
        assert!(stderr.contains(&finding), "{name}: {stderr}");
        assert_eq!(stderr.matches("warning: ").count(), 1, "{name}: {stderr}");
        assert_eq!(check.run(true, false).0, 78, "{name}");
        chmod(&check, name, 0o600);
    }
    // A file without secrets may be readable by every user.
    chmod(&check, "tls.pem", 0o644);
    assert_eq!(check.run(true, false).0, 0);

    fs::write(check.path("token"), "admin\n").unwrap();
    let (code, _, stderr) = check.run(false, false);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains(
            "warning: `admin.token_file`: the token in it has 5 characters: it can be guessed"
        ),
        "{stderr}"
    );
    assert_eq!(check.run(true, false).0, 78);
}

/// A configuration whose JWT secret is this, in a file.
fn with_secret(secret: &str) -> Check {
    let text = base_with_streams().replace(
        "auth.jwt.secret = \"env:JWT_SECRET\"\n",
        "auth.jwt.secret_file = \"jwt\"\n",
    );
    let check = Check::of(&text);
    fs::write(check.path("jwt"), secret).unwrap();
    chmod(&check, "jwt", 0o600);
    check
}

#[test]
fn a_secret_copied_with_what_stood_around_it_is_warned_of_and_fails_under_strict_alone() {
    let secret = "hunter2-hunter2-hunter2-hunter2-hunter2";
    for (written, said) in [
        (
            format!("JWT_SECRET={secret}"),
            "the secret begins like NAME=value",
        ),
        (
            format!("export JWT_SECRET={secret}\n"),
            "the secret begins like NAME=value",
        ),
        (format!("\"{secret}\"\n"), "the secret has quotes around it"),
        (format!("'{secret}'"), "the secret has quotes around it"),
        (
            format!("{secret} \n"),
            "the secret begins or ends with a blank",
        ),
        (
            format!("your-secret-{secret}"),
            "the secret reads like an example's placeholder",
        ),
    ] {
        let check = with_secret(&written);
        let (code, _, stderr) = check.run(false, false);
        assert_eq!(code, 0, "it worked before: {stderr}");
        let finding = format!("warning: `auth.jwt.secret_file`: {said}");
        assert!(stderr.contains(&finding), "{written}: {stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
        assert_eq!(check.run(true, false).0, 78, "{written}");
    }
    // Padding, and signs within the text, belong to the secret.
    for written in [
        format!("{secret}=="),
        "SGVsbG8gdGhlcmUsIGhlbGxvIHRoZXJlLCBoZWxsbw==".to_owned(),
        format!("a=b{secret}"),
        format!("it's {secret}"),
    ] {
        let (code, _, stderr) = with_secret(&written).run(true, false);
        assert_eq!(code, 0, "{written}: {stderr}");
    }
}

#[test]
fn placeholders_of_the_examples_are_warned_of_and_fail_under_strict_alone() {
    let zeros = "0".repeat(32);
    for (path, value, said) in [
        (
            "agora.app_id",
            format!("\"{zeros}\""),
            "this is the example's app id",
        ),
        (
            "agora.previous_certificate",
            format!("\"{zeros}\""),
            "this is an example's certificate",
        ),
        (
            "cors.allowed_origins",
            "[\"https://YOUR-PROJECT-*.vercel.app\"]".to_owned(),
            "this is the example's origin",
        ),
    ] {
        let base = base_with_streams();
        let lines = base.lines().filter(|line| !line.starts_with(path));
        let lines: Vec<&str> = lines
            .filter(|line| path != "cors.allowed_origins" || !line.starts_with("cors."))
            .collect();
        let check = Check::of(&format!("{path} = {value}\n{}\n", lines.join("\n")));
        let (code, _, stderr) = check.run(false, false);
        assert_eq!(code, 0, "{path}: {stderr}");
        assert!(stderr.contains(said), "{path}: {stderr}");
        assert_eq!(check.run(true, false).0, 78, "{path}");
    }
}

#[test]
fn sockets_without_a_pattern_for_the_names_of_streams_are_warned_of() {
    let socket = "[[reissue.socket]]\npath = \"/socket.io/*\"\n";
    let strict = |streams: &str, keys: &str| {
        let base = base_with_streams();
        Check::of(&format!("{base}{streams}{socket}{keys}")).run(true, false)
    };
    let (code, _, stderr) = strict("", "");
    assert_eq!(code, 78, "{stderr}");
    assert!(
        stderr.contains("warning: `streams.channel_pattern`: unset"),
        "{stderr}"
    );
    for (streams, keys) in [
        ("streams.channel_pattern = \"live_*\"\n", ""),
        ("streams.channel_pattern = \"\"\n", ""),
        ("", "unknown_channel = \"withhold\"\n"),
    ] {
        let (code, _, stderr) = strict(streams, keys);
        assert_eq!(code, 0, "{streams}{keys}: {stderr}");
    }
}

#[test]
fn a_directory_that_the_audit_file_needs_is_missed_by_check_as_by_the_start() {
    let with_audit =
        |audit: &str| Check::of(&(base_with_streams() + "log.audit = \"" + audit + "\"\n"));
    let check = with_audit("file:missing/audit.log");
    let (code, _, stderr) = check.run(false, false);
    assert_eq!(code, 78, "{stderr}");
    assert!(
        stderr.contains("error: `log.audit`: there is no directory"),
        "{stderr}"
    );
    fs::create_dir(check.path("missing")).unwrap();
    assert_eq!(check.run(true, false).0, 0);
    let (code, _, stderr) = with_audit("file:.").run(false, false);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("is a directory"), "{stderr}");
    assert_eq!(with_audit("file:audit.log").run(true, false).0, 0);
}

#[test]
fn a_syntax_error_says_what_would_be_right_there() {
    for (line, hint) in [
        ("health_path = “/healthz”", "not in “"),
        ("health_path = ‘/healthz’", "not in ‘"),
        (
            "health_path = \u{a0}\"/healthz\"",
            "remove the character U+00A0 here",
        ),
        (
            "health_path = \u{200b}\"/healthz\"",
            "remove the character U+200B here",
        ),
        ("workers: 3", "write `=` between key and value, not `:`"),
        ("workers == 3", "write one `=`"),
        ("h2c = True", "write true"),
        ("h2c = off", "write false"),
        ("health_path = /healthz", "put the value in quotes"),
    ] {
        let errors = load(&format!("[server]\n{line}\n")).unwrap_err();
        let [error] = errors.errors.as_slice() else {
            panic!("{line}: {errors}");
        };
        let said = error.hint.as_deref().unwrap_or_default();
        assert!(said.contains(hint), "{line}: {errors}");
        assert_eq!(error.place.map(|place| place.line), Some(2), "{line}");
    }
}

#[test]
fn a_bracket_that_is_not_closed_is_one_error_wherever_it_is() {
    let example = include_str!("../../config.example.toml");
    let closing: Vec<usize> = example
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with(['#', '[']) && line.ends_with([']', '}']))
        .map(|(number, _)| number)
        .collect();
    assert!(closing.len() > 3);
    for number in closing {
        let lines = example.lines().enumerate().map(|(at, line)| {
            let cut = if at == number {
                line.len() - 1
            } else {
                line.len()
            };
            &line[..cut]
        });
        let lines: Vec<&str> = lines.collect();
        let errors = load(&(lines.join("\n") + "\n")).unwrap_err();
        let [error] = errors.errors.as_slice() else {
            panic!("{}: {errors}", lines[number]);
        };
        let at = format!("it begins at line {}", number + 1);
        assert!(error.message.ends_with(&at), "{}: {error}", lines[number]);
    }
}
