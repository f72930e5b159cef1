//! HTTP/1.1 as it is spoken to a backend, as pure functions on bytes.
//!
//! | file | what |
//! |---|---|
//! | [`request`] | the head and the framing that are sent |
//! | [`response`] | the head that is read, and what it says of the body |
//! | [`body`] | a response's body taken out of its framing |
//!
//! hyper's client would do, and takes twice the instructions of all this: it talks to its connection over channels, as
//! if to another thread, and wants header maps built anew for both directions. Requests of clients are read by hyper.
//!
//! Keeps true: a message whose end is in doubt is an error, never a guess; nothing grows without a limit.
//! Must not know: sockets, pools, what a message means.

pub(super) mod body;
pub(super) mod request;
pub(super) mod response;

/// The backend sent what isn't HTTP, or can't be framed again without guessing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// The elements of a comma-separated list, trimmed.
fn elements(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// A length as RFC 9110 §8.6 writes it: digits and nothing else.
fn length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}
