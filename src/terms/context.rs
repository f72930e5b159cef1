//! The known facts of one request while it is served. `server::service` makes it and hands it down as `&`.
//!
//! Must not know: how anything is decided.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;

/// One request's identity.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// `x-request-id`: drawn by renewd, or sent by a trusted peer.
    pub id: RequestId,
    /// When its header section was complete, on the clock's monotonic scale.
    pub started: Duration,
    /// The connection's peer; `None` on a unix socket.
    pub peer: Option<IpAddr>,
    /// The client: the peer, or the address that trusted proxies report; `None` on a unix socket without a trusted
    /// proxy.
    pub client_ip: Option<IpAddr>,
}

/// 1 to 64 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(IdText);

#[derive(Clone, Debug, PartialEq, Eq)]
enum IdText {
    /// Every id of this length, for most requests have one that renewd drew.
    InPlace([u8; 32]),
    Other(HeaderValue),
}

impl RequestId {
    /// 128 bits as 32 hexadecimal digits.
    pub fn from_bits(high: u64, low: u64) -> Self {
        Self::counted(hexadecimal(high), low)
    }

    /// The same, where the digits of the higher half are known.
    pub(crate) fn counted(prefix: [u8; 16], low: u64) -> Self {
        let mut text = [0; 32];
        let (high, lower) = text.split_at_mut(16);
        high.copy_from_slice(&prefix);
        lower.copy_from_slice(&hexadecimal(low));
        Self(IdText::InPlace(text))
    }

    /// A peer's id, if it is 1 to 64 visible ASCII characters.
    pub(crate) fn from_peer(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let acceptable = (1..=64).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        acceptable.then(|| Self::of(value.clone()))
    }

    /// The id again that [`RequestId::as_str`] gave.
    pub(crate) fn again(text: &str) -> Self {
        Self::of(HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-")))
    }

    fn of(value: HeaderValue) -> Self {
        Self(match value.as_bytes().try_into() {
            Ok(text) => IdText::InPlace(text),
            Err(_) => IdText::Other(value),
        })
    }

    /// For an `x-request-id` line that is written at once.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            IdText::InPlace(text) => text,
            IdText::Other(value) => value.as_bytes(),
        }
    }

    /// For the `x-request-id` header of a map.
    pub(crate) fn header(&self) -> HeaderValue {
        match &self.0 {
            IdText::InPlace(text) => {
                let value = HeaderValue::from_bytes(text);
                value.unwrap_or_else(|_| HeaderValue::from_static("-"))
            }
            IdText::Other(value) => value.clone(),
        }
    }

    /// For logs.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("-")
    }
}

/// The digits of a number. Arithmetic, unlike a table, lets the compiler convert all of them at once.
pub(crate) fn hexadecimal(number: u64) -> [u8; 16] {
    let digit = |number: u8| number + if number < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; 16];
    for (pair, byte) in digits
        .as_chunks_mut()
        .0
        .iter_mut()
        .zip(number.to_be_bytes())
    {
        *pair = [byte >> 4, byte & 0xf].map(digit);
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_bits_in_hexadecimal() {
        let id = RequestId::from_bits(0x0123_4567_89ab_cdef, 0xf);
        assert_eq!(id.as_str(), "0123456789abcdef000000000000000f");
        assert_eq!(RequestId::again(id.as_str()), id);
        assert_eq!(RequestId::from_peer(&id.header()).unwrap(), id);
    }
}
