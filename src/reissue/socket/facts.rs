//! What a handshake said and all messages of its socket are judged with, packed: there may be very many sockets.
//!
//! Keeps true: what is packed comes out as it was.
//! Must not know: which of it counts, and for what.

use std::net::IpAddr;

use http::Uri;

use crate::terms::context::{RequestContext, RequestId};

/// In place of its length: the id is the digits of a number, as those that renewd draws, and is packed as that.
const NUMBER: u8 = 0;

/// A handshake's id, its client's address, and its target.
pub(super) struct HandshakeFacts {
    /// First the lengths of id and address, then all three.
    packed: Box<[u8]>,
}

impl HandshakeFacts {
    pub(super) fn of(context: &RequestContext, uri: &Uri) -> Self {
        let id = context.id.as_str();
        let number = number(id).map(u128::to_be_bytes);
        let digits = number.as_ref().map(|number| &number[..]);
        let (v4, v6);
        let address: &[u8] = match context.client_ip {
            None => &[],
            Some(IpAddr::V4(address)) => {
                v4 = address.octets();
                &v4
            }
            Some(IpAddr::V6(address)) => {
                v6 = address.octets();
                &v6
            }
        };
        let lengths = [
            digits.map_or_else(|| byte(id.len()), |_| NUMBER),
            byte(address.len()),
        ];
        let id = digits.unwrap_or(id.as_bytes());
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        Self {
            packed: [&lengths, id, address, target.as_bytes()].concat().into(),
        }
    }

    pub(super) fn id(&self) -> RequestId {
        let [id, ..] = self.parts();
        match id.try_into().ok().filter(|_| self.is_number()) {
            Some(number) => from_number(u128::from_be_bytes(number)),
            None => RequestId::again(std::str::from_utf8(id).unwrap_or("-")),
        }
    }

    /// `None` on a unix socket without a trusted proxy.
    pub(super) fn client(&self) -> Option<IpAddr> {
        let [_, address, _] = self.parts();
        let short: Option<[u8; 4]> = address.try_into().ok();
        let long: Option<[u8; 16]> = address.try_into().ok();
        short.map(IpAddr::from).or(long.map(IpAddr::from))
    }

    /// Path and query.
    pub(super) fn target(&self) -> &str {
        let [.., target] = self.parts();
        std::str::from_utf8(target).unwrap_or_default()
    }

    fn is_number(&self) -> bool {
        self.packed.first() == Some(&NUMBER)
    }

    /// The id, the address and the target.
    fn parts(&self) -> [&[u8]; 3] {
        let Some(([id, address], packed)) = self.packed.split_first_chunk() else {
            return [&[]; 3];
        };
        let id = if self.is_number() {
            size_of::<u128>()
        } else {
            usize::from(*id)
        };
        let (id, rest) = split(packed, id);
        let (address, target) = split(rest, usize::from(*address));
        [id, address, target]
    }
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(at).unwrap_or((bytes, &[]))
}

/// An id has at most 64 characters, and an address fewer.
fn byte(length: usize) -> u8 {
    u8::try_from(length).unwrap_or_default()
}

/// The number that an id is the digits of, exactly as renewd writes them.
fn number(text: &str) -> Option<u128> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (from_number(number).as_str() == text).then_some(number)
}

fn from_number(number: u128) -> RequestId {
    // Both halves, which is all of it.
    let [high, low] = [number >> 64, number & u128::from(u64::MAX)];
    RequestId::from_bits(
        u64::try_from(high).unwrap_or_default(),
        u64::try_from(low).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let long = "x".repeat(64);
        for id in [
            "0123456789abcdef000000000000000f",
            "0123456789ABCDEF000000000000000F",
            "+123456789abcdef000000000000000f",
            "0123456789abcdef",
            "0e1b4f5c-7d0e-4f6e-9a54-0a1f3f8f7e2d",
            "-",
            &long,
        ] {
            for client in [None, Some("192.0.2.7"), Some("2001:db8::7")] {
                for target in ["/socket.io/?EIO=4&transport=websocket", "/socket"] {
                    let client_ip = client.map(|address| address.parse().unwrap());
                    let context = RequestContext {
                        id: RequestId::from_peer(&HeaderValue::from_str(id).unwrap()).unwrap(),
                        started: Duration::ZERO,
                        peer: None,
                        client_ip,
                    };
                    let facts = HandshakeFacts::of(&context, &target.parse().unwrap());
                    assert_eq!(facts.id(), context.id);
                    assert_eq!(facts.client(), client_ip, "{id}");
                    assert_eq!(facts.target(), target, "{id}");
                }
            }
        }
    }

    #[test]
    fn an_id_that_renewd_drew_takes_half_as_many_bytes() {
        let context = RequestContext {
            id: RequestId::from_bits(7, 8),
            started: Duration::ZERO,
            peer: None,
            client_ip: None,
        };
        let facts = HandshakeFacts::of(&context, &"/".parse().unwrap());
        assert_eq!(facts.packed.len(), 2 + 16 + 1);
    }
}
