//! `[mongodb]`: the connection string, as the Node app has it.
//!
//! Keeps true: the driver takes the string that is kept; an option without meaning for this driver is left out with a
//! warning, any other that is refused is an error. No part of the string is ever shown, since it holds a password.

use std::path::Path;

use super::connection_string::{self, AcceptedString};
use super::{POSITIVE_DURATION, Strictness, seconds};
use crate::config::credentials::{SecretLookup, SecretReader};
use crate::config::model::Mongodb;
use crate::config::raw::{RawItem, RawTable};
use crate::config::secret::Secret;

/// The database that mongoose uses where a connection string names none.
const MONGOOSE_DATABASE: &str = "test";

/// The option whose file holds a secret.
const CLIENT_KEY: &str = "tlsCertificateKeyFile";

const URI_HINT: &str = "uri = \"env:MONGODB_URI\", \"credential:NAME\", or uri_file: the connection string of the Node app";

pub(super) fn mongodb(
    table: &RawTable<'_>,
    wanted: bool,
    secrets: &SecretReader<'_>,
) -> Option<Mongodb> {
    let timeout = table.duration("timeout", POSITIVE_DURATION, seconds(2));
    let database = table.text("database", "");
    let (secret, item) = match secrets.read(table, "uri") {
        SecretLookup::Secret(secret, item) => (secret, item),
        SecretLookup::Unknown => return None,
        SecretLookup::Absent => {
            if wanted {
                table.missing("uri", URI_HINT);
            }
            return None;
        }
    };
    item.hide();
    let Ok(text) = std::str::from_utf8(secret.expose()) else {
        item.error("not a MongoDB connection string", URI_HINT);
        return None;
    };
    let read = connection_string::read(text.trim(), |path| secrets.resolve(path));
    let AcceptedString {
        text,
        dropped,
        database: named,
        files,
    } = match read {
        Ok(kept) => kept,
        Err(refusal) => {
            item.error(refusal.message, refusal.hint);
            return None;
        }
    };
    if !dropped.is_empty() {
        item.warning(
            format!(
                "left out, as only Node's driver knows it: {}",
                dropped.join(", ")
            ),
            "nothing to do: nothing of it matters here",
        );
    }
    for (option, path) in files {
        look_into(&item, option, &path, secrets);
    }
    let database = if database.is_empty() {
        named.unwrap_or_else(|| MONGOOSE_DATABASE.to_owned())
    } else {
        database
    };
    Some(Mongodb {
        uri: Secret::new(text.into_bytes()),
        database,
        timeout,
    })
}

/// Checks a file that the driver reads only when it makes a client, long after the start.
fn look_into(item: &RawItem<'_>, option: &str, path: &Path, secrets: &SecretReader<'_>) {
    secrets.files.borrow_mut().push(path.to_path_buf());
    let shown = path.display();
    let environment = secrets.environment;
    let read = option == CLIENT_KEY && environment.world_readable(path) == Some(true);
    let written = environment.world_writable(path) == Some(true);
    if secrets.strictness == Strictness::Check && (read || written) {
        let verb = if written { "write" } else { "read" };
        item.warning(
            format!("`{option}` names {shown}, which every user can {verb}"),
            "chmod 0640 it, and chgrp it to the daemon's group",
        );
    }
    let content = match environment.read(path) {
        Ok(content) => content,
        Err(error) => {
            item.error(
                format!("`{option}` names {shown}, which can't be read: {error}"),
                "name a file that the daemon's user may read; a relative path starts at the configuration's directory",
            );
            return;
        }
    };
    let holds = |what: &[u8]| content.windows(what.len()).any(|window| window == what);
    if !holds(b"-----BEGIN CERTIFICATE-----") {
        item.error(
            format!("`{option}` names {shown}, which holds no certificate"),
            "write the certificates in PEM, between BEGIN CERTIFICATE and END CERTIFICATE",
        );
    } else if option == CLIENT_KEY && holds(b"ENCRYPTED") {
        item.error(
            format!("`{option}` names {shown}, whose key is encrypted"),
            "write the key without a passphrase (openssl pkey) into a file that only the daemon's user may read",
        );
    } else if option == CLIENT_KEY && !holds(b"PRIVATE KEY-----") {
        item.error(
            format!("`{option}` names {shown}, which holds no key"),
            "write the client's certificate and its key into it, both in PEM",
        );
    }
}
