//! The texts that the demo writes and prints: its files, and `curl` lines to paste. Pure.
//!
//! Keeps true: every line works as it is, in any shell, wherever the temporary directory is; each login is a file of
//! headers beside the configuration, so that lines stay short enough to read.
//! Must not know: how a file is written or a line is run.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The configuration file's name.
pub(crate) const CONFIGURATION: &str = "config.toml";
const STREAMS: &str = "streams.toml";
const ADMIN_TOKEN: &str = "admin-token";

/// The channel of the demo's one stream.
pub(crate) const CHANNEL: &str = "live_demo";
/// The subject that owns it.
const HOST: &str = "host";
/// The subject that watches it.
const VIEWER: &str = "viewer";
/// The subject that asks too often. The viewer is another one, so that its limit is not used up.
const IMPATIENT: &str = "impatient";

/// Logins last a day.
const LOGIN_SECONDS: u64 = 24 * 60 * 60;

/// Throw-away secrets, new at each start.
#[derive(Debug)]
pub(crate) struct DemoSecrets {
    /// 32 hexadecimal digits.
    pub app_id: String,
    /// 32 hexadecimal digits.
    pub certificate: String,
    /// The secret that signs logins.
    pub jwt: String,
    /// Opens the status page.
    pub admin: String,
}

/// Every file of the demo's directory: name and content.
pub(crate) fn files(
    secrets: &DemoSecrets,
    backend: SocketAddr,
    directory: &Path,
    now: u64,
) -> Vec<(&'static str, String)> {
    let mut files = vec![
        (STREAMS, streams()),
        (ADMIN_TOKEN, secrets.admin.clone()),
        (CONFIGURATION, configuration(secrets, backend, directory)),
    ];
    files.extend([VIEWER, HOST, IMPATIENT].map(|subject| {
        let login = login(secrets, subject, now);
        let headers = format!("Authorization: Bearer {login}\nContent-Type: application/json\n");
        (subject, headers)
    }));
    files
}

fn streams() -> String {
    format!("[[stream]]\nchannel = \"{CHANNEL}\"\nowner = \"{HOST}\"\nlive = true\n")
}

fn configuration(secrets: &DemoSecrets, backend: SocketAddr, directory: &Path) -> String {
    let file = |name| toml_string(&directory.join(name).to_string_lossy());
    let (streams, admin_token) = (file(STREAMS), file(ADMIN_TOKEN));
    let DemoSecrets {
        app_id,
        certificate,
        jwt,
        admin: _,
    } = secrets;
    format!(
        r#"[server]
listen = ["127.0.0.1:0"]

[admin]
listen = "127.0.0.1:0"
token_file = {admin_token}

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
level = "error"
audit = "off"
"#
    )
}

/// A TOML basic string; JSON's escapes are a subset of TOML's.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A login of that subject (RFC 7519, HS256).
fn login(secrets: &DemoSecrets, subject: &str, now: u64) -> String {
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

/// The running demo, for [`announcement`].
#[derive(Debug)]
pub(crate) struct DemoProgram<'a> {
    /// The sidecar's port.
    pub public: SocketAddr,
    /// Metrics and status page.
    pub admin: SocketAddr,
    /// The demo's backend.
    pub backend: SocketAddr,
    /// Where [`files`] are.
    pub directory: &'a Path,
    /// Opens the status page.
    pub admin_token: &'a str,
    /// Whether headings are set in bold type (ECMA-48 SGR 1), for a terminal.
    pub bold: bool,
}

/// The text that says what is running, with lines to paste.
pub(crate) fn announcement(announced: &DemoProgram<'_>) -> String {
    let DemoProgram {
        public,
        admin,
        backend,
        directory,
        admin_token,
        bold,
    } = announced;
    let (bold, plain) = if *bold {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let mut text = format!(
        "{bold}renewd demo{plain}: one live stream, {CHANNEL}, with throw-away secrets. Ctrl-C ends it.\n\n  \
           sidecar      http://{public}\n  \
           backend      http://{backend}\n  \
           status page  http://{admin}/   admin token {admin_token}\n  \
           files        {directory}/   save {CONFIGURATION} or {STREAMS}, and renewd follows\n\n\
         Paste these into another terminal:\n\n",
        directory = directory.display(),
    );
    for (what, line) in lines(*public, *admin, directory) {
        let _ = write!(text, "{bold}# {what}{plain}\n{line}\n\n");
    }
    text
}

/// Each with what it shows.
fn lines(public: SocketAddr, admin: SocketAddr, directory: &Path) -> [(&'static str, String); 6] {
    let ask = |options: &str, target: &str, subject: &str, user: &str| {
        let headers = shell_word(&format!("@{}", directory.join(subject).display()));
        let body = format!(r#"{{"channelName":"{CHANNEL}",{user}}}"#);
        format!("curl {options} {target} -H {headers} -d '{body}'")
    };
    let token = format!("http://{public}/api/live/token");
    let refresh = format!("http://{public}/api/live/refresh-token");
    [
        (
            "A viewer's token, for one hour",
            ask(r"-sw '\n'", &token, VIEWER, r#""uid":77"#),
        ),
        (
            "The broadcaster renews theirs",
            ask(r"-sw '\n'", &refresh, HOST, r#""uid":1,"role":"publisher""#),
        ),
        (
            "Everything else is the backend's",
            format!(r"curl -sw '\n' http://{public}/api/live/active"),
        ),
        (
            "A viewer who wants to broadcast: 403 not_owner",
            ask(
                r"-siw '\n'",
                &token,
                VIEWER,
                r#""uid":78,"role":"publisher""#,
            ),
        ),
        (
            "Twenty-five at once: 429 from the 21st on",
            ask(
                r"-so /dev/null -w '%{http_code} '",
                &format!("'{token}?[1-25]'"),
                IMPATIENT,
                r#""uid":79"#,
            ) + "; echo",
        ),
        (
            "What Prometheus sees of it",
            format!("curl -s http://{admin}/metrics | grep '^renewd_token_requests_total.* [1-9]'"),
        ),
    ]
}

/// One word for a POSIX shell.
fn shell_word(text: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"@/._-".contains(&byte);
    if text.bytes().all(harmless) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_toml() {
        assert_eq!(toml_string("a\"b\\c"), r#""a\"b\\c""#);
    }

    #[test]
    fn paths_are_quoted_for_the_shell_where_they_must_be() {
        assert_eq!(shell_word("@/var/a-1/viewer"), "@/var/a-1/viewer");
        assert_eq!(shell_word("@/var/o'clock $1"), r"'@/var/o'\''clock $1'");
    }
}
