//! `[cors]`: renewd's answers tell browsers what npm's `cors` tells them in front of the backend's routes.

use crate::support::express::{Express, Version};
use crate::support::raw::{Client, Response};
use crate::support::renewd::{Renewd, Settings, login};
use serde_json::json;

/// Origins that [`LISTED`] allows and origins that it doesn't.
const ORIGINS: [&str; 12] = [
    "https://app.example.com",
    "https://preview-1.vercel.app",
    "https://a.b.vercel.app",
    "http://localhost:5173",
    "http://localhost",
    "http://app.example.com",
    "https://app.example.com.evil.example",
    "https://evilvercel.app",
    "https://.vercel.app",
    "https://preview-1.vercel.app:8443",
    "null",
    "",
];

const LISTED: &str = r#"allowed_origins = ["https://app.example.com", "https://*.vercel.app", "http://localhost:*"]"#;

/// The same list for `cors`.
fn listed() -> serde_json::Value {
    json!([
        "https://app.example.com",
        r"/^https:\/\/([\w-]+\.)+vercel\.app$/",
        r"/^http:\/\/localhost(:\d+)?$/"
    ])
}

fn start(backend: &Express, cors: &str) -> Renewd {
    Renewd::start(&Settings {
        backend: Some(backend.address),
        tables: format!("{cors}\n[[routes.block]]\npath = \"/blocked\"\n"),
        server: "health_path = \"/ready\"".to_owned(),
        ..Settings::default()
    })
}

fn request(client: &mut Client, line: &str, origin: &str, more: &str) -> Response {
    let origin = match origin {
        "" => String::new(),
        origin => format!("Origin: {origin}\r\n"),
    };
    let request =
        format!("{line} HTTP/1.1\r\nHost: api.test\r\n{origin}Content-Length: 0\r\n{more}\r\n");
    let answer = client.send(request.as_bytes());
    answer.unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The header fields by which a browser decides.
fn told(response: &Response) -> Vec<(String, String)> {
    let mut told: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("access-control-") || name == "vary")
        .cloned()
        .collect();
    told.sort();
    told
}

#[test]
fn our_answers_say_to_every_origin_what_the_apps_cors_says() {
    let exposed = r#"expose_headers = ["x-request-id", "Retry-After"]"#;
    for (ours, apps) in [
        (
            format!("[cors]\n{LISTED}\nallow_credentials = true\n{exposed}"),
            json!({"origin": listed(), "credentials": true, "exposedHeaders": ["x-request-id", "Retry-After"]}),
        ),
        (format!("[cors]\n{LISTED}"), json!({"origin": listed()})),
        (
            format!("[cors]\nallowed_origins = [\"*\"]\n{exposed}"),
            json!({"origin": "*", "exposedHeaders": ["x-request-id", "Retry-After"]}),
        ),
    ] {
        let backend = Express::start(Version::Four, &[("CORS", &apps.to_string())]);
        let renewd = start(&backend, &ours);
        let (mut app, mut client) = (Client::new(backend.address), renewd.client());
        for origin in ORIGINS {
            let line = "POST /api/live/agora-token";
            let expected = told(&request(&mut app, line, origin, ""));
            let answer = request(&mut client, line, origin, "");
            assert_eq!((answer.status, told(&answer)), (401, expected), "{origin}");
        }
    }
}

#[test]
fn tokens_and_our_own_errors_carry_the_headers() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(&backend, &format!("[cors]\n{LISTED}"));
    let origin = "https://app.example.com";
    let expected = [("access-control-allow-origin", origin), ("vary", "Origin")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let authorization = format!("Authorization: Bearer {}\r\n", login("viewer"));
    let body = r#"{"channelName":"live_show","uid":77}"#;
    let post = format!(
        "POST /api/live/token HTTP/1.1\r\nHost: api.test\r\nOrigin: {origin}\r\n{authorization}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let granted = renewd.client().send(post.as_bytes()).unwrap();
    assert_eq!((granted.status, told(&granted)), (200, expected.to_vec()));
    for (line, status) in [
        ("POST /api/live/token", 401),
        ("GET /api/live/token", 405),
        ("POST /api/live/%74oken", 404),
        ("GET /blocked", 404),
        ("TRACE /", 405),
    ] {
        let answer = request(&mut renewd.client(), line, origin, "");
        assert_eq!(
            (answer.status, told(&answer)),
            (status, expected.to_vec()),
            "{line}"
        );
    }
    let health = request(&mut renewd.client(), "GET /ready", origin, "");
    assert_eq!((health.status, told(&health)), (200, Vec::new()));
    drop(backend);
    let answer = request(&mut renewd.client(), "GET /health", origin, "");
    assert_eq!((answer.status, told(&answer)), (502, expected.to_vec()));
}

#[test]
fn the_backends_answers_and_preflights_are_left_alone() {
    let backend = Express::start(Version::Four, &[]);
    let renewd = start(
        &backend,
        "[cors]\nallowed_origins = [\"https://app.example.com\"]",
    );
    let (mut app, mut client) = (Client::new(backend.address), renewd.client());
    // A 204 has no length to read up to.
    let preflight = "Connection: close\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n";
    for origin in ["https://app.example.com", "https://other.example"] {
        for (line, more) in [
            ("GET /health", ""),
            ("OPTIONS /api/live/token", preflight),
            ("OPTIONS /api/live/active", preflight),
        ] {
            let expected = request(&mut app, line, origin, more);
            let answer = request(&mut client, line, origin, more);
            assert_eq!(told(&answer), told(&expected), "{line} {origin}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        }
    }
}

#[test]
fn without_a_list_nothing_is_said() {
    let backend = Express::start(Version::Four, &[]);
    for cors in ["", "[cors]\nallowed_origins = []\nallow_credentials = true"] {
        let renewd = start(&backend, cors);
        let line = "POST /api/live/token";
        let answer = request(&mut renewd.client(), line, "https://app.example.com", "");
        assert_eq!((answer.status, told(&answer)), (401, Vec::new()));
    }
}
