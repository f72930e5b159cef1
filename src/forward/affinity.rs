//! The key by which a request's server is chosen, where a client has to stay on one server: socket.io's polling, say.
//!
//! Must not know: the servers, what is known of them, what a cookie means.

use std::net::IpAddr;

use super::servers::{Preference, fingerprint};
use crate::config::model::Affinity;
use crate::http::request_fields::RequestFields;
use crate::logins::jwt;

/// The key of a request that comes from `client`; `None` where any server will do.
///
/// A request without the cookie has its address's key, and so has one with several such cookies. Clients whose address
/// isn't known share one key.
pub(super) fn preference(
    affinity: &Affinity,
    fields: RequestFields<'_>,
    client: Option<IpAddr>,
) -> Option<Preference> {
    let key = match affinity {
        Affinity::Off => return None,
        Affinity::Address => of_address(client),
        Affinity::Cookie(name) => match jwt::cookie(fields, name) {
            Ok(value) => fingerprint(value.as_bytes()),
            Err(_) => of_address(client),
        },
    };
    Some(Preference::Key(key))
}

/// One key for an IPv6 /64, since a client may use any address within its network.
fn of_address(client: Option<IpAddr>) -> u64 {
    match client.map(|address| address.to_canonical()) {
        None => fingerprint(b""),
        Some(IpAddr::V4(address)) => fingerprint(&address.octets()),
        Some(IpAddr::V6(address)) => {
            let [network @ .., _, _, _, _, _, _, _, _] = address.octets();
            fingerprint(&network)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn key(affinity: &Affinity, cookies: &'static str, client: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        if !cookies.is_empty() {
            headers.append(COOKIE, HeaderValue::from_static(cookies));
        }
        let client = client.map(|address| address.parse().unwrap());
        match preference(affinity, (&headers).into(), client)? {
            Preference::Key(key) => Some(key),
            Preference::Turn(_) => panic!("a turn"),
        }
    }

    #[test]
    fn clients_that_belong_together_have_one_key() {
        let cookie = Affinity::Cookie("sid".to_owned());
        let one = Some("192.0.2.1");
        let by_address = key(&Affinity::Address, "sid=a", one);
        // Each row has the affinity, the cookies, the address, and whether the request belongs where 192.0.2.1 does.
        for (affinity, cookies, client, same) in [
            (&Affinity::Address, "", Some("192.0.2.1"), true),
            (&Affinity::Address, "sid=b", Some("::ffff:192.0.2.1"), true),
            (&Affinity::Address, "", Some("192.0.2.2"), false),
            (&Affinity::Address, "", None, false),
            (&cookie, "", one, true),
            (&cookie, "other=a", one, true),
            (&cookie, "sid=", one, true),
            (&cookie, "sid=a; sid=a", one, true),
            (&cookie, "sid=a", one, false),
        ] {
            let found = key(affinity, cookies, client) == by_address;
            assert_eq!(found, same, "{affinity:?} {cookies} {client:?}");
        }
        assert_eq!(
            key(&cookie, "x=1; sid=a", one),
            key(&cookie, "sid=a", Some("192.0.2.2"))
        );
        assert_ne!(key(&cookie, "sid=a", one), key(&cookie, "sid=b", one));
        let network = |address| key(&Affinity::Address, "", Some(address));
        assert_eq!(network("2001:db8::1"), network("2001:db8::2:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(key(&Affinity::Off, "sid=a", one), None);
    }
}
