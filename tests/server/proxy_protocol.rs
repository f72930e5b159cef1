//! PROXY headers (`server.proxy_protocol`): who may send one, whose address counts then, and what is refused.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::Value;

use crate::support::express::{Express, Version};
use crate::support::renewd::{DEADLINE, Renewd, Settings};
use crate::support::tls::Authority;

const SERVER: &str = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn start(backend: &Express, server: &str, tables: &str) -> Renewd {
    Renewd::start(&Settings {
        backend: Some(backend.address),
        server: server.to_owned(),
        tables: tables.to_owned(),
        ..Settings::default()
    })
}

/// Everything that comes back until the end; a reset is an end too.
fn rest(mut stream: impl std::io::Read) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn connect(renewd: &Renewd) -> TcpStream {
    let stream = TcpStream::connect(renewd.public).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One request behind these bytes, and all of its answer.
fn get(renewd: &Renewd, header: &[u8], target: &str, fields: &str) -> String {
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: api.test\r\n{fields}Connection: close\r\n\r\n");
    let mut stream = connect(renewd);
    // A refused connection may be closed before all of it is sent.
    let _ = stream.write_all(&[header, request.as_bytes()].concat());
    rest(stream)
}

fn body(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(body).expect(answer)
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

/// From 203.0.113.7 to 192.0.2.1.
const OVER_IPV4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, SERVER, "");
    let extended = [OVER_IPV4, &[4, 1, 0], &[0; 256], &[2, 0, 1, b'a']].concat();
    for (header, client) in [
        (
            &b"PROXY TCP4 203.0.113.7 192.168.0.11 56324 443\r\n"[..],
            "203.0.113.7",
        ),
        (b"PROXY TCP6 2001:db8::5 2001:db8::9 1 2\r\n", "2001:db8::5"),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", "203.0.113.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 whatever\r\n", "127.0.0.1"),
        (&binary(0x21, 0x11, OVER_IPV4), "203.0.113.7"),
        (&binary(0x21, 0x11, &extended), "203.0.113.7"),
        (&binary(0x21, 0x31, &[0x2f; 216]), "127.0.0.1"),
        (&binary(0x21, 0x00, b""), "127.0.0.1"),
        (&binary(0x20, 0x11, OVER_IPV4), "127.0.0.1"),
    ] {
        let seen = body(&get(&renewd, header, "/wire/seen", ""));
        assert_eq!(seen["ip"], client, "{}", header.escape_ascii());
    }
    // Nothing of it is refused or counted as a fault.
    for kind in ["proxy_header", "proxy_untrusted", "malformed"] {
        let series = format!("renewd_http_parse_errors_total{{kind=\"{kind}\"}}");
        assert_eq!(renewd.metric(&series).to_string(), "0", "{kind}");
    }
}

#[test]
fn nobody_speaks_for_others_behind_a_header_but_a_trusted_address_that_it_names() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, SERVER, "");
    let claim = "X-Forwarded-For: 198.51.100.1\r\n";
    for (header, client) in [
        (
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".to_vec(),
            "198.51.100.1",
        ),
        (
            b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n".to_vec(),
            "203.0.113.7",
        ),
        // Anybody may be writing this.
        (binary(0x20, 0x00, b""), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, 0x00, b""), "127.0.0.1"),
        (binary(0x21, 0x31, &[0x2f; 216]), "127.0.0.1"),
    ] {
        let seen = body(&get(&renewd, &header, "/wire/seen", claim));
        assert_eq!(seen["ip"], client, "{}", header.escape_ascii());
    }
}

#[test]
fn limits_count_clients_and_not_the_load_balancer() {
    let backend = Express::start(Version::Four, &[("RATE_LIMIT", "2")]);
    let renewd = start(&backend, SERVER, "");
    let status = |client: &str| {
        let header = format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n");
        let answer = get(&renewd, header.as_bytes(), "/health", "");
        answer.get(9..12).expect("a status").to_owned()
    };
    let of_one = ["203.0.113.1", "203.0.113.1", "203.0.113.1"].map(status);
    assert_eq!(of_one, ["200", "200", "429"]);
    assert_eq!(status("203.0.113.2"), "200");
}

#[test]
fn what_is_no_header_is_closed_without_an_answer_and_counted() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, SERVER, "");
    let refused: [&[u8]; 6] = [
        b"",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 99999\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n",
        b"PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n",
        &binary(0x21, 0x11, &OVER_IPV4[1..]),
        &[SIGNATURE, b"\x21\x11\xff\xff"].concat(),
    ];
    for header in refused {
        let answer = get(&renewd, header, "/wire/seen", "");
        assert_eq!(answer, "", "{}", header.escape_ascii());
    }
    renewd.eventually("all of them counted", |renewd| {
        let kind = "renewd_http_parse_errors_total{kind=\"proxy_header\"}";
        renewd.metric(kind) >= 6.0
    });
    let warned = |line: &Value| {
        let message = line["msg"].as_str()?;
        let said = message.contains("127.0.0.1 was refused, since it doesn't begin with a PROXY");
        said.then_some(())
    };
    renewd.log().wait("the warning", warned);
    let warnings = renewd.log().lines().iter().filter_map(warned).count();
    assert_eq!(warnings, 1);
    // A load balancer that only looks whether the port is open is no fault.
    drop(connect(&renewd));
    let seen = get(&renewd, b"PROXY UNKNOWN\r\n", "/wire/seen", "");
    assert_eq!(body(&seen)["ip"], "127.0.0.1");
}

#[test]
fn nobody_but_trusted_proxies_may_connect() {
    let backend = Express::start(Version::Four, &[]);
    let server = "trusted_proxies = [\"192.0.2.0/24\"]\nproxy_protocol = true";
    let renewd = start(&backend, server, "");
    for header in [&b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n"[..], b""] {
        assert_eq!(get(&renewd, header, "/wire/seen", ""), "");
    }
    renewd.eventually("both of them counted", |renewd| {
        let kind = "renewd_http_parse_errors_total{kind=\"proxy_untrusted\"}";
        renewd.metric(kind) >= 2.0
    });
    renewd.log().wait("the warning", |line| {
        let message = line["msg"].as_str()?;
        let said = message.contains("127.0.0.1 was refused, as are all from addresses");
        said.then_some(())
    });
}

#[test]
fn a_header_may_come_in_pieces_but_not_take_forever() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, SERVER, "");
    let request = b"GET /wire/seen HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    for header in [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(),
        binary(0x21, 0x11, OVER_IPV4),
    ] {
        let mut stream = connect(&renewd);
        for byte in header.iter().chain(request) {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(body(&rest(stream))["ip"], "203.0.113.7");
    }
    let hasty = format!("{SERVER}\ntimeouts = {{ header = \"200ms\" }}");
    let renewd = start(&backend, &hasty, "");
    for begun in [&b""[..], b"PROXY TC", &binary(0x21, 0x11, OVER_IPV4)[..20]] {
        let mut stream = connect(&renewd);
        stream.write_all(begun).unwrap();
        assert_eq!(rest(stream), "");
    }
    renewd.eventually("those that had begun counted", |renewd| {
        let kind = "renewd_http_parse_errors_total{kind=\"header_timeout\"}";
        renewd.metric(kind) >= 2.0
    });
}

#[test]
fn a_unix_socket_takes_headers_too() {
    let backend = Express::start(Version::Four, &[]);
    let server = format!("{SERVER}\nlisten = [\"unix:public.sock\", \"127.0.0.1:0\"]");
    let renewd = start(&backend, &server, "");
    let mut socket = UnixStream::connect(renewd.file("public.sock")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = b"GET /wire/seen HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    socket
        .write_all(&[&binary(0x21, 0x11, OVER_IPV4), &request[..]].concat())
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(body(&answer)["ip"], "203.0.113.7");
}

#[test]
fn curl_speaks_every_protocol_behind_its_header() {
    let backend = Express::start(Version::Four, &[]);
    let plain = start(&backend, &format!("{SERVER}\nh2c = true"), "");
    let authority = Authority::new();
    let pair = authority.issue("daemon", 30);
    let tables = format!(
        "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
        pair.certificate.display(),
        pair.key.display()
    );
    let secured = start(&backend, SERVER, &tables);
    for (renewd, scheme, protocol, version) in [
        (&plain, "http", "--http1.1", "1.1"),
        (&plain, "http", "--http2-prior-knowledge", "2"),
        (&secured, "https", "--http1.1", "1.1"),
        (&secured, "https", "--http2", "2"),
    ] {
        let url = format!("{scheme}://{}/wire/seen", renewd.public);
        let told = "\n%{http_version}";
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--max-time", "30"])
            .args(["--haproxy-protocol", protocol, "--write-out", told, &url])
            .output()
            .expect("curl is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        let (seen, spoken) = said.rsplit_once('\n').unwrap_or_default();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(spoken, version, "{url}: {errors}");
        let seen: Value = serde_json::from_str(seen).expect(&errors);
        assert_eq!(
            (&seen["ip"], &seen["protocol"]),
            (&"127.0.0.1".into(), &scheme.into())
        );
        let output = Command::new("curl")
            .args(["--silent", "--insecure", "--max-time", "30", protocol, &url])
            .output()
            .expect("curl is installed");
        assert!(!output.status.success(), "{url} without a header");
    }
}

#[test]
fn a_reload_applies_to_connections_to_come() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, SERVER, "");
    let request = b"GET /wire/seen HTTP/1.1\r\nHost: api.test\r\n\r\n";
    let mut open = connect(&renewd);
    open.write_all(&[&binary(0x21, 0x11, OVER_IPV4), &request[..]].concat())
        .unwrap();
    let mut begun = [0; 12];
    open.read_exact(&mut begun).unwrap();
    let config = renewd.file("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let off = text.replace("proxy_protocol = true", "proxy_protocol = false");
    assert_ne!(text, off);
    std::fs::write(&config, off).unwrap();
    renewd.eventually("a connection without a header", |renewd| {
        get(renewd, b"", "/wire/seen", "").starts_with("HTTP/1.1 200 ")
    });
    let last = b"GET /wire/seen HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    open.write_all(last).unwrap();
    let answers = rest(open);
    let seen = answers.matches("\"ip\":\"203.0.113.7\"").count();
    assert_eq!(seen, 2, "{answers}");
}
