//! Bodies in which no token could be seen, though their head doesn't say so: compressed, or with two bytes a
//! character.
//!
//! Must not know: what becomes of them.

/// How many first bytes tell.
const TELLING: usize = 4;

/// A body's first bytes, until there are enough.
#[derive(Debug, Default)]
pub(crate) struct Beginning(Vec<u8>);

impl Beginning {
    /// Takes the next bytes, and says why no token could be seen in the body. `None` otherwise, and while there are
    /// too few bytes.
    pub(crate) fn take(&mut self, data: &[u8]) -> Option<&'static str> {
        let missing = TELLING - self.0.len();
        if missing == 0 {
            return None;
        }
        self.0.extend(data.iter().take(missing));
        if self.0.len() < TELLING {
            return None;
        }
        unseen(&self.0)
    }
}

fn unseen(beginning: &[u8]) -> Option<&'static str> {
    match beginning {
        [0x1f, 0x8b, ..] => Some("the body is compressed by gzip, and its head doesn't say so"),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Some("the body is compressed by zstd, and its head doesn't say so")
        }
        // The header of a zlib stream (RFC 1950): the letter x, followed by a byte that no text has there.
        [0x78, 0x01 | 0x9c | 0xda, ..] => {
            Some("the body is compressed by deflate, and its head doesn't say so")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff] => Some(WIDE),
        // The beginning of JSON or HTML without a byte order mark.
        [first, 0, ..] | [0, first, ..] if b" \t\r\n\"[{<".contains(first) => Some(WIDE),
        [0, 0, 0, first] if b" \t\r\n\"[{<".contains(first) => Some(WIDE),
        _ => None,
    }
}

const WIDE: &str = "the body is written in UTF-16 or UTF-32, not in UTF-8";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(chunks: &[&[u8]]) -> Vec<&'static str> {
        let mut beginning = Beginning::default();
        let chunks = chunks.iter();
        chunks.filter_map(|chunk| beginning.take(chunk)).collect()
    }

    #[test]
    fn a_body_tells_once_wherever_it_is_cut() {
        let utf_16: Vec<u8> = "{\"a\":1}"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let bodies: [&[u8]; 8] = [
            b"\x1f\x8b\x08\x00\x00",
            b"\x28\xb5\x2f\xfd\x00",
            b"\x78\x9c\xab\x56",
            b"\xff\xfe{\x00\"\x00",
            b"\xfe\xff\x00{\x00\"",
            b"\x00[\x00\"",
            b"\x00\x00\x00{",
            &utf_16,
        ];
        for body in bodies {
            assert_eq!(told(&[body]).len(), 1, "{body:?}");
            for cut in 0..body.len() {
                let (before, after) = body.split_at(cut);
                assert_eq!(
                    told(&[before, after, b"\x1f\x8b\x08\x00"]).len(),
                    1,
                    "{body:?}"
                );
            }
        }
    }

    #[test]
    fn text_and_other_bytes_say_nothing() {
        let bodies: [&[u8]; 7] = [
            b"",
            b"{}",
            b"{\"a\":1}",
            b"xyz1",
            b"\x89PNG",
            b"\x00\x00\x01\x00",
            b"\xef\xbb\xbf{\"",
        ];
        for body in bodies {
            assert!(told(&[body]).is_empty(), "{body:?}");
        }
    }
}
