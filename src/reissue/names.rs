//! The channel and user that a 006 token doesn't contain: they are looked for in the text around it, and in the
//! request.
//!
//! Keeps true: the search is bounded, whatever the body; a name is only a candidate, the token's signature decides.
//! Must not know: how tokens are made.

use std::borrow::Cow;

use bytes::Bytes;

use crate::agora::charset::ACCOUNT_BYTES;
use crate::agora::parse::INFLATED_LIMIT;

/// How far around a token its channel's name is looked for, in bytes each way. In the app's answers, both are members
/// of the same object.
pub(crate) const NEARBY: usize = 16 * 1024;

const _: () = assert!(
    NEARBY < INFLATED_LIMIT,
    "little beside what a token may take"
);

/// The last bytes that were passed on.
#[derive(Debug, Default)]
pub(crate) struct Before(Vec<u8>);

impl Before {
    /// Takes bytes that were passed on.
    pub(crate) fn push(&mut self, text: &[u8]) {
        let tail = text
            .get(text.len().saturating_sub(NEARBY)..)
            .unwrap_or(text);
        let surplus = (self.0.len() + tail.len()).saturating_sub(2 * NEARBY);
        // The buffer is moved seldom, not with every push.
        if surplus > 0 {
            let keep = NEARBY.saturating_sub(tail.len());
            let from = self.0.len().saturating_sub(keep);
            self.0.drain(..from);
        }
        self.0.extend_from_slice(tail);
    }

    /// The last byte.
    pub(crate) fn last(&self) -> Option<u8> {
        self.0.last().copied()
    }

    fn nearby(&self) -> &[u8] {
        let from = self.0.len().saturating_sub(NEARBY);
        self.0.get(from..).unwrap_or_default()
    }
}

/// Every string in the text before, in what follows (as far as it counts), and in the request's target.
pub(crate) fn candidates<'f>(
    before: &Before,
    following: impl Iterator<Item = &'f Bytes>,
    target: &str,
) -> Vec<String> {
    let mut around = before.nearby().to_vec();
    let end = around.len() + NEARBY;
    for text in following {
        let room = end - around.len();
        around.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
    }
    let mut names = in_target(target);
    names.extend(quoted(&around).filter_map(name));
    names
}

/// The text between each two quotes: every string, and what lies between strings, which never is a name.
fn quoted(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quotes = memchr::memchr_iter(b'"', text);
    let mut last = quotes.next();
    std::iter::from_fn(move || {
        let quote = quotes.next()?;
        let start = last.replace(quote)? + 1;
        text.get(start..quote)
    })
}

/// The text of a JSON string, if it is short enough for a name.
fn name(written: &[u8]) -> Option<String> {
    // The longest spelling of a character that names may have is `\u003c`.
    if written.len() > ACCOUNT_BYTES * 6 {
        return None;
    }
    if !written.contains(&b'\\') {
        return String::from_utf8(written.to_vec()).ok();
    }
    let quoted = [b"\"", written, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// Path segments and query values, decoded.
fn in_target(target: &str) -> Vec<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    // The form decoder takes `+` for a space, where a path means a plus.
    let decoded = segments.flat_map(|segment| {
        let plain = segment.replace('+', "%2B");
        let pairs = form_urlencoded::parse(plain.as_bytes()).map(|(key, _)| key.into_owned());
        pairs.collect::<Vec<_>>()
    });
    let values = form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value);
    decoded.chain(values.map(Cow::into_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(before: &[&str], following: &[&'static str], target: &str) -> Vec<String> {
        let mut window = Before::default();
        for text in before {
            window.push(text.as_bytes());
        }
        let following: Vec<Bytes> = following.iter().copied().map(Bytes::from).collect();
        candidates(&window, following.iter(), target)
    }

    #[test]
    fn strings_on_either_side_are_candidates() {
        let names = found(
            &["{\"a\":\"li", "ve_1\","],
            &["\"b\":\"x\\u003c", "y\"}"],
            "",
        );
        for name in ["a", "live_1", "b", "x<y"] {
            assert!(names.contains(&name.to_owned()), "{name} {names:?}");
        }
    }

    #[test]
    fn the_request_names_channels_too() {
        let names = found(&[], &[], "/api/live%5F1/a+b?channel=live+2&x");
        for name in ["live_1", "a+b", "live 2"] {
            assert!(names.contains(&name.to_owned()), "{name} {names:?}");
        }
    }

    #[test]
    fn only_what_is_nearby_counts_however_it_came() {
        let far = "x".repeat(NEARBY);
        let near = "x".repeat(NEARBY - 20);
        assert!(!found(&["\"far\"", &far], &[], "").contains(&"far".to_owned()));
        assert!(found(&["\"far\"", &near], &[], "").contains(&"far".to_owned()));
        let mut bytes = vec!["\"far\""];
        bytes.extend(std::iter::repeat_n("x", NEARBY));
        assert!(!found(&bytes, &[], "").contains(&"far".to_owned()));
        let mut window = Before::default();
        for _ in 0..10 {
            window.push(near.as_bytes());
            assert!(window.0.len() <= 2 * NEARBY);
        }
        let after = [Bytes::from(far), Bytes::from_static(b"\"far\"")];
        let names = candidates(&Before::default(), after.iter(), "");
        assert!(names.is_empty(), "{names:?}");
    }
}
