//! HTTP/1.1 as bytes, towards clients and backends alike (RFC 9112).
//!
//! | file | what |
//! |---|---|
//! | [`parse_request`], [`parse_response`] | a head that is read, and what it says of its body and the connection |
//! | [`write_request`], [`write_response`] | a head that is sent |
//! | `field_lines` | fields of both kinds of heads |
//! | [`decode`], [`encode`] | the framing of a body that is read, and of one that is sent |
//! | [`input`], [`output`] | bytes that were read and not parsed yet; bytes that wait to be written |
//!
//! hyper would do the same with twice the instructions: it talks to its connection over channels, as if to another
//! thread, and copies every head through a map of its own. The tokenizer is hyper's own, `httparse`.
//!
//! Keeps true: a message whose end is in doubt is an error, never a guess; nothing grows without a limit.
//! Must not know: pools, connections, what a message means.

pub(crate) mod decode;
pub(crate) mod encode;
mod field_lines;
pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod parse_request;
pub(crate) mod parse_response;
pub(crate) mod write_request;
pub(crate) mod write_response;

/// The other side sent bytes that aren't HTTP, or that can't be framed again without guessing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::decode::NextPart;
    use super::parse_request::{HeadLimits, begun, take_head};

    /// A request's target and body, and how it is framed.
    #[derive(Clone, Debug)]
    struct Sent {
        target: String,
        body: Vec<u8>,
        chunks: Option<usize>,
    }

    impl Sent {
        fn bytes(&self) -> Vec<u8> {
            let mut bytes = format!("POST {} HTTP/1.1\r\nHost: x\r\n", self.target).into_bytes();
            let Some(size) = self.chunks else {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).bytes());
                bytes.extend(&self.body);
                return bytes;
            };
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in self.body.chunks(size) {
                bytes.extend(format!("{:X};ext=\"1\"\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\nX-Sum: 1\r\n\r\n");
            bytes
        }
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let body = prop_oneof![
            vec(any::<u8>(), 0..100),
            Just(b"\r\nGET / HTTP/1.1\r\n\r\n".to_vec())
        ];
        ("/[a-z]{0,5}", body, proptest::option::of(1..20_usize)).prop_map(
            |(target, body, chunks)| Sent {
                target,
                body,
                chunks,
            },
        )
    }

    /// The requests that are read out of pieces as the pieces come.
    fn read(pieces: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let limits = HeadLimits {
            bytes: 1000,
            fields: 100,
        };
        let (mut input, mut known) = (BytesMut::new(), 0);
        let mut decoder = None;
        let mut read = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                let Some(current) = &mut decoder else {
                    if !begun(&mut input) {
                        break;
                    }
                    let head = take_head(&mut input, known, limits);
                    let Some(head) = head.unwrap() else {
                        known = input.len();
                        break;
                    };
                    known = 0;
                    decoder = Some(head.decoder);
                    read.push((head.parts.uri.to_string(), Vec::new()));
                    continue;
                };
                match current.next(&mut input).unwrap() {
                    NextPart::Data(data) => read.last_mut().unwrap().1.extend(data),
                    NextPart::Trailers(_) | NextPart::End => decoder = None,
                    NextPart::Starved => break,
                }
            }
        }
        assert!(decoder.is_none() && input.is_empty());
        read
    }

    proptest! {
        #[test]
        fn requests_behind_each_other_are_told_apart_however_they_are_cut(
            requests in vec(sent(), 1..5),
            cuts in vec(0..2000_usize, 0..10),
        ) {
            let bytes: Vec<u8> = requests.iter().flat_map(Sent::bytes).collect();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            let expected: Vec<_> = requests
                .into_iter()
                .map(|request| (request.target, request.body))
                .collect();
            prop_assert_eq!(read(&pieces), expected);
        }
    }
}
