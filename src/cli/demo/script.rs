//! What the demo writes and prints: its configuration, its logins, its `curl` lines. Pure but for what it is given.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The channel of the demo's one stream.
pub const CHANNEL: &str = "live_demo";
/// Who owns it.
pub const HOST: &str = "host";

/// Logins last a day.
const LOGIN_SECONDS: u64 = 24 * 60 * 60;

/// Throw-away secrets, new at each start.
#[derive(Debug)]
pub struct Secrets {
    /// 32 hexadecimal digits.
    pub app_id: String,
    /// 32 hexadecimal digits.
    pub certificate: String,
    /// What logins are signed with.
    pub jwt: String,
}

/// The streams file.
pub fn streams() -> String {
    format!("[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{HOST}\"\nlive = true\n")
}

/// The configuration file. Its directory holds the streams file.
pub fn configuration(secrets: &Secrets, backend: SocketAddr, directory: &Path) -> String {
    let streams = toml_string(&directory.join("streams.toml").to_string_lossy());
    let Secrets {
        app_id,
        certificate,
        jwt,
    } = secrets;
    format!(
        r#"[server]
listen = ["127.0.0.1:0"]

[admin]
listen = "127.0.0.1:0"

[upstream]
servers = ["http://{backend}"]

[agora]
app_id = "{app_id}"
app_certificate = "{certificate}"

[auth.jwt]
secret = "{jwt}"

[accounts]
source = "none"

[streams]
source = "file"
file = {streams}

[state]
directory = ""

[log]
level = "warn"
audit = "off"
"#
    )
}

/// A TOML basic string; JSON's escapes are a subset of TOML's.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A login of that subject (RFC 7519, HS256).
pub fn login(secrets: &Secrets, subject: &str, now: u64) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = serde_json::json!({"sub": subject, "iat": now, "exp": now + LOGIN_SECONDS});
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    // An HMAC takes a key of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secrets.jwt.as_bytes()) {
        mac.update(token.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        token.push('.');
        token.push_str(&signature);
    }
    token
}

/// The lines to paste.
pub fn lines(secrets: &Secrets, public: SocketAddr, admin: SocketAddr, now: u64) -> String {
    let viewer = login(secrets, "viewer", now);
    let host = login(secrets, HOST, now);
    let impatient = login(secrets, "impatient", now);
    let ask = |path: &str, login: &str, options: &str, body: &str| {
        format!(
            "curl -s{options} 'http://{public}{path}' -H 'Authorization: Bearer {login}' -H 'Content-Type: application/json' -d '{body}'"
        )
    };
    let own = format!(r#"{{"channelName":"{CHANNEL}","uid":1,"role":"publisher"}}"#);
    let watch = format!(r#"{{"channelName":"{CHANNEL}","uid":77}}"#);
    let steal = format!(r#"{{"channelName":"{CHANNEL}","uid":78,"role":"publisher"}}"#);
    let hurry = format!(r#"{{"channelName":"{CHANNEL}","uid":79}}"#);
    let mut text = String::new();
    for (what, line) in [
        (
            "A viewer's token for one hour",
            ask("/api/live/token", &viewer, "", &watch),
        ),
        (
            "The broadcaster renews (the backend would answer 403)",
            ask("/api/live/refresh-token", &host, "", &own),
        ),
        (
            "Everything else goes to the backend",
            format!("curl -s 'http://{public}/api/live/active'"),
        ),
        (
            "A viewer who wants to broadcast: 403 not_owner",
            ask("/api/live/token", &viewer, "", &steal),
        ),
        (
            "Twenty-five at once: 429 rate_limited from the 21st on",
            ask(
                "/api/live/token?n=[1-25]",
                &impatient,
                " -o /dev/null -w '%{http_code} '",
                &hurry,
            ),
        ),
        (
            "What Prometheus sees",
            format!(
                "curl -s 'http://{admin}/metrics' | grep '^renewd_token_requests_total.* [1-9]'"
            ),
        ),
    ] {
        let _ = write!(text, "# {what}\n{line}\n\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_toml() {
        assert_eq!(toml_string("a\"b\\c"), r#""a\"b\\c""#);
    }
}
