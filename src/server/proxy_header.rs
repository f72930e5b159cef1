//! The PROXY protocol: the header, in version 1 or 2, by which a load balancer that passes bytes on names its client
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Keeps true: no byte behind the header is read; a header is bounded in length and in time; what isn't a header by the
//! letter is refused.
//! Must not know: who may send one.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use super::Event;
use super::open::poll_patience;
use super::permits::Permit;
use super::stall::Cause;
use super::stop::Stop;
use crate::io::deadline::Deadline;
use crate::io::transport::Transport;
use crate::telemetry::traffic_labels::ParseErrorKind;
use crate::terms::clock::timer_now;

/// The beginning of version 2 (§2.2), which no other protocol has.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes of version 2 in front of the addresses.
const FIXED: usize = 16;

/// The beginning of version 1 (§2.1), and the most bytes of its line.
const WORD: &[u8] = b"PROXY ";
const LONGEST_LINE: usize = 107;

/// The shortest header of either version, `PROXY UNKNOWN\r\n`, which can be read at once.
const SHORTEST: usize = 15;

/// The most bytes of version 2 with its extensions, as nginx has it. What is sent in practice (AWS, Azure and Google's
/// identifiers, the names of a TLS connection) takes a few hundred.
const LONGEST: usize = 4096;

/// The bytes of the addresses of each family (§2.2).
const IPV4: usize = 12;
const IPV6: usize = 36;
const UNIX: usize = 216;

/// The client that a header names. `None` where it names none: a client on a unix socket or of an unknown kind, or the
/// load balancer itself, which checks whether renewd is there. haproxy 2.6 says the last (`LOCAL`) of the first too.
pub(super) type NamedClient = Option<SocketAddr>;

/// The bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoHeader;

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// At least so many bytes are still to come.
    Short(usize),
    Complete(NamedClient),
}

/// Reads the header of a new connection within `limit`. An error means that the connection has ended, with the event to
/// report, if any.
pub(super) async fn read(
    transport: &mut Transport,
    limit: Duration,
    stop: &Stop,
    permit: &Permit,
) -> Result<NamedClient, Option<Event>> {
    let mut header = Vec::with_capacity(LONGEST_LINE);
    let mut deadline = Deadline::default();
    let since = timer_now();
    poll_fn(|context| {
        loop {
            let missing = match progress(&header) {
                Ok(Progress::Short(missing)) => missing,
                Ok(Progress::Complete(client)) => return Poll::Ready(Ok(client)),
                Err(NoHeader) => {
                    let refused = Event::ParseFailed(ParseErrorKind::ProxyHeader);
                    return Poll::Ready(Err(Some(refused)));
                }
            };
            let mut chunk = [0; 256];
            let wanted = missing.min(chunk.len());
            let mut buffer = ReadBuf::new(chunk.get_mut(..wanted).unwrap_or_default());
            match Pin::new(&mut *transport).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    header.extend_from_slice(buffer.filled());
                }
                // A load balancer that only looks whether the port is open is no event.
                Poll::Ready(_) => return Poll::Ready(Err(None)),
                Poll::Pending => break,
            }
        }
        if permit.must_leave() {
            return Poll::Ready(Err(None));
        }
        let late = (!header.is_empty()).then_some(Event::TimedOut(Cause::Header));
        poll_patience(&mut deadline, since, limit, stop, context).map(|()| Err(late))
    })
    .await
}

fn progress(bytes: &[u8]) -> Result<Progress, NoHeader> {
    let begins = |start: &[u8]| {
        let length = bytes.len().min(start.len());
        bytes.get(..length) == start.get(..length)
    };
    if begins(SIGNATURE) {
        if bytes.len() < SHORTEST {
            return Ok(Progress::Short(SHORTEST - bytes.len()));
        }
        return version_2(bytes);
    }
    if begins(WORD) {
        if bytes.len() < SHORTEST {
            return Ok(Progress::Short(SHORTEST - bytes.len()));
        }
        return version_1(bytes);
    }
    Err(NoHeader)
}

/// One line of text (§2.1).
fn version_1(bytes: &[u8]) -> Result<Progress, NoHeader> {
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        // Behind each of the five blanks stands at least one byte, then the end of the line.
        let known = bytes.starts_with(b"PROXY TCP");
        let blanks = memchr::memchr_iter(b' ', bytes).count();
        let missing = match bytes.last() {
            Some(b'\r') => 1,
            _ if known => 2 + 2 * 5_usize.saturating_sub(blanks),
            _ => 2,
        };
        let ended = bytes.contains(&b'\n');
        return if ended || bytes.len() + missing > LONGEST_LINE {
            Err(NoHeader)
        } else {
            Ok(Progress::Short(missing))
        };
    };
    let line = std::str::from_utf8(line).map_err(|_| NoHeader)?;
    let fields: Vec<&str> = line.split(' ').collect();
    match fields.as_slice() {
        // The rest of the line is to be ignored.
        ["PROXY", "UNKNOWN", ..] => Ok(Progress::Complete(None)),
        [
            "PROXY",
            family,
            source,
            destination,
            source_port,
            destination_port,
        ] => {
            let address = |text: &str| -> Option<IpAddr> {
                match *family {
                    "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                    "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                    _ => None,
                }
            };
            let parsed = (
                address(source),
                address(destination),
                port(source_port),
                port(destination_port),
            );
            let (Some(source), Some(_), Some(port), Some(_)) = parsed else {
                return Err(NoHeader);
            };
            let client = SocketAddr::new(source, port);
            Ok(Progress::Complete(Some(client)))
        }
        _ => Err(NoHeader),
    }
}

/// A port in decimal, without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| plain && canonical)
}

/// A fixed part, the addresses and extensions, which are skipped (§2.2).
fn version_2(bytes: &[u8]) -> Result<Progress, NoHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Progress::Short(FIXED - bytes.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > LONGEST {
        return Err(NoHeader);
    }
    let (named, least) = match (command, family) {
        // LOCAL, behind which everything is to be ignored, and the unspecified family.
        (0x20, _) | (0x21, 0x00) => (false, 0),
        (0x21, 0x11) => (true, IPV4),
        (0x21, 0x21) => (true, IPV6),
        // Datagrams, which don't come on a stream; then unix sockets of both kinds.
        (0x21, 0x12) => (false, IPV4),
        (0x21, 0x22) => (false, IPV6),
        (0x21, 0x31 | 0x32) => (false, UNIX),
        _ => return Err(NoHeader),
    };
    if length < least {
        return Err(NoHeader);
    }
    if rest.len() < length {
        return Ok(Progress::Short(length - rest.len()));
    }
    let client = if named { source(rest, least) } else { None };
    Ok(Progress::Complete(client))
}

/// The source in a block of addresses: both addresses stand in it, then both ports.
fn source(block: &[u8], length: usize) -> Option<SocketAddr> {
    let ports = block.get(length - 4..)?;
    let port = u16::from_be_bytes(*ports.first_chunk()?);
    let address = if length == IPV4 {
        IpAddr::from(*block.first_chunk::<4>()?)
    } else {
        IpAddr::from(*block.first_chunk::<16>()?)
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Reads as much as is said to be missing, again and again; the client, and the bytes that were left.
    fn read_all(bytes: &[u8]) -> Result<(NamedClient, usize), NoHeader> {
        let mut taken = 0;
        loop {
            match progress(bytes.get(..taken).unwrap())? {
                Progress::Complete(named) => return Ok((named, bytes.len() - taken)),
                Progress::Short(missing) => {
                    assert!(missing > 0);
                    taken = (taken + missing).min(bytes.len());
                    if taken == bytes.len() {
                        // The input has ended: what isn't complete now is cut off.
                        let last = progress(bytes)?;
                        let Progress::Complete(named) = last else {
                            return Err(NoHeader);
                        };
                        return Ok((named, 0));
                    }
                }
            }
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    const OVER_IPV4: &[u8] = &[192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn the_lines_of_the_specification_are_read_to_their_end_and_no_further() {
        const MAX: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let all_ones = format!("[{MAX}]:65535");
        for (line, named) in [
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443".to_owned(),
                Some(address("192.168.0.1:56324")),
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535".to_owned(),
                Some(address("255.255.255.255:65535")),
            ),
            (
                "PROXY TCP4 1.1.1.1 1.1.1.1 0 0".to_owned(),
                Some(address("1.1.1.1:0")),
            ),
            ("PROXY TCP6 :: ::1 1 2".to_owned(), Some(address("[::]:1"))),
            (
                format!("PROXY TCP6 {MAX} {MAX} 65535 65535"),
                Some(address(&all_ones)),
            ),
            ("PROXY UNKNOWN".to_owned(), None),
            (format!("PROXY UNKNOWN {MAX} {MAX} 65535 65535"), None),
        ] {
            let request = "GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";
            let bytes = format!("{line}\r\n{request}");
            assert_eq!(
                read_all(bytes.as_bytes()),
                Ok((named, request.len())),
                "{line}"
            );
            for end in 0..=line.len() {
                assert_eq!(read_all(&bytes.as_bytes()[..end]), Err(NoHeader), "{end}");
            }
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let mut long = "PROXY UNKNOWN ".to_owned();
        let _ = write!(long, "{:>94}", "");
        for line in [
            "GET / HTTP/1.1",
            "proxy TCP4 1.1.1.1 2.2.2.2 1 2",
            "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2",
            "PROXY TCP4 1.1.1.1  2.2.2.2 1 2",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 ",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 +2",
            "PROXY TCP4 1.1.1.1 2.2.2.2 01 2",
            "PROXY TCP4 1.1.1.01 2.2.2.2 1 2",
            "PROXY TCP4 1.1.1.1 localhost 1 2",
            "PROXY TCP4 ::1 ::1 1 2",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2",
            "PROXY UDP4 1.1.1.1 2.2.2.2 1 2",
            "PROXY TCP4 1.1.1.1\r2.2.2.2 1 2",
            "PROXY UNKNOWN a\nb",
            "PROXY UNKNOWNS",
            &long,
        ] {
            let bytes = format!("{line}\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(read_all(bytes.as_bytes()), Err(NoHeader), "{line:?}");
        }
        assert_eq!(
            read_all(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\nGET / HTTP/1.1\r\n\r\n"),
            Err(NoHeader)
        );
    }

    #[test]
    fn binary_headers_name_the_source_and_their_extensions_are_skipped() {
        let over_ipv6 = {
            let ends = [0x2001_0db8_u32, 0, 0, 5, 0x2001_0db8, 0, 0, 9];
            let mut block: Vec<u8> = ends.iter().flat_map(|part| part.to_be_bytes()).collect();
            block.extend_from_slice(&[0xdc, 0x04, 0x01, 0xbb]);
            block
        };
        // PP2_TYPE_AUTHORITY, PP2_TYPE_NOOP of 300 bytes, and one that is cut off: nothing of it is read.
        let extensions = [
            &[2, 0, 4][..],
            b"live",
            &[4, 1, 44],
            &[0; 300],
            &[0xea, 0xff, 0xff, 1],
        ];
        let extended = [OVER_IPV4, &extensions.concat()].concat();
        let most = [OVER_IPV4, &vec![4; LONGEST - FIXED - IPV4]].concat();
        for (command, family, block, named) in [
            (0x21, 0x11, OVER_IPV4, Some(address("192.168.0.1:56324"))),
            (0x21, 0x11, &extended, Some(address("192.168.0.1:56324"))),
            (0x21, 0x11, &most, Some(address("192.168.0.1:56324"))),
            (0x21, 0x21, &over_ipv6, Some(address("[2001:db8::5]:56324"))),
            (0x21, 0x12, OVER_IPV4, None),
            (0x21, 0x22, &over_ipv6, None),
            (0x21, 0x31, &[0x2f; 216], None),
            (0x21, 0x32, &[0x2f; 220], None),
            (0x21, 0x00, &[], None),
            (0x21, 0x00, &[4, 0, 0], None),
            (0x20, 0x00, &[], None),
            (0x20, 0x11, OVER_IPV4, None),
            (0x20, 0x99, &[1], None),
        ] {
            let header = binary(command, family, block);
            let bytes = [&header, &b"GET /"[..]].concat();
            let shown = format!("{command:x} {family:x}");
            assert_eq!(read_all(&bytes), Ok((named, 5)), "{shown}");
            for end in 0..header.len() {
                assert_eq!(read_all(&header[..end]), Err(NoHeader), "{shown}, {end}");
            }
        }
    }

    #[test]
    fn what_is_no_binary_header_is_refused() {
        let too_long = vec![4; LONGEST - FIXED + 1];
        for (command, family, block) in [
            (0x11, 0x11, OVER_IPV4),
            (0x31, 0x11, OVER_IPV4),
            (0x22, 0x11, OVER_IPV4),
            (0x21, 0x10, OVER_IPV4),
            (0x21, 0x13, OVER_IPV4),
            (0x21, 0x01, OVER_IPV4),
            (0x21, 0x41, OVER_IPV4),
            (0x21, 0x11, &OVER_IPV4[1..]),
            (0x21, 0x21, OVER_IPV4),
            (0x21, 0x31, &[0; 215]),
            (0x21, 0x11, &too_long),
            (0x20, 0x00, &too_long),
        ] {
            let bytes = binary(command, family, block);
            assert_eq!(read_all(&bytes), Err(NoHeader), "{command:x} {family:x}");
        }
        assert_eq!(read_all(b"\r\n\r\n\0\r\nQUIX\n!\x11\0\0"), Err(NoHeader));
        assert_eq!(read_all(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Err(NoHeader));
        assert_eq!(
            read_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
            Err(NoHeader)
        );
    }
}
