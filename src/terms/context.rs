//! The known facts of one request while it is served. `server::service` makes it and hands it down as `&`.
//!
//! Must not know: how anything is decided.

use std::net::IpAddr;
use std::time::Duration;

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
pub struct RequestId(http::HeaderValue);

impl RequestId {
    /// 128 bits as 32 hexadecimal digits.
    pub fn from_bits(high: u64, low: u64) -> Self {
        let mut text = [0; 32];
        let bits = [high.to_be_bytes(), low.to_be_bytes()];
        for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(bits.as_flattened()) {
            *pair = [byte >> 4, byte & 0xf].map(hexadecimal);
        }
        Self(
            http::HeaderValue::from_bytes(&text)
                .unwrap_or_else(|_| http::HeaderValue::from_static("-")),
        )
    }

    /// A peer's id, if it is 1 to 64 visible ASCII characters.
    pub(crate) fn from_peer(value: &http::HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let acceptable = (1..=64).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        acceptable.then(|| Self(value.clone()))
    }

    /// For the `x-request-id` header of what is written at once.
    pub(crate) fn value(&self) -> &http::HeaderValue {
        &self.0
    }

    /// For the `x-request-id` header.
    pub(crate) fn header(&self) -> http::HeaderValue {
        self.0.clone()
    }

    /// For logs.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }
}

/// The digit of a number below 16. Arithmetic, unlike a table, lets the compiler convert all digits at once.
fn hexadecimal(number: u8) -> u8 {
    number + if number < 10 { b'0' } else { b'a' - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_bits_in_hexadecimal() {
        let id = RequestId::from_bits(0x0123_4567_89ab_cdef, 0xf);
        assert_eq!(id.as_str(), "0123456789abcdef000000000000000f");
    }
}
