//! Fields of a head, for requests and responses alike: found in the head's bytes and taken out uncopied.
//!
//! Keeps true: a field's value shares the memory of its head.
//! Must not know: what a field means.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::request_fields::{FieldSpan, Range};

/// Nearly every head has fewer fields. They are found without an allocation.
pub(super) const USUAL_FIELDS: usize = 32;

/// The spans of a field that was found in `input`.
pub(super) fn span_of(field: &httparse::Header<'_>, input: &[u8]) -> FieldSpan {
    FieldSpan {
        name: Range::of(field.name.as_bytes(), input),
        value: Range::of(field.value, input),
    }
}

/// The field, taken from the same bytes; `None` if it isn't valid after all.
pub(super) fn take_field(span: &FieldSpan, head: &Bytes) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = span.parts(head)?;
    let name = HeaderName::from_bytes(name).ok()?;
    let value = head.slice_ref(value);
    Some((name, HeaderValue::from_maybe_shared(value).ok()?))
}

/// Whether the bytes after the first `known` can have ended the head. Without this, a slow head is parsed over and
/// over.
pub(super) fn may_be_complete(input: &[u8], known: usize) -> bool {
    let news = input.get(known.saturating_sub(3)..).unwrap_or_default();
    news.windows(2).any(|pair| pair == b"\n\n") || news.windows(3).any(|triple| triple == b"\n\r\n")
}

/// How many bytes of empty lines are in front of a head. They mean nothing (RFC 9112 §2.2). A CR without LF is no
/// line's end, and is left for the parser to refuse.
pub(super) fn blank(input: &[u8]) -> usize {
    let mut rest = input;
    while let [b'\r', b'\n', behind @ ..] | [b'\n', behind @ ..] = rest {
        rest = behind;
    }
    input.len() - rest.len()
}

/// Puts a field's name in lower case. Letters are changed eight at a time, which takes a fraction of the time that a loop
/// over single letters takes.
pub(super) fn make_lowercase(name: &mut [u8]) {
    for eight in name.as_chunks_mut::<8>().0 {
        eight.make_ascii_lowercase();
    }
    // The last eight may have been changed in part, which does no harm.
    match name.last_chunk_mut::<8>() {
        Some(eight) => eight.make_ascii_lowercase(),
        None => name.make_ascii_lowercase(),
    }
}

/// Turns a later version than `HTTP/1.1` into that one, and says whether it was later. A recipient handles a higher
/// minor version as the highest that it knows (RFC 9110 §2.5, §6.2), and httparse refuses it
/// (<https://github.com/seanmonstar/httparse/issues/150>).
pub(super) fn lower_version(version: &mut [u8]) -> bool {
    if let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor @ b'2'..=b'9',
        ..,
    ] = version
    {
        *minor = b'1';
        return true;
    }
    false
}

/// The elements of a comma-separated list, trimmed.
pub(super) fn elements(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a comma-separated list has this element, in any letter case.
pub(super) fn lists(value: &[u8], wanted: &[u8]) -> bool {
    elements(value).any(|element| element.eq_ignore_ascii_case(wanted))
}

/// A length as RFC 9110 §8.6 writes it: digits and nothing else.
pub(super) fn length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// The fields in their order without those of one name; `HeaderMap::remove` would change the order.
pub(super) fn without(headers: HeaderMap, unwanted: &HeaderName) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut current = None;
    for (name, value) in headers {
        if name.is_some() {
            current = name;
        }
        if let Some(name) = &current
            && name != unwanted
        {
            kept.append(name.clone(), value);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_are_put_in_lower_case() {
        let text = b"Sec-WebSocket-Extensions_AZ@[`{";
        for length in 0..=text.len() {
            let mut name = text[..length].to_vec();
            make_lowercase(&mut name);
            assert_eq!(name, text[..length].to_ascii_lowercase());
        }
    }
}
