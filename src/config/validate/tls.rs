//! `[server.tls]`: the server's certificate, and the authorities of client certificates.
//!
//! Keeps true: a certificate that doesn't fit its key is refused here, so that a reload in the middle of a renewal
//! leaves the former pair in force.

use crate::config::credentials::SecretReader;
use crate::config::model::ServerTls;
use crate::config::raw::{RawItem, RawTable};
use crate::io::tls::{IdentityError, ServerIdentity};

const CERTIFICATE_HINT: &str =
    "a PEM file: the server's certificate, then those between it and the root";
const KEY_HINT: &str = "a PEM file with the private key of the certificate, not encrypted";
const CA_HINT: &str = "a PEM file with the certificates of the authorities, or \"\" for any client";

/// `None` where nothing is asked for, or where what is asked for is reported as an error.
pub(super) fn tls(table: &RawTable<'_>, secrets: &SecretReader<'_>) -> Option<ServerTls> {
    let certificate = table.item("certificate_file").filter(is_named);
    let key = table.secret("private_key_file").filter(is_named);
    let client_ca = table.item("client_ca_file").filter(is_named);
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(item), None) => {
            item.error("there is no private key", "set private_key_file too");
            return None;
        }
        (None, key) => {
            if let Some(item) = key.as_ref().or(client_ca.as_ref()) {
                item.error("there is no certificate", "set certificate_file too");
            }
            return None;
        }
    };
    if let Some(text) = key.if_text()
        && secrets
            .environment
            .world_readable(&secrets.resolve(text))
            .is_some_and(|readable| readable)
    {
        key.error(
            "every user can read this file",
            "chmod 0640 it, and chgrp it to the daemon's group",
        );
    }
    for item in [&certificate, &key].into_iter().chain(&client_ca) {
        secrets.warn_of_writers(item);
    }
    let contents = (
        secrets.named_file(&certificate),
        secrets.named_file(&key),
        client_ca.as_ref().map(|item| secrets.named_file(item)),
    );
    let tls = ServerTls {
        certificate: contents.0?,
        private_key: contents.1?,
        client_ca: match contents.2 {
            Some(content) => Some(content?),
            None => None,
        },
    };
    match ServerIdentity::new(&tls) {
        Ok(_) => Some(tls),
        Err(refused) => {
            let (item, hint) = match (&refused, &client_ca) {
                (IdentityError::ClientCa(_), Some(item)) => (item, CA_HINT),
                (IdentityError::Key(_), _) => (&key, KEY_HINT),
                _ => (&certificate, CERTIFICATE_HINT),
            };
            item.error(refused.to_string(), hint);
            None
        }
    }
}

/// Whether a file is named: `""` is none.
fn is_named(item: &RawItem<'_>) -> bool {
    item.text() != Some("")
}
