//! Framing of a body that is read (RFC 9112 §6, §7.1).
//!
//! Keeps true: bytes pass uncopied; a chunk that doesn't end where it should is an error, and so is a byte in its
//! size's line that another reader might take for the line's end.
//! Must not know: where the bytes come from, or where they go.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Malformed;
use super::input::take_front;

/// The extensions of all chunks of one body together. They mean nothing, and reading them is work that a sender could
/// cause at no cost.
const MAX_EXTENSIONS: usize = 16 * 1024;

/// The size of all trailers together.
const MAX_TRAILERS: usize = 16 * 1024;

/// The number of trailers.
const MAX_TRAILER_FIELDS: usize = 64;

/// How the rest of a body is delimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// The body has ended.
    Over,
    /// This many bytes are left.
    Sized(u64),
    /// The body is chunked, with this many bytes of extensions so far.
    Chunked(Chunk, usize),
    /// The body goes on until the connection is closed.
    UntilClose,
}

/// The place of the next byte within a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Before a chunk's size.
    Size,
    /// This many bytes before the end of a chunk's data.
    Data(u64),
    /// At the line end after a chunk's data.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

/// The next part of a body.
#[derive(Debug)]
pub(crate) enum NextPart {
    Data(Bytes),
    /// Trailers are the last part.
    Trailers(HeaderMap),
    End,
    /// More input is needed.
    Starved,
}

impl Decoder {
    pub(crate) fn sized(length: u64) -> Self {
        match length {
            0 => Self::Over,
            length => Self::Sized(length),
        }
    }

    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunk::Size, 0)
    }

    /// Takes the next part from the front of `input`.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<NextPart, Malformed> {
        match self {
            Self::Over => Ok(NextPart::End),
            Self::UntilClose if input.is_empty() => Ok(NextPart::Starved),
            Self::UntilClose => Ok(NextPart::Data(input.split().freeze())),
            Self::Sized(rest) => {
                let Some(data) = take(rest, input) else {
                    return Ok(NextPart::Starved);
                };
                if *rest == 0 {
                    *self = Self::Over;
                }
                Ok(NextPart::Data(data))
            }
            Self::Chunked(chunk, extensions) => {
                let next = chunk.next(input, extensions)?;
                if matches!(next, NextPart::End | NextPart::Trailers(_)) {
                    *self = Self::Over;
                }
                Ok(next)
            }
        }
    }

    /// Reads the size of a first chunk that came with the head, so that the caller can refuse it before passing the
    /// head on.
    pub(crate) fn begin(&mut self, input: &mut BytesMut) -> Result<(), Malformed> {
        match self {
            Self::Chunked(chunk @ Chunk::Size, extensions) => {
                chunk.take_size(input, extensions).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// The number of bytes to come, if it is known.
    pub(crate) fn expected(&self) -> Option<u64> {
        match self {
            Self::Over => Some(0),
            Self::Sized(rest) => Some(*rest),
            Self::Chunked(..) | Self::UntilClose => None,
        }
    }
}

impl Chunk {
    fn next(
        &mut self,
        input: &mut BytesMut,
        extensions: &mut usize,
    ) -> Result<NextPart, Malformed> {
        loop {
            match self {
                Self::Size => {
                    if !self.take_size(input, extensions)? {
                        return Ok(NextPart::Starved);
                    }
                }
                Self::Data(rest) => {
                    let Some(data) = take(rest, input) else {
                        return Ok(NextPart::Starved);
                    };
                    if *rest == 0 {
                        *self = Self::DataEnd;
                        // Most chunks come with their line end, so that the next poll begins at the next size.
                        self.take_data_end(input)?;
                    }
                    return Ok(NextPart::Data(data));
                }
                Self::DataEnd => {
                    self.take_data_end(input)?;
                    if *self == Self::DataEnd {
                        return Ok(NextPart::Starved);
                    }
                }
                Self::Trailers => return take_trailers(input),
            }
        }
    }

    /// Takes the line of a size. Says whether it was complete.
    fn take_size(
        &mut self,
        input: &mut BytesMut,
        extensions: &mut usize,
    ) -> Result<bool, Malformed> {
        let size = take_size(input, extensions)?;
        match size {
            None => {}
            Some(0) => *self = Self::Trailers,
            Some(size) => *self = Self::Data(size),
        }
        Ok(size.is_some())
    }

    fn take_data_end(&mut self, input: &mut BytesMut) -> Result<(), Malformed> {
        match &input[..] {
            [b'\r', b'\n', ..] => {
                input.advance(2);
                *self = Self::Size;
                Ok(())
            }
            [] | [b'\r'] => Ok(()),
            _ => Err(Malformed("a chunk longer than its size")),
        }
    }
}

/// At most `rest` bytes; `None` where there are none.
fn take(rest: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    if input.is_empty() {
        return None;
    }
    let most = usize::try_from(*rest).unwrap_or(usize::MAX);
    let data = take_front(input, input.len().min(most)).freeze();
    *rest = rest.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
    Some(data)
}

/// `1*HEXDIG [chunk-ext] CRLF`; spaces and tabs before extensions are tolerated, as widely sent.
fn take_size(input: &mut BytesMut, extensions: &mut usize) -> Result<Option<u64>, Malformed> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() > MAX_EXTENSIONS {
            Err(Malformed("a chunk size without end"))
        } else {
            Ok(None)
        };
    };
    let line = input.split_to(end + 1);
    let line = line
        .strip_suffix(b"\r\n")
        .ok_or(Malformed("a chunk size that doesn't end as it should"))?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, rest) = line.split_at(digits.count());
    if !is_extension(rest) {
        return Err(Malformed("a chunk size that isn't one"));
    }
    *extensions += rest.len();
    if *extensions > MAX_EXTENSIONS {
        return Err(Malformed("chunks with too many extensions"));
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .map(Some)
        .ok_or(Malformed("a chunk size that isn't one"))
}

/// Whether this may follow a size: blanks, then nothing or text that begins with `;`. Of an extension's grammar only
/// the rules are checked whose breach a server could read as another end of the line: no control characters, no open
/// quotation.
fn is_extension(text: &[u8]) -> bool {
    let mut bytes = text.iter().skip_while(|byte| matches!(byte, b' ' | b'\t'));
    match bytes.next() {
        None => return true,
        Some(b';') => {}
        Some(_) => return false,
    }
    let (mut quoted, mut escaped) = (false, false);
    for byte in bytes {
        if byte.is_ascii_control() && *byte != b'\t' {
            return false;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

fn take_trailers(input: &mut BytesMut) -> Result<NextPart, Malformed> {
    if input.starts_with(b"\r\n") {
        input.advance(2);
        return Ok(NextPart::End);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let malformed = Malformed("trailers that can't be read");
    let Ok(parsed) = httparse::parse_headers(input, &mut fields) else {
        return Err(malformed);
    };
    let httparse::Status::Complete((length, fields)) = parsed else {
        return if input.len() > MAX_TRAILERS {
            Err(malformed)
        } else {
            Ok(NextPart::Starved)
        };
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(malformed);
        };
        trailers.append(name, value);
    }
    input.advance(length);
    Ok(NextPart::Trailers(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes pieces as they come: the body, its trailers, whether it ended, and what is left of the input.
    fn decode(
        mut decoder: Decoder,
        pieces: &[&[u8]],
    ) -> Result<(Vec<u8>, HeaderMap, bool, Vec<u8>), Malformed> {
        let mut input = BytesMut::new();
        let (mut body, mut trailers, mut ended) = (Vec::new(), HeaderMap::new(), false);
        for piece in pieces {
            input.extend_from_slice(piece);
            while !ended {
                match decoder.next(&mut input)? {
                    NextPart::Data(data) => {
                        assert!(!data.is_empty());
                        body.extend_from_slice(&data);
                    }
                    NextPart::Trailers(read) => (trailers, ended) = (read, true),
                    NextPart::End => ended = true,
                    NextPart::Starved => break,
                }
            }
        }
        Ok((body, trailers, ended, input.to_vec()))
    }

    #[test]
    fn a_chunked_body_comes_out_whole_however_it_is_cut() {
        let text =
            b"5\r\nhello\r\n1;name=\"v\"\r\n \r\n6 \t;x\r\nworld!\r\n0\r\nX-Sum: 1\r\n\r\nnext";
        for cut in 0..text.len() {
            let (first, second) = text.split_at(cut);
            let (body, trailers, ended, rest) =
                decode(Decoder::chunked(), &[first, second]).unwrap();
            assert_eq!(body, b"hello world!", "{cut}");
            assert_eq!(trailers["x-sum"], "1");
            assert!(ended);
            assert_eq!(rest, b"next");
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(
            decode(Decoder::chunked(), &single).unwrap().0,
            b"hello world!"
        );
    }

    #[test]
    fn a_sized_body_ends_at_its_length_and_leaves_the_rest() {
        let (body, _, ended, rest) = decode(Decoder::sized(5), &[b"he", b"llo!"]).unwrap();
        assert_eq!(
            (body, ended, rest),
            (b"hello".to_vec(), true, b"!".to_vec())
        );
        assert!(decode(Decoder::sized(0), &[b""]).unwrap().2);
        assert!(!decode(Decoder::sized(5), &[b"hell"]).unwrap().2);
    }

    #[test]
    fn a_first_chunk_that_came_with_its_head_is_looked_at_before_anything_is_passed_on() {
        for (text, fine) in [
            (&b""[..], true),
            (b"5", true),
            (b"5\r\nhel", true),
            (b"0\r\n\r\n", true),
            (b"5\r\r\nhello", false),
        ] {
            let mut decoder = Decoder::chunked();
            let mut input = BytesMut::from(text);
            assert_eq!(decoder.begin(&mut input).is_ok(), fine, "{text:?}");
            if fine {
                // The decoder loses no byte by this.
                let rest = b"5\r\nhello\r\n0\r\n\r\n".strip_prefix(text);
                let rest: &[u8] = rest.map_or(b"", |rest| rest);
                let read = decode(decoder, &[&input, rest]).unwrap();
                let body: &[u8] = if rest.is_empty() { b"" } else { b"hello" };
                assert_eq!((&read.0[..], read.2), (body, true), "{text:?}");
            }
        }
        let mut input = BytesMut::from("\r\r\n");
        assert!(Decoder::sized(3).begin(&mut input).is_ok());
        assert_eq!(input.len(), 3);
    }

    #[test]
    fn a_body_until_the_close_takes_everything() {
        let (body, _, ended, _) = decode(Decoder::UntilClose, &[b"a", b"", b"b"]).unwrap();
        assert_eq!((body, ended), (b"ab".to_vec(), false));
    }

    #[test]
    fn chunks_that_are_none_are_refused() {
        for text in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"5 5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloo\r\n",
            b"5\r\nhello\n",
            b"10000000000000000\r\n",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"5\x0c\r\nhello\r\n0\r\n\r\n",
            b"5\x0b;a\r\nhello\r\n0\r\n\r\n",
            b"5\r;x\r\nhello\r\n0\r\n\r\n",
            b"5 \r;x\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
            b"5;a\x7f\r\nhello\r\n0\r\n\r\n",
            b"5;a=\"b\r\nhello\r\n0\r\n\r\n",
            b"5;a=\"b\\\"\r\nhello\r\n0\r\n\r\n",
            b"5\xa0\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\r\n\r\n",
            b"5\r\nhello\r\n0;\x0c\r\n\r\n",
            b"0\r\nno field\r\n\r\n",
        ] {
            let printed = String::from_utf8_lossy(text);
            assert!(decode(Decoder::chunked(), &[text]).is_err(), "{printed:?}");
        }
        let endless = vec![b'1'; MAX_EXTENSIONS + 1];
        assert!(decode(Decoder::chunked(), &[&endless]).is_err());
        let most = MAX_EXTENSIONS / 8;
        let extended = "1;a=bcdef\r\na\r\n".repeat(most);
        assert!(decode(Decoder::chunked(), &[extended.as_bytes()]).is_ok());
        let extended = [&extended, "1;\r\n"].concat();
        assert!(decode(Decoder::chunked(), &[extended.as_bytes()]).is_err());
        let endless = [b"0\r\nx: ".as_slice(), &vec![b'a'; MAX_TRAILERS]].concat();
        assert!(decode(Decoder::chunked(), &[&endless]).is_err());
    }
}
