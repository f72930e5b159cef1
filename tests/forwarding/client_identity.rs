//! The client's address, from `X-Forwarded-For` to the app's `trust proxy: 1` limiter and renewd's own.

use crate::support::express::{Express, Version};
use crate::support::raw::Response;
use crate::support::renewd::{Renewd, Settings};

const TRUSTED: &str = r#"trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]"#;

fn start(backend: &Express, server: &str, tables: &str) -> Renewd {
    Renewd::start(&Settings {
        backend: Some(backend.address),
        server: server.to_owned(),
        tables: tables.to_owned(),
        ..Settings::default()
    })
}

fn get(renewd: &Renewd, path: &str, headers: &[(&str, &str)]) -> Response {
    let lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: api.test\r\n{}\r\n",
        lines.concat()
    );
    renewd.client().send(request.as_bytes()).expect("an answer")
}

/// Every value of a header that reached the backend.
fn reached(seen: &serde_json::Value, name: &str) -> Vec<String> {
    let raw = seen["headers"].as_array().expect("names and values");
    let named = raw.chunks(2).filter(|pair| {
        let found = pair[0].as_str().expect("a name").replace('_', "-");
        found.eq_ignore_ascii_case(name)
    });
    named
        .map(|pair| pair[1].as_str().expect("a value").to_owned())
        .collect()
}

#[test]
fn one_client_address_goes_out_whatever_the_chain() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, TRUSTED, "");
    for (lines, client) in [
        (&["203.0.113.1"][..], "203.0.113.1"),
        (&["6.6.6.6, 203.0.113.1"], "203.0.113.1"),
        (&["6.6.6.6, 203.0.113.1, 10.2.3.4"], "203.0.113.1"),
        (
            &["6.6.6.6", "203.0.113.1", "10.2.3.4, 10.0.0.9"],
            "203.0.113.1",
        ),
        (&["[2001:db8::5]:4711"], "2001:db8::5"),
        (&["::ffff:203.0.113.1"], "203.0.113.1"),
        (&["203.0.113.1, unknown, 10.2.3.4"], "10.2.3.4"),
        (&[], "127.0.0.1"),
    ] {
        let mut headers: Vec<_> = lines
            .iter()
            .map(|line| ("X-Forwarded-For", *line))
            .collect();
        headers.push(("X_Forwarded_For", "6.6.6.6"));
        let seen = get(&renewd, "/wire/seen", &headers).json();
        assert_eq!(seen["ip"], client, "{lines:?}");
        assert_eq!(reached(&seen, "x-forwarded-for"), [client], "{lines:?}");
    }
}

#[test]
fn scheme_and_host_are_the_trusted_proxys_word() {
    let backend = Express::start(Version::Four, &[]);
    let claims = [
        ("X-Forwarded-For", "203.0.113.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "live.example"),
    ];
    for (server, scheme, host) in [(TRUSTED, "https", "live.example"), ("", "http", "api.test")] {
        let renewd = start(&backend, server, "");
        let seen = get(&renewd, "/wire/seen", &claims).json();
        assert_eq!(
            (&seen["protocol"], &seen["hostname"]),
            (&scheme.into(), &host.into())
        );
        assert_eq!(reached(&seen, "x-forwarded-proto"), [scheme]);
        assert_eq!(reached(&seen, "x-forwarded-host"), [host]);
    }
}

#[test]
fn the_apps_limiter_counts_clients_not_proxies() {
    let backend = Express::start(Version::Four, &[("RATE_LIMIT", "2")]);
    let renewd = start(&backend, TRUSTED, "");
    let status = |chain| get(&renewd, "/health", &[("X-Forwarded-For", chain)]).status;
    let one = [status("203.0.113.1"), status("6.6.6.6, 203.0.113.1")];
    assert_eq!(one, [200, 200]);
    assert_eq!(status("7.7.7.7, 203.0.113.1, 10.0.0.5"), 429);
    assert_eq!(status("203.0.113.2"), 200);
}

#[test]
fn nobody_gets_a_limiter_bucket_by_claiming_an_address() {
    let backend = Express::start(Version::Four, &[("RATE_LIMIT", "2")]);
    let renewd = start(&backend, "", "");
    let statuses = ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
        .map(|claimed| get(&renewd, "/health", &[("X-Forwarded-For", claimed)]).status);
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn our_own_address_limit_counts_clients_not_proxies() {
    let backend = Express::start(Version::Four, &[]);
    let limit = "[rate_limit]\naddress = { requests = 1, per = \"1h\", burst = 1 }\n";
    let renewd = start(&backend, TRUSTED, limit);
    let guess = |client| {
        let request = format!(
            "POST /api/live/token HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: {client}\r\nContent-Length: 0\r\n\r\n"
        );
        renewd
            .client()
            .send(request.as_bytes())
            .expect("an answer")
            .status
    };
    assert_eq!([guess("203.0.113.1"), guess("203.0.113.1")], [401, 429]);
    assert_eq!(guess("203.0.113.2"), 401);
}

#[test]
fn a_private_peer_that_speaks_for_others_is_one_warning_with_the_line_to_add() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, "", "");
    for header in [
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "X_Forwarded_For",
    ] {
        let seen = get(&renewd, "/wire/seen", &[(header, "203.0.113.1")]).json();
        assert_eq!(seen["ip"], "127.0.0.1", "{header}");
    }
    get(&renewd, "/wire/seen", &[]);
    let warned = |line: &serde_json::Value| {
        let message = line["msg"].as_str()?;
        message
            .contains("trusted_proxies = [\"127.0.0.1\"]")
            .then_some(())
    };
    renewd.log().wait("warning", warned);
    let warnings = renewd.log().lines().iter().filter_map(warned).count();
    let dropped =
        renewd.metric(r#"renewd_forwarded_headers_dropped_total{listener="127.0.0.1:0"}"#);
    assert_eq!((warnings, dropped.to_string()), (1, "4".to_owned()));
}

#[test]
fn request_ids_are_a_trusted_peers_or_ours() {
    let backend = Express::start(Version::Four, &[]);
    let longest = "x".repeat(64);
    let too_long = "x".repeat(65);
    for (server, given, believed) in [
        (TRUSTED, "lb-4711", true),
        (TRUSTED, &longest, true),
        (TRUSTED, &too_long, false),
        (TRUSTED, "two words", false),
        ("", "lb-4711", false),
    ] {
        let renewd = start(&backend, server, "");
        let answer = get(&renewd, "/wire/seen", &[("X-Request-Id", given)]);
        let id = answer.header("x-request-id").expect("an id").to_owned();
        assert_eq!(id == given, believed, "{server} {given}: {id}");
        assert_eq!(reached(&answer.json(), "x-request-id"), [id]);
    }
}
