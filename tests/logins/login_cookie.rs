//! A login in a cookie counts only where no other site's page can have caused the request.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use crate::support::ask::{Ask, Row};
use crate::support::renewd::{Renewd, Settings, login};
use crate::support::scripted::Scripted;

fn start(cookie: &str) -> Renewd {
    let tables = format!(
        "[auth]\ncookie = \"{cookie}\"\n[cors]\nallowed_origins = [\"https://*.app.example\"]\n"
    );
    Renewd::start(&Settings {
        tables,
        ..Settings::default()
    })
}

/// A viewer's request with these header lines and no `Authorization`.
fn with(headers: &[String]) -> Ask {
    let headers = headers.iter().map(|line| format!("{line}\r\n"));
    Ask {
        authorization: String::new(),
        headers: headers.collect(),
        ..Ask::viewer("", 7)
    }
}

fn cookie(subject: &str) -> String {
    format!("Cookie: theme=dark; token={}; x=y", login(subject))
}

fn origin(origin: &str) -> String {
    format!("Origin: {origin}")
}

fn refused() -> Row {
    Row::new(401, "unauthenticated", "unknown", "client")
}

fn granted() -> Row {
    Row::new(200, "ok", "subscriber", "ok")
}

#[test]
fn a_cookie_counts_from_our_own_pages_and_listed_ones() {
    let renewd = start("token");
    for (subject, page) in [
        ("ada", "https://example.com"),
        ("bob", "http://example.com"),
        ("eve", "https://www.app.example"),
    ] {
        let ask = with(&[cookie(subject), origin(page)]);
        let ask = Ask {
            body: ask.body.replace(
                ":7",
                &format!(":{}", subject.len() + subject.as_bytes()[0] as usize),
            ),
            ..ask
        };
        let (_, event) = granted().holds_for(&renewd, &ask);
        assert_eq!(event["subject"], subject);
    }
}

#[test]
fn a_page_of_another_site_gets_nowhere_with_it() {
    let renewd = start("token");
    for headers in [
        vec![],
        vec![origin("https://evil.example")],
        vec![origin("https://app.example.evil.example")],
        vec![origin("https://example.com.evil.example")],
        vec![origin("https://example.com:8443")],
        vec![origin("null")],
        vec![
            origin("https://example.com"),
            origin("https://evil.example"),
        ],
        vec!["Referer: https://example.com/".to_owned()],
    ] {
        let ask = with(&[vec![cookie("ada")], headers].concat());
        refused().holds_for(&renewd, &ask);
    }
}

#[test]
fn what_a_form_can_send_never_counts() {
    let renewd = start("token");
    for media_type in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data; boundary=x",
        "",
    ] {
        let ask = Ask {
            media_type: media_type.to_owned(),
            body: "channelName=live_show&uid=7&role=subscriber".to_owned(),
            ..with(&[cookie("ada"), origin("https://example.com")])
        };
        refused().holds_for(&renewd, &ask);
    }
}

#[test]
fn several_cookies_of_the_name_are_refused() {
    let renewd = start("token");
    let page = origin("https://example.com");
    let (ada, eve) = (login("ada"), login("eve"));
    for cookies in [
        vec![format!("Cookie: token={ada}; token={eve}")],
        vec![format!("Cookie: token={ada}; token={ada}")],
        vec![
            format!("Cookie: token={ada}"),
            format!("Cookie: token={eve}"),
        ],
    ] {
        refused().holds_for(&renewd, &with(&[cookies, vec![page.clone()]].concat()));
    }
}

#[test]
fn authorization_wins_whatever_is_in_it() {
    let renewd = start("token");
    let ask = with(&[cookie("ada"), origin("https://example.com")]);
    for value in ["Bearer nonsense", "Bearer", "Basic YTpi"] {
        let ask = Ask {
            authorization: value.to_owned(),
            ..ask.clone()
        };
        refused().holds_for(&renewd, &ask);
    }
    let ask = ask.bearer(&login("bob"));
    let (_, event) = granted().holds_for(&renewd, &ask);
    assert_eq!(event["subject"], "bob");
}

#[test]
fn a_cookie_is_nothing_unless_it_is_configured() {
    let renewd = start("");
    let ask = with(&[cookie("ada"), origin("https://example.com")]);
    refused().holds_for(&renewd, &ask);
    let renewd = start("session");
    refused().holds_for(&renewd, &ask);
}

#[test]
fn the_backend_is_asked_about_an_account_with_the_cookie_that_it_knows() {
    let accounts = Scripted::start();
    accounts.answer(200, "");
    let sources = format!(
        "[accounts]\nsource = \"http\"\nurl = \"{}\"\n\n[streams]\nsource = \"file\"\nfile = \"streams.toml\"\n\n",
        accounts.url("/me")
    );
    let renewd = Renewd::start(&Settings {
        sources: Some(sources),
        tables: "[auth]\ncookie = \"token\"\n".to_owned(),
        ..Settings::default()
    });
    let token = login("ada");
    let cookies = format!("Cookie: theme=dark; token={token}");
    granted().holds_for(&renewd, &with(&[cookies, origin("https://example.com")]));
    let question = accounts.asked()[0].head.join("\n");
    let sent = format!("cookie: token={}", token.to_lowercase());
    assert!(question.contains(&sent), "{question}");
    assert!(!question.contains("theme"), "only the login: {question}");
}
