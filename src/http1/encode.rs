//! Framing of a body that is sent (RFC 9112 §6, §7.1).
//!
//! Keeps true: neither more nor less is sent than was announced.
//! Must not know: where the bytes come from, or where they go; which trailers may pass, which `http::hop` has decided.

use std::io::Write;

use bytes::Bytes;
use http::HeaderMap;

use super::output::Output;
use crate::http::hop::write_field;

/// How the rest of a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// The body has ended.
    Over,
    /// This many bytes are left.
    Sized(u64),
    /// The body is sent in chunks.
    Chunked,
    /// The end of the connection ends the body.
    UntilClose,
}

/// A body that is longer or shorter than announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherLength;

/// The bytes after a chunk's data.
const CHUNK_END: &[u8] = b"\r\n";

impl Encoder {
    /// `Sized`, or `Over` where the length is 0.
    pub(crate) fn sized(length: u64) -> Self {
        match length {
            0 => Self::Over,
            length => Self::Sized(length),
        }
    }

    /// Queues the next bytes of the body.
    pub(crate) fn push(&mut self, data: Bytes, output: &mut Output) -> Result<(), OtherLength> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::Over => return Err(OtherLength),
            Self::Sized(rest) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                *self = Self::sized(rest.checked_sub(length).ok_or(OtherLength)?);
                output.push(data, b"");
            }
            Self::Chunked => {
                write_chunk_size(data.len(), output.gathered());
                output.push(data, CHUNK_END);
            }
            Self::UntilClose => output.push(data, b""),
        }
        Ok(())
    }

    /// Ends the body. Trailers are sent where the body is chunked.
    pub(crate) fn end(
        &mut self,
        trailers: &HeaderMap,
        output: &mut Output,
    ) -> Result<(), OtherLength> {
        match self {
            Self::Sized(_) => return Err(OtherLength),
            Self::Chunked => write_last_chunk(trailers, output.gathered()),
            Self::Over | Self::UntilClose => {}
        }
        *self = Self::Over;
        Ok(())
    }
}

fn write_chunk_size(size: usize, out: &mut Vec<u8>) {
    // Writing to a vector can't fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// Appends the end of a chunked body with its trailers, whether `Trailer` announces them or not.
fn write_last_chunk(trailers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        write_field(name, value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(mut encoder: Encoder, data: &'static [u8]) -> Result<String, OtherLength> {
        let mut output = Output::default();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        trailers.insert("x-other", "2".parse().unwrap());
        encoder.push(Bytes::from_static(data), &mut output)?;
        if encoder != Encoder::Over {
            encoder.end(&trailers, &mut output)?;
        }
        assert_eq!(encoder, Encoder::Over);
        Ok(String::from_utf8(output.gathered().clone()).unwrap())
    }

    #[test]
    fn a_body_is_delimited_as_announced_and_trailers_follow_chunks() {
        let data = b"hello world and more";
        for (encoder, expected) in [
            (Encoder::Sized(20), "hello world and more"),
            (Encoder::UntilClose, "hello world and more"),
            (
                Encoder::Chunked,
                "14\r\nhello world and more\r\n0\r\nx-sum: 1\r\nx-other: 2\r\n\r\n",
            ),
        ] {
            assert_eq!(encoded(encoder, data).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_body_of_another_length_than_announced_is_an_error() {
        for encoder in [Encoder::Sized(4), Encoder::Sized(6), Encoder::Over] {
            assert_eq!(encoded(encoder, b"hello"), Err(OtherLength));
        }
    }
}
