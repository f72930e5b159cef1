//! `[agora.rest]`: how users are removed from channels.
//!
//! Keeps true: the secret never travels over a network in clear text.

use super::source_tables::url_of;
use crate::config::credentials::{SecretLookup, SecretReader};
use crate::config::model::AgoraRest;
use crate::config::raw::RawTable;
use crate::http::url::Url;

const BASE_URL: &str = "https://api.agora.io";
const CONSOLE_HINT: &str = "Agora's console shows both under RESTful API";

/// `None` where nothing of it is written.
pub(super) fn agora_rest(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Option<AgoraRest> {
    let customer_id = customer_id(table);
    let found = secrets.read(table, "customer_secret");
    let base_url = base_url(table);
    let is_absent = matches!(found, SecretLookup::Absent);
    let is_named = table.item("customer_id").is_some();
    if is_absent && !is_named {
        // The address alone is a mistake; nothing at all is none.
        if table.item("base_url").is_some() {
            table.missing("customer_id", CONSOLE_HINT);
        }
        return None;
    }
    if !is_named {
        table.missing("customer_id", CONSOLE_HINT);
    }
    if is_absent {
        table.missing(
            "customer_secret",
            "customer_secret = \"credential:agora_customer_secret\", \"env:NAME\", or customer_secret_file",
        );
    }
    let SecretLookup::Secret(customer_secret, _) = found else {
        return None;
    };
    Some(AgoraRest {
        customer_id: customer_id?,
        customer_secret,
        base_url: base_url?,
    })
}

fn customer_id(table: &RawTable<'_>) -> Option<String> {
    let item = table.item("customer_id")?;
    let text = item.text()?;
    // RFC 7617 §2: a colon would end the user name.
    if text.is_empty()
        || text.contains(|character: char| character == ':' || character.is_control())
    {
        item.error(
            "empty, or with a colon or a control character in it",
            CONSOLE_HINT,
        );
        return None;
    }
    Some(text.to_owned())
}

fn base_url(table: &RawTable<'_>) -> Option<Url> {
    let Some(item) = table.item("base_url") else {
        return Url::parse(BASE_URL).ok();
    };
    let url = url_of(&item, BASE_URL)?;
    if url.uri().query().is_some() {
        item.error(
            "a URL with a query",
            format!("write a URL such as \"{BASE_URL}\""),
        );
        return None;
    }
    if !url.is_secure() && !url.is_loopback() {
        item.error(
            "over http:// the network could read the customer secret",
            "write an https:// URL; http:// is for this machine alone",
        );
        return None;
    }
    Some(url)
}
