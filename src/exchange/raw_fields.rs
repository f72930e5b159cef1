//! The fields of a backend's response as the bytes that are sent to the client, where renewd needs none of them: in
//! the backend's order and letter case, without building a map.
//!
//! Keeps true: each line is a valid field, and no field contradicts the framing of the body.
//! Must not know: which fields are sent to the client.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::request_fields::write_line;

/// The lines, each with its line end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawFieldLines {
    text: Vec<u8>,
    length: Option<u64>,
    event_stream: bool,
}

impl RawFieldLines {
    /// Lines whose fields are known to be valid; `length` is that of `Content-Length`, if it is among them, and
    /// `event_stream` says whether `Content-Type` is `text/event-stream`.
    pub(crate) fn new(text: Vec<u8>, length: Option<u64>, event_stream: bool) -> Self {
        Self {
            text,
            length,
            event_stream,
        }
    }

    /// Appends a field whose parts are known to be valid, other than those two.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        write_line(name, value, &mut self.text);
    }

    /// The lines as they are sent.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The value of `Content-Length`, if it is among the fields.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether `Content-Type` is `text/event-stream`.
    pub(crate) fn event_stream(&self) -> bool {
        self.event_stream
    }

    /// The fields in a map, for code that reads them.
    pub(crate) fn into_map(self) -> HeaderMap {
        let lines = self.text.split(|byte| *byte == b'\n');
        let fields = lines.filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let end = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(end);
            let name = HeaderName::from_bytes(name).ok()?;
            Some((name, HeaderValue::from_bytes(value.get(2..)?).ok()?))
        });
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    }
}

/// Whether this value of `Content-Type` is that of server-sent events.
pub(crate) fn is_event_stream(content_type: &[u8]) -> bool {
    let name = b"text/event-stream";
    content_type
        .get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_is_sent_and_what_a_map_is_made_of() {
        let text = b"Set-Cookie: a=b: c\r\nContent-Length: 05\r\n".to_vec();
        let mut lines = RawFieldLines::new(text, Some(5), false);
        lines.push(b"set-cookie", b"");
        assert_eq!(lines.length(), Some(5));
        assert_eq!(
            lines.as_bytes(),
            b"Set-Cookie: a=b: c\r\nContent-Length: 05\r\nset-cookie: \r\n"
        );
        let map = lines.into_map();
        let cookies: Vec<_> = map.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=b: c", ""]);
        assert_eq!(map["content-length"], "05");
    }

    #[test]
    fn event_streams_are_told_by_their_type() {
        for (value, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("text/html", false),
        ] {
            assert_eq!(is_event_stream(value.as_bytes()), expected, "{value}");
        }
    }
}
