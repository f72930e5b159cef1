//! `[mongodb]`: the connection string, as the Node app has it.
//!
//! Keeps true: the driver takes what is kept; an option that means nothing here is left out with a warning, any other that is
//! refused is an error. No part of the string is ever shown: it holds a password.

use mongodb::options::ConnectionString;

use super::{POSITIVE_DURATION, seconds};
use crate::config::credentials::{Found, Secrets};
use crate::config::model::Mongodb;
use crate::config::raw::Table;
use crate::config::secret::Secret;

/// Options that mean nothing here, of mongoose, of Node's drivers old and new, and of writes: how sockets are kept, how
/// Node parses, what mongoose does, which secondary is asked. Lower case. What guards a connection isn't among them.
const WITHOUT_MEANING: [&str; 51] = [
    "autocreate",
    "autoindex",
    "autoreconnect",
    "autoselectfamily",
    "autoselectfamilyattempttimeout",
    "bsonregexp",
    "buffercommands",
    "buffermaxentries",
    "checkkeys",
    "compressors",
    "connectwithnoprimary",
    "domainsenabled",
    "enableutf8validation",
    "family",
    "fieldsasraw",
    "forceserverobjectid",
    "fsync",
    "ha",
    "hainterval",
    "ignoreundefined",
    "j",
    "keepalive",
    "keepaliveinitialdelay",
    "lookup",
    "maxstalenessseconds",
    "maxtimems",
    "minheartbeatfrequencyms",
    "monitorcommands",
    "nodelay",
    "poolsize",
    "promotebuffers",
    "promotelongs",
    "promotevalues",
    "raw",
    "readpreferencetags",
    "reconnectinterval",
    "reconnecttries",
    "serializefunctions",
    "sockettimeoutms",
    "strictquery",
    "timeoutms",
    "usebigint64",
    "usecreateindex",
    "usefindandmodify",
    "usenewurlparser",
    "useunifiedtopology",
    "uuidrepresentation",
    "validateoptions",
    "waitqueuemultiple",
    "wtimeout",
    "zlibcompressionlevel",
];

/// What mongoose uses where a connection string names no database.
const MONGOOSE_DATABASE: &str = "test";

const URI_HINT: &str = "uri = \"env:MONGODB_URI\", \"credential:NAME\", or uri_file: the connection string of the Node app";

pub(super) fn mongodb(table: &Table<'_>, wanted: bool, secrets: &Secrets<'_>) -> Option<Mongodb> {
    let timeout = table.duration("timeout", POSITIVE_DURATION, seconds(2));
    let database = table.text("database", "");
    let (secret, item) = match secrets.read(table, "uri") {
        Found::Secret(secret, item) => (secret, item),
        Found::Unknown => return None,
        Found::Absent => {
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
    let (text, dropped) = without_node_options(text.trim());
    if !dropped.is_empty() {
        item.warning(
            format!(
                "left out, as only Node's driver knows it: {}",
                dropped.join(", ")
            ),
            "nothing to do: nothing of it matters here",
        );
    }
    let parsed = match ConnectionString::parse(text.as_str()) {
        Ok(parsed) => parsed,
        Err(error) => {
            item.error(refusal(&text, &error), URI_HINT);
            return None;
        }
    };
    let named = parsed.default_database.filter(|name| !name.is_empty());
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

/// The connection string without what means nothing here, and the names of what that was.
fn without_node_options(text: &str) -> (String, Vec<&str>) {
    let Some((address, query)) = text.split_once('?') else {
        return (text.to_owned(), Vec::new());
    };
    let (dropped, kept): (Vec<&str>, Vec<&str>) = query
        .split('&')
        .partition(|option| is_without_meaning(option));
    let names = dropped.iter().filter_map(|option| option.split('=').next());
    let names = names.collect();
    if kept.is_empty() {
        (address.to_owned(), names)
    } else {
        (format!("{address}?{}", kept.join("&")), names)
    }
}

fn is_without_meaning(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default();
    // What Node calls its own choice of mechanism is ours without the option.
    option.eq_ignore_ascii_case("authMechanism=DEFAULT")
        || WITHOUT_MEANING
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
}

/// What is wrong, in words that quote nothing but an option's name.
fn refusal(text: &str, error: &mongodb::error::Error) -> String {
    let options = text.split_once('?').map_or("", |(_, query)| query);
    for pair in options.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        let plain = name
            .chars()
            .all(|character| character.is_ascii_alphanumeric());
        if plain && ConnectionString::parse(format!("mongodb://localhost/?{pair}")).is_err() {
            return format!("the driver doesn't take the option `{name}` as it is written");
        }
    }
    let scheme = ["mongodb://", "mongodb+srv://"];
    if !scheme.iter().any(|scheme| text.starts_with(scheme)) {
        return "not a MongoDB connection string: it begins with mongodb:// or mongodb+srv://"
            .to_owned();
    }
    let said = error.kind.to_string();
    // The driver's words may quote the string: they are shown only where they can't hold its secret.
    let credentials = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .map(|(credentials, _)| credentials);
    let leaks = credentials.is_some_and(|credentials| {
        credentials
            .split(':')
            .any(|part| !part.is_empty() && said.contains(part))
    });
    if leaks {
        "not a connection string that the driver takes".to_owned()
    } else {
        format!("not a connection string that the driver takes: {said}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_node_takes_is_left_out() {
        for (written, kept, dropped) in [
            ("mongodb://h/db", "mongodb://h/db", 0),
            (
                "mongodb://h/db?useNewUrlParser=true&useUnifiedTopology=true",
                "mongodb://h/db",
                2,
            ),
            (
                "mongodb+srv://u:p@h/db?retryWrites=true&w=majority&socketTimeoutMS=45000&family=4",
                "mongodb+srv://u:p@h/db?retryWrites=true&w=majority",
                2,
            ),
            (
                "mongodb://h/?authMechanism=DEFAULT&tlsInsecure=true&j=true",
                "mongodb://h/?tlsInsecure=true",
                2,
            ),
        ] {
            let (text, names) = without_node_options(written);
            assert_eq!((text.as_str(), names.len()), (kept, dropped));
        }
    }

    #[test]
    fn a_refusal_shows_no_password() {
        for text in [
            "mongodb://user:hunter2@host:notaport/db",
            "mongodb://user:hunter2@/db",
            "mongodb://user:hunter2@host/db?tls=perhaps",
            "postgres://user:hunter2@host/db",
        ] {
            let error = ConnectionString::parse(text).unwrap_err();
            let shown = refusal(text, &error);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
