//! A daemon's configuration while it runs: written anew, reloaded, asked about.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use super::raw::{Client, Response};
use super::renewd::{ADMIN_TOKEN, DEADLINE, Renewd, Settings, configuration, login, private_file};

/// Writes a whole file in one step: a temporary one, renamed over it.
pub fn replace_file(path: &Path, content: &str) {
    let new = path.with_extension("new");
    private_file(&new, content);
    fs::rename(&new, path).expect("a writable directory");
}

impl Renewd {
    /// Puts the usual configuration with these changes in the file's place.
    pub fn configure(&self, settings: &Settings) {
        replace_file(&self.file("config.toml"), &configuration(settings));
    }

    /// A request to the admin listener, with the bearer token of every test configuration.
    pub fn ask_admin(&self, method: &str, target: &str, body: &str) -> Response {
        self.ask_admin_as(ADMIN_TOKEN, method, target, body)
    }

    /// A request to the admin listener with this bearer token.
    pub fn ask_admin_as(&self, token: &str, method: &str, target: &str, body: &str) -> Response {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Client::new(self.admin)
            .send(request.as_bytes())
            .expect("an answer")
    }

    /// `POST /-/reload`.
    pub fn reload(&self) -> Response {
        self.ask_admin("POST", "/-/reload", "{}")
    }

    /// [`Renewd::configure`] and a reload, which must succeed. Gives the answer.
    pub fn reconfigure(&self, settings: &Settings) -> Value {
        self.configure(settings);
        let answer = self.reload();
        assert_eq!(
            answer.status,
            200,
            "{:?}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    /// The value of one series whose values are whole numbers; 0 where it isn't there.
    pub fn whole(&self, series: &str) -> u64 {
        let page = self.metrics();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// The subjects of all revocations in force.
    pub fn revoked_subjects(&self) -> BTreeSet<String> {
        let (mut subjects, mut query) = (BTreeSet::new(), "?limit=1000".to_owned());
        loop {
            let target = format!("/v1/revocations{query}");
            let page = self.ask_admin("GET", &target, "").json();
            let listed = page["revocations"].as_array().unwrap().iter();
            subjects.extend(listed.filter_map(|each| each["subject"].as_str().map(str::to_owned)));
            match page["cursor"].as_str() {
                Some(cursor) => query = format!("?limit=1000&cursor={cursor}"),
                None => return subjects,
            }
        }
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Value {
        let answer = self.ask_admin("GET", "/v1/status", "");
        assert_eq!(answer.status, 200);
        answer.json()
    }

    /// The answer to a viewer's request for a token of the one live stream.
    pub fn ask_for_token(&self) -> Response {
        let body = r#"{"channelName":"live_show","uid":77}"#;
        self.post("/api/live/token", &login("viewer"), body)
    }

    /// `expiresIn` of a token minted now.
    pub fn lifetime(&self) -> u64 {
        let answer = self.ask_for_token();
        assert_eq!(
            answer.status,
            200,
            "{:?}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()["data"]["expiresIn"]
            .as_u64()
            .expect("seconds")
    }
}

/// The usual configuration with this token lifetime.
pub fn with_lifetime(lifetime: &str) -> Settings {
    Settings {
        token: format!("lifetime = \"{lifetime}\"\nrefresh_before = \"10s\""),
        ..Settings::default()
    }
}

/// The status of `POST /v1/revocations` to a daemon that may be killed meanwhile; `None` where no answer came.
pub fn try_to_revoke(admin: SocketAddr, body: &str) -> Option<u16> {
    let request = format!(
        "POST /v1/revocations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(admin).ok()?;
    socket.set_read_timeout(Some(DEADLINE)).ok()?;
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
