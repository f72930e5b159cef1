//! The status page in a real browser: by the keyboard, with the rules of accessibility, in daylight and at night.

use std::process::Command;

use crate::support::agora_api::AgoraApi;
use crate::support::renewd::{ADMIN_TOKEN, login};
use crate::support::{ejecting, npm};

#[test]
fn an_operator_finds_explains_revokes_and_gives_back_on_the_page() {
    let package = npm::package("page");
    npm::ensure(&package);
    let agora = AgoraApi::start();
    let renewd = ejecting::start(&agora);
    let hostile = "<b>nobody</b>";
    for (subject, body, status) in [
        (
            "owner",
            r#"{"channelName":"live_show","uid":1,"role":"publisher"}"#,
            200,
        ),
        (hostile, r#"{"channelName":"live_show","uid":2}"#, 200),
        (
            "stranger",
            r#"{"channelName":"live_show","uid":3,"role":"publisher"}"#,
            403,
        ),
    ] {
        let answer = renewd.post("/api/live/token", &login(subject), body);
        assert_eq!(answer.status, status);
    }
    // The usual test configuration has a backend that refuses every connection, which the page says first.
    let request = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
    assert_eq!(renewd.client().send(request).unwrap().status, 502);
    let output = Command::new("node")
        .arg(package.join("look.mjs"))
        .arg(format!("http://{}/", renewd.admin))
        .args([ADMIN_TOKEN, "live_show", hostile])
        .arg(renewd.pid().to_string())
        .output()
        .expect("node: `tests/run --install` installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
