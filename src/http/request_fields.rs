//! A request's fields, however they are kept: as the lines of the head that they came in, or in a map. And the lines of
//! any head, to be copied.
//!
//! Keeps true: names are in lower case, and fields of one name are in their order. Lines are what the client sent, so
//! that a request that is only passed on needs no map; a map is made where fields are changed or a decision is made.
//! Must not know: what a field means.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// A part of a head, from and to. Heads are shorter than 4 GiB, and a head has dozens of parts, so that they should
/// be small.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Range(u32, u32);

impl Range {
    /// The range of a part of `input`.
    pub(crate) fn of(part: &[u8], input: &[u8]) -> Self {
        let from = part.as_ptr().addr() - input.as_ptr().addr();
        let place = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
        Self(place(from), place(from + part.len()))
    }

    /// The range as indices.
    pub(crate) fn indices(self) -> std::ops::Range<usize> {
        let index = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        index(self.0)..index(self.1)
    }
}

/// The ranges of a field's name and value in a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FieldSpan {
    pub(crate) name: Range,
    pub(crate) value: Range,
}

impl FieldSpan {
    /// The name and the value.
    pub(crate) fn parts<'a>(&self, head: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let name = head.get(self.name.indices())?;
        Some((name, head.get(self.value.indices())?))
    }

    /// The whole line, where it is written as renewd writes lines: `name: value` and CRLF.
    fn plain_line(&self, head: &[u8]) -> Option<std::ops::Range<usize>> {
        let (name, value) = (self.name.indices(), self.value.indices());
        let is_plain = head.get(name.end..value.start) == Some(b": ")
            && head.get(value.end..value.end + 2) == Some(b"\r\n");
        is_plain.then(|| name.start..value.end + 2)
    }
}

/// The fields as lines of a head.
#[derive(Clone, Debug)]
pub struct FieldLines {
    head: Bytes,
    spans: Box<[FieldSpan]>,
    names: FieldNames,
}

/// The names among some fields, so that most names that aren't there are not looked for, and no second line of most
/// that are there once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FieldNames {
    /// A bit for each name.
    seen: u64,
    /// The bits that stand for more than one field.
    repeated: u64,
    /// A bit for each first byte.
    first: u64,
}

impl FieldNames {
    /// The bit of a name. Its length and its last letter tell most names apart.
    fn bit(name: &[u8]) -> u64 {
        let last = name.last().copied().unwrap_or_default();
        1 << ((name.len() + usize::from(last) * 5) % 64)
    }

    fn first_bit(byte: u8) -> u64 {
        1 << (byte % 64)
    }

    /// Notes the name of a field.
    pub(crate) fn note(&mut self, name: &[u8]) {
        let bit = Self::bit(name);
        self.repeated |= self.seen & bit;
        self.seen |= bit;
        let first = name.first().copied().unwrap_or_default();
        self.first |= Self::first_bit(first);
    }

    /// The most fields of this name that there may be.
    fn most(&self, name: &[u8]) -> usize {
        let bit = Self::bit(name);
        match (self.seen & bit, self.repeated & bit) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => usize::MAX,
        }
    }
}

impl FieldLines {
    /// The most fields that a map can hold (`MAX_SIZE` of http 1.5, less the quarter that it keeps free).
    pub(crate) const MOST: usize = 24_000;

    /// Lines whose names are in lower case and noted in `names`, and whose parts are known to be valid: at most
    /// [`FieldLines::MOST`].
    pub(crate) fn new(head: Bytes, spans: Box<[FieldSpan]>, names: FieldNames) -> Self {
        Self { head, spans, names }
    }

    /// The fields in a map.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.spans.len());
        for span in &self.spans {
            let Some((name, value)) = span.parts(&self.head) else {
                continue;
            };
            let value = HeaderValue::from_maybe_shared(self.head.slice_ref(value));
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
                map.append(name, value);
            }
        }
        map
    }
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestField<'a> {
    /// In lower case.
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The place in the head, where there is one.
    span: Option<FieldSpan>,
}

impl<'a> RequestField<'a> {
    fn of_line(head: &'a [u8], span: FieldSpan) -> Option<Self> {
        let (name, value) = span.parts(head)?;
        Some(Self {
            name,
            value,
            span: Some(span),
        })
    }

    fn of_map((name, value): (&'a HeaderName, &'a HeaderValue)) -> Self {
        Self {
            name: name.as_str().as_bytes(),
            value: value.as_bytes(),
            span: None,
        }
    }
}

/// A request's fields.
#[derive(Clone, Copy, Debug)]
pub enum RequestFields<'a> {
    /// As they came.
    Lines(&'a FieldLines),
    /// In a map.
    Map(&'a HeaderMap),
}

impl<'a> From<&'a HeaderMap> for RequestFields<'a> {
    fn from(map: &'a HeaderMap) -> Self {
        Self::Map(map)
    }
}

impl<'a> RequestFields<'a> {
    /// All fields. Those of one name are neighbours in a map, and where the client put them in lines.
    pub(crate) fn iter(self) -> FieldIter<'a> {
        match self {
            Self::Lines(lines) => FieldIter::Lines(&lines.head, lines.spans.iter()),
            Self::Map(map) => FieldIter::Map(map.iter()),
        }
    }

    /// The values of this name, in their order.
    pub(crate) fn all(self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str().as_bytes();
        let most = match self {
            Self::Lines(lines) => lines.names.most(name),
            Self::Map(_) => usize::MAX,
        };
        let named = self.iter().filter(move |field| field.name == name);
        named.map(|field| field.value).take(most)
    }

    /// Whether there may be a field whose name begins with this byte.
    pub(crate) fn may_begin_with(self, byte: u8) -> bool {
        match self {
            Self::Lines(lines) => lines.names.first & FieldNames::first_bit(byte) != 0,
            Self::Map(_) => true,
        }
    }

    /// The first value of this name.
    pub(crate) fn first(self, name: &HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Lines(_) => self.all(name).next(),
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// Whether there is a field of this name.
    pub(crate) fn contains(self, name: &HeaderName) -> bool {
        self.first(name).is_some()
    }

    /// The first value of this name, to be kept.
    pub(crate) fn value(self, name: &HeaderName) -> Option<HeaderValue> {
        match self {
            Self::Lines(lines) => {
                let value = lines.head.slice_ref(self.first(name)?);
                HeaderValue::from_maybe_shared(value).ok()
            }
            Self::Map(map) => map.get(name).cloned(),
        }
    }

    /// The bytes that a field's place counts from.
    pub(crate) fn head(self) -> &'a [u8] {
        match self {
            Self::Lines(lines) => &lines.head,
            Self::Map(_) => &[],
        }
    }
}

/// The fields one after the other.
#[derive(Debug)]
pub(crate) enum FieldIter<'a> {
    Lines(&'a [u8], std::slice::Iter<'a, FieldSpan>),
    Map(header::Iter<'a, HeaderValue>),
}

impl<'a> Iterator for FieldIter<'a> {
    type Item = RequestField<'a>;

    fn next(&mut self) -> Option<RequestField<'a>> {
        match self {
            Self::Lines(head, spans) => spans
                .next()
                .and_then(|span| RequestField::of_line(head, *span)),
            Self::Map(fields) => fields.next().map(RequestField::of_map),
        }
    }

    /// Asks once for all fields how they are kept.
    fn fold<B, F: FnMut(B, RequestField<'a>) -> B>(self, init: B, fold: F) -> B {
        match self {
            Self::Lines(head, spans) => {
                let fields = spans.filter_map(|span| RequestField::of_line(head, *span));
                fields.fold(init, fold)
            }
            Self::Map(fields) => fields.map(RequestField::of_map).fold(init, fold),
        }
    }
}

/// Writes fields that stay as they are. Neighbouring lines are copied at once.
#[derive(Debug)]
pub(crate) struct LineCopier<'a> {
    head: &'a [u8],
    /// The lines of the head that wait to be copied.
    run: std::ops::Range<usize>,
    out: &'a mut Vec<u8>,
}

impl<'a> LineCopier<'a> {
    /// A copier of lines of `head`.
    pub(crate) fn new(head: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        Self {
            head,
            run: 0..0,
            out,
        }
    }

    /// Writes a field as it is.
    pub(crate) fn copy(&mut self, field: RequestField<'_>) {
        match field.span {
            Some(span) => self.copy_line(span, field.name, field.value),
            None => write_line(field.name, field.value, self.out()),
        }
    }

    /// Writes the field whose parts are at this place in the head.
    pub(crate) fn copy_line(&mut self, span: FieldSpan, name: &[u8], value: &[u8]) {
        match span.plain_line(self.head) {
            Some(line) if line.start == self.run.end => self.run.end = line.end,
            Some(line) => {
                self.out();
                self.run = line;
            }
            None => write_line(name, value, self.out()),
        }
    }

    /// The place for whatever else is written after the fields so far.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        let run = std::mem::take(&mut self.run);
        self.out
            .extend_from_slice(self.head.get(run).unwrap_or_default());
        self.out
    }
}

/// Writes one field's line.
pub(crate) fn write_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a head in lower case, found without a parser.
    fn lines(head: &'static str) -> FieldLines {
        let bytes = Bytes::from_static(head.as_bytes());
        let mut names = FieldNames::default();
        let spans = head.split_inclusive('\n').map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            names.note(name.as_bytes());
            FieldSpan {
                name: Range::of(name.as_bytes(), head.as_bytes()),
                value: Range::of(value.trim().as_bytes(), head.as_bytes()),
            }
        });
        let spans = spans.collect();
        FieldLines::new(bytes, spans, names)
    }

    fn copied(fields: RequestFields<'_>, keep: impl Fn(&[u8]) -> bool) -> String {
        let mut out = b"> ".to_vec();
        let mut writer = LineCopier::new(fields.head(), &mut out);
        for field in fields.iter().filter(|field| keep(field.name)) {
            writer.copy(field);
        }
        writer.out().extend_from_slice(b"<");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_and_maps_answer_alike() {
        let lines = lines("cookie: a\r\nhost: x\r\ncookie: b\r\n");
        let map = lines.to_map();
        for fields in [RequestFields::Lines(&lines), RequestFields::Map(&map)] {
            let cookies: Vec<_> = fields.all(&header::COOKIE).collect();
            assert_eq!(cookies, [b"a", b"b"]);
            assert_eq!(fields.value(&header::HOST).unwrap(), "x");
            assert_eq!(fields.first(&header::COOKIE).unwrap(), b"a");
            assert!(!fields.contains(&header::ACCEPT));
            assert_eq!(fields.iter().count(), 3);
            assert_eq!(fields.all(&header::HOST).count(), 1);
            assert!(fields.may_begin_with(b'h'));
        }
    }

    #[test]
    fn lines_are_copied_as_they_would_be_written_one_by_one() {
        // The third has no space, the fourth two, the sixth no CR, the seventh has a space behind its value.
        let head = "a: 1\r\nb: 2\r\nc:3\r\nd:  4\r\ne: 5\r\nf: 6\ng: 7 \nh: 8\r\ni: \r\n";
        let lines = lines(head);
        let map = lines.to_map();
        let all = "abcdefghi";
        for left_out in 0..=all.len() {
            let keep = |name: &[u8]| all.as_bytes().get(left_out) != name.first();
            let written = copied(RequestFields::Lines(&lines), keep);
            assert_eq!(written, copied(RequestFields::Map(&map), keep));
            assert!(written.ends_with("i: \r\n<") || left_out == 8, "{written}");
        }
    }
}
