//! A token request's body, collected up to its limit. It can be put back where the backend answers after all.
//!
//! Keeps true: whatever was read is put back, trailers included.
//! Must not know: what the body says.

use std::io;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::exchange::response_body::RequestBody;

/// The contract's limit for a token request: 16 KiB.
const LIMIT: usize = 16 * 1024;

/// The result of reading the content.
#[derive(Debug)]
pub(crate) enum Collected {
    /// The whole body, and the trailers behind it.
    Whole(Bytes, HeaderMap),
    /// The body is larger than the limit; this much was read.
    TooLarge(Bytes),
    /// The client went away, or the body's framing is broken.
    Broken(io::Error),
}

/// Reads the body up to the limit. Trailers decide nothing, but the backend may need them.
pub(crate) async fn collect(body: &mut RequestBody) -> Collected {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > LIMIT {
        return Collected::TooLarge(Bytes::new());
    }
    let mut collected = Chunks::default();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Err(error) => return Collected::Broken(error),
            Ok(frame) => match frame.into_data() {
                Ok(data) => collected.push(data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            },
        }
        if collected.len() > LIMIT {
            return Collected::TooLarge(collected.into_bytes());
        }
    }
    Collected::Whole(collected.into_bytes(), trailers)
}

impl Collected {
    /// The bytes to decide on; `None` where there are too many.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(bytes, _) => Some(bytes),
            Self::TooLarge(_) | Self::Broken(_) => None,
        }
    }

    /// Puts back what was taken from the body.
    pub(crate) fn put_back(self, body: RequestBody) -> RequestBody {
        match self {
            Self::Whole(bytes, trailers) => body.replay(bytes).replay_trailers(trailers),
            Self::TooLarge(bytes) => body.replay(bytes),
            Self::Broken(_) => body,
        }
    }
}

/// The chunks read so far. Almost every token request is one frame: the first is kept as it is, and only a second
/// causes a copy.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    joined: BytesMut,
}

impl Chunks {
    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        let first = std::mem::take(&mut self.first);
        self.joined.extend_from_slice(&first);
        self.joined.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.joined.is_empty() {
            self.first
        } else {
            self.joined.freeze()
        }
    }
}
