//! The fields of a backend's response as the bytes that are sent to the client, where renewd needs none of them: in
//! the backend's order and letter case, without building a map.
//!
//! Keeps true: each line is a valid field, and no field contradicts the framing of the body.
//! Must not know: which fields are sent to the client.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The lines, each with its line end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawFieldLines {
    text: Vec<u8>,
    length: Option<u64>,
    event_stream: bool,
}

impl RawFieldLines {
    /// No fields yet, with room for this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Appends a field whose parts are known to be valid.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b": ", value, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
        if name.len() == CONTENT_TYPE.len() && name.eq_ignore_ascii_case(CONTENT_TYPE) {
            self.event_stream = is_event_stream(value);
        }
    }

    /// Appends a `Content-Length`, as it was written.
    pub(crate) fn push_length(&mut self, name: &[u8], value: &[u8], length: u64) {
        self.push(name, value);
        self.length = Some(length);
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

const CONTENT_TYPE: &[u8] = b"content-type";

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
        let mut lines = RawFieldLines::with_capacity(0);
        lines.push(b"Set-Cookie", b"a=b: c");
        lines.push_length(b"Content-Length", b"05", 5);
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
            let mut lines = RawFieldLines::default();
            lines.push(b"Content-Type", value.as_bytes());
            assert_eq!(lines.event_stream(), expected, "{value}");
        }
    }
}
