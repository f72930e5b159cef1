//! Packets of engine.io and socket.io, as far as they say whose they are.
//!
//! Keeps true: what isn't such a packet has no namespace and no login; nothing here costs more than the text's length.
//! Must not know: transports, who verifies a login.
//!
//! Sources: engine.io protocol 3 and 4, socket.io protocol 4 and 5 (<https://socket.io/docs/v4/socket-io-protocol/>).

use serde::Deserialize;

/// How much of a packet's beginning tells its namespace.
pub(crate) const OPENING: usize = 256;

/// The namespace that a packet without one belongs to.
pub(crate) const MAIN: &str = "/";

/// A client's `CONNECT`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConnectPacket {
    pub namespace: Box<str>,
    /// `auth.token`, without the scheme `Bearer` if it has it.
    pub token: Option<Box<str>>,
}

/// The member of a `CONNECT`'s payload that is read.
#[derive(Deserialize)]
struct ConnectPayload {
    token: Option<String>,
}

/// As much of a packet's beginning as tells its namespace.
pub(crate) fn opening(packet: &[u8]) -> &[u8] {
    packet.get(..OPENING).unwrap_or(packet)
}

/// The namespace of a message that begins with these bytes: `/` where it names none.
pub(crate) fn namespace(opening: &[u8]) -> &str {
    let Some([kind, rest @ ..]) = opening.strip_prefix(b"4") else {
        return MAIN;
    };
    let rest = match kind {
        // Binary events begin with the number of their attachments.
        b'5' | b'6' => match counted(rest) {
            Some((_, rest)) => rest,
            None => return MAIN,
        },
        b'0'..=b'4' => rest,
        _ => return MAIN,
    };
    named(rest).0
}

/// How many attachments a message announces that begins with these bytes.
pub(crate) fn attachments(opening: &[u8]) -> usize {
    match opening {
        [b'4', b'5' | b'6', rest @ ..] => counted(rest).map_or(0, |(count, _)| count),
        _ => 0,
    }
}

/// The number of attachments, and what follows it.
fn counted(rest: &[u8]) -> Option<(usize, &[u8])> {
    let dash = memchr::memchr(b'-', rest)?;
    let digits = rest.get(..dash)?;
    let mut count: usize = 0;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        count = count.saturating_mul(10).saturating_add(digit);
    }
    Some((count, rest.get(dash + 1..)?))
}

/// The namespace at the beginning of the rest of a packet, and what follows it.
fn named(rest: &[u8]) -> (&str, &[u8]) {
    if rest.first() != Some(&b'/') {
        return (MAIN, rest);
    }
    let end = memchr::memchr(b',', rest);
    let (name, rest) = match end {
        Some(end) => (
            rest.get(..end).unwrap_or(rest),
            rest.get(end + 1..).unwrap_or_default(),
        ),
        None => (rest, &b""[..]),
    };
    // Clients of socket.io 2 append their query.
    let name = name.split(|byte| *byte == b'?').next().unwrap_or(name);
    (std::str::from_utf8(name).unwrap_or(MAIN), rest)
}

/// Whether a message that begins so may be a `CONNECT`; as many bytes as there are count.
pub(crate) fn may_connect(opening: &[u8]) -> bool {
    b"40".starts_with(opening) || opening.starts_with(b"40")
}

/// Reads a client's message as `CONNECT`.
pub(crate) fn connect(message: &[u8]) -> Option<ConnectPacket> {
    let (namespace, payload) = named(message.strip_prefix(b"40")?);
    let payload: Option<ConnectPayload> = serde_json::from_slice(payload).ok();
    let token = payload.and_then(|payload| payload.token).map(|token| {
        let scheme = token
            .get(..7)
            .filter(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        let token = scheme.map_or(&*token, |_| token.get(7..).unwrap_or_default());
        token.trim().into()
    });
    Some(ConnectPacket {
        namespace: namespace.into(),
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_socket_io_tells_its_namespace() {
        for (message, expected) in [
            ("42[\"call:token\",{}]", "/"),
            ("42/admin,[\"x\"]", "/admin"),
            ("42/admin,12[\"x\"]", "/admin"),
            ("43/admin,12[\"x\"]", "/admin"),
            (
                "451-/admin,[\"x\",{\"_placeholder\":true,\"num\":0}]",
                "/admin",
            ),
            ("451-[\"x\"]", "/"),
            ("462-/a,7[]", "/a"),
            ("40/chat?token=x,", "/chat"),
            ("41/chat", "/chat"),
            ("0{\"sid\":\"x\"}", "/"),
            ("3probe", "/"),
            ("{\"token\":\"x\"}", "/"),
            ("", "/"),
            ("4", "/"),
        ] {
            assert_eq!(namespace(message.as_bytes()), expected, "{message}");
        }
    }

    #[test]
    fn a_binary_event_tells_how_many_attachments_follow() {
        for (message, expected) in [
            ("451-[\"x\",{\"_placeholder\":true,\"num\":0}]", 1),
            ("4512-/admin,[\"x\"]", 12),
            ("462-/a,7[]", 2),
            ("45-[]", 0),
            ("45x-[]", 0),
            ("451", 0),
            ("45", 0),
            ("42[\"1-\"]", 0),
            ("51-[]", 0),
            ("", 0),
        ] {
            assert_eq!(attachments(message.as_bytes()), expected, "{message}");
        }
        let many = format!("45{}-", "9".repeat(99));
        assert_eq!(attachments(many.as_bytes()), usize::MAX);
    }

    #[test]
    fn a_connect_tells_its_namespace_and_its_token() {
        for (message, namespace, token) in [
            ("40", "/", None),
            ("40{\"token\":\"a.b.c\"}", "/", Some("a.b.c")),
            ("40{\"token\":\"Bearer a.b.c\",\"x\":1}", "/", Some("a.b.c")),
            ("40/ns,{\"token\":\"a.b.c\"}", "/ns", Some("a.b.c")),
            ("40/ns,", "/ns", None),
            ("40/ns", "/ns", None),
            ("40{\"token\":7}", "/", None),
            ("40{\"token\":\"a", "/", None),
        ] {
            let read = connect(message.as_bytes()).unwrap();
            assert_eq!(
                (&*read.namespace, read.token.as_deref()),
                (namespace, token),
                "{message}"
            );
        }
        for message in ["42[\"x\"]", "2probe", "4", ""] {
            assert_eq!(connect(message.as_bytes()), None);
        }
        for opening in ["", "4", "40", "40{"] {
            assert!(may_connect(opening.as_bytes()));
        }
        for opening in ["2", "42", "3"] {
            assert!(!may_connect(opening.as_bytes()));
        }
    }
}
