//! The logins of engine.io's polling sessions that replicas share, sealed.
//!
//! Keeps true: one round trip puts logins and gives all that the session has; a session has at most [`MOST_FIELDS`] and
//! [`MOST_BYTES`], and is forgotten a while after its last use; a session that nobody has begun is never made. All keys
//! have one hash tag.
//! Must not know: what is sealed, whose the session is.

use std::time::Duration;

use redis::Value;

use super::link::Script;
use super::{NoStore, Store, hexadecimal};
use crate::logins::login_seals::SealedLogin;

/// The most logins of one session: the handshake's, and those of the namespaces that a replica keeps.
const MOST_FIELDS: usize = 17;

/// The most bytes of one session. Further logins are known to the replica alone that heard them.
const MOST_BYTES: usize = 64 * 1024;

impl Store {
    /// Puts logins, and gives those that the session has, for `kept` from now on; `None` where there is no such session,
    /// and `may_begin` doesn't make one.
    pub(crate) async fn exchange_socket_logins(
        &self,
        name: &[u8; 32],
        may_begin: bool,
        kept: Duration,
        put: &[SealedLogin],
    ) -> Result<Option<Vec<SealedLogin>>, NoStore> {
        let prefix = self.config.prefix.as_str();
        let asking = self.ask(async |link| {
            let mut command = link.command(Script::SocketLogins, 1);
            command
                .arg(key(prefix, name))
                .arg(u8::from(may_begin))
                .arg(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX))
                .arg(MOST_FIELDS)
                .arg(MOST_BYTES);
            for login in put {
                command.arg(&login.field[..]).arg(&login.bytes[..]);
            }
            link.run(&command, Script::SocketLogins).await
        });
        match asking.await? {
            Value::Nil => Ok(None),
            Value::Array(held) => logins(held).map(Some).ok_or(NoStore),
            _ => Err(NoStore),
        }
    }
}

fn key(prefix: &str, name: &[u8; 32]) -> String {
    format!("{prefix}{{shared}}:socket-logins:{}", hexadecimal(name))
}

/// The fields and values in the script's answer; `None` where it is malformed.
fn logins(held: Vec<Value>) -> Option<Vec<SealedLogin>> {
    let mut held = held.into_iter();
    let mut logins = Vec::new();
    while let Some(field) = held.next() {
        let (Value::BulkString(field), Value::BulkString(bytes)) = (field, held.next()?) else {
            return None;
        };
        logins.push(SealedLogin { field, bytes });
    }
    Some(logins)
}
