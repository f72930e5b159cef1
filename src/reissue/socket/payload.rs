//! The bodies of engine.io's polling transport: several packets in one request or answer.
//!
//! | protocol | body |
//! |---|---|
//! | 4 | packets, separated by U+001E |
//! | 3 | packets, each behind its length in UTF-16 units and `:` |
//! | 3, with bytes | packets, each behind 0 (text) or 1, its length in bytes as digits of one byte each, and 255 |
//! | JSONP | `___eio[N]("…");` with the payload as a string, and as the form field `d` from the client |
//!
//! Keeps true: what is read and written again unchanged is the same payload. A body tells its format by itself, for what
//! servers go by is the URL of the session's first request, and the older ones don't look for a protocol in it.
//! Must not know: what packets say, HTTP.
//!
//! Sources: `encodePayload` of engine.io-parser 2.2 and 5.2, `polling-jsonp.js` of engine.io 3.6 and 6.6.

use bytes::{BufMut, BytesMut};

use super::packet_rewriter::PacketKind;

/// What separates packets in protocol 4.
pub(crate) const SEPARATOR: u8 = 0x1e;

/// How a JSONP body begins.
const JSONP: &[u8] = b"___eio[";

/// More digits than any length has.
const LENGTH_DIGITS: usize = 16;

/// How a polling body holds its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollingFormat {
    /// Protocol 4.
    Separated,
    /// Protocol 3.
    Counted,
    /// Protocol 3, with bytes.
    Binary,
    /// Either protocol within JSONP.
    Jsonp,
}

/// The payload of an answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The text before and behind a JSONP payload.
    around: Option<(String, String)>,
    form: PayloadForm,
    pub packets: Vec<PayloadPacket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PayloadForm {
    Separated,
    Counted,
    /// Counted in bytes.
    Binary,
}

/// One packet of a payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PayloadPacket {
    Text(String),
    Bytes(Vec<u8>),
}

impl PollingFormat {
    /// The format of a body that begins so; `None` where more bytes have to tell.
    pub(crate) fn of(opening: &[u8]) -> Option<Self> {
        match opening.first()? {
            0 | 1 => Some(Self::Binary),
            _ if opening.starts_with(JSONP) => Some(Self::Jsonp),
            _ if JSONP.starts_with(opening) => None,
            _ => match (is_counted(opening), opening.get(LENGTH_DIGITS)) {
                (Some(true), _) => Some(Self::Counted),
                (None, None) => None,
                _ => Some(Self::Separated),
            },
        }
    }
}

/// Whether a body begins with a length; `None` where more bytes have to tell.
fn is_counted(opening: &[u8]) -> Option<bool> {
    let other = opening.iter().position(|byte| !byte.is_ascii_digit())?;
    Some(other > 0 && opening.get(other) == Some(&b':'))
}

/// The call with which a script begins, and its argument as far as it has come.
pub(crate) fn script(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let index = body.strip_prefix(JSONP)?;
    let digits = index.iter().take_while(|byte| byte.is_ascii_digit());
    let digits = Some(digits.count()).filter(|digits| *digits <= LENGTH_DIGITS)?;
    let behind = index.get(digits..)?.strip_prefix(b"](")?;
    body.split_at_checked(body.len() - behind.len())
}

impl Payload {
    /// Takes a whole body apart; `None` where it isn't a payload. `by_url` says that the URL means protocol 3: then what
    /// begins with a length is counted, or no payload.
    pub(crate) fn parse(body: &[u8], by_url: bool) -> Option<Self> {
        match PollingFormat::of(body) {
            Some(PollingFormat::Binary) => Some(Self {
                around: None,
                form: PayloadForm::Binary,
                packets: binary(body)?,
            }),
            Some(PollingFormat::Jsonp) => {
                let (call, argument) = script(body)?;
                let end = memchr::memrchr(b')', argument)?;
                let inner: String = serde_json::from_slice(argument.get(..end)?).ok()?;
                let behind = std::str::from_utf8(argument.get(end..)?).ok()?;
                if !matches!(behind.trim_ascii_end(), ")" | ");") {
                    return None;
                }
                let call = std::str::from_utf8(call).ok()?;
                Some(Self {
                    around: Some((call.to_owned(), behind.to_owned())),
                    ..Self::of_text(&inner, by_url)?
                })
            }
            _ => Self::of_text(std::str::from_utf8(body).ok()?, by_url),
        }
    }

    fn of_text(text: &str, by_url: bool) -> Option<Self> {
        let is_counted = is_counted(text.as_bytes()) == Some(true);
        let counted = if is_counted {
            counted_packets(text)
        } else {
            None
        };
        let form = match counted {
            Some(_) => PayloadForm::Counted,
            // The separated packets of an engine.io without socket.io may begin like a length, but not hold bytes.
            None if is_counted && (by_url || text.contains(":b")) => return None,
            None => PayloadForm::Separated,
        };
        let packets = counted.unwrap_or_else(|| text.split(char::from(SEPARATOR)).collect());
        let text = |packet: &str| PayloadPacket::Text(packet.to_owned());
        Some(Self {
            around: None,
            form,
            packets: packets.into_iter().map(text).collect(),
        })
    }

    /// Puts it together again.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut body = BytesMut::new();
        for (number, packet) in self.packets.iter().enumerate() {
            let (kind, bytes) = packet.read();
            match (self.form, packet) {
                (PayloadForm::Separated, _) if number > 0 => body.put_u8(SEPARATOR),
                (PayloadForm::Separated, _) => {}
                (PayloadForm::Counted, PayloadPacket::Text(text)) => {
                    let units = text.encode_utf16().count();
                    body.put_slice(format!("{units}:").as_bytes());
                }
                (PayloadForm::Counted, PayloadPacket::Bytes(_)) => continue,
                (PayloadForm::Binary, _) => {
                    body.put_u8(u8::from(kind == PacketKind::Bytes));
                    let digits = bytes.len().to_string();
                    body.extend(digits.bytes().map(|digit| digit - b'0'));
                    body.put_u8(255);
                }
            }
            body.put_slice(bytes);
        }
        match &self.around {
            None => body.to_vec(),
            Some((before, behind)) => {
                let inner = String::from_utf8_lossy(&body);
                let inner = serde_json::to_string(&*inner).unwrap_or_default();
                // Line ends to JavaScript before 2019.
                let inner = inner
                    .replace('\u{2028}', "\\u2028")
                    .replace('\u{2029}', "\\u2029");
                [before.as_bytes(), inner.as_bytes(), behind.as_bytes()].concat()
            }
        }
    }
}

impl PayloadPacket {
    /// How the packet came, and what it holds.
    pub(crate) fn read(&self) -> (PacketKind, &[u8]) {
        match self {
            Self::Text(text) => (PacketKind::Text, text.as_bytes()),
            Self::Bytes(bytes) => (PacketKind::Bytes, bytes),
        }
    }

    /// Puts other bytes into the packet.
    pub(crate) fn replace(&mut self, other: &[u8]) {
        match self {
            Self::Text(text) => *text = String::from_utf8_lossy(other).into_owned(),
            Self::Bytes(bytes) => *bytes = other.to_vec(),
        }
    }
}

/// The text packets of a client's request.
pub(crate) fn client_packets(body: &[u8]) -> Vec<String> {
    let begins_packet = |first: &u8| matches!(first, 0 | 1 | b'b' | b'0'..=b'9');
    let read = if body.first().is_some_and(begins_packet) {
        Payload::parse(body, false)
    } else {
        // JSONP's form.
        let mut fields = form_urlencoded::parse(body);
        let data = fields.find_map(|(name, value)| (name == "d").then_some(value));
        // Forms change line ends, so that clients escape them.
        let data = data.unwrap_or_default().replace("\\n", "\n");
        Payload::of_text(&data, false)
    };
    let packets = read.map_or_else(Vec::new, |payload| payload.packets);
    let texts = packets.into_iter().filter_map(|packet| match packet {
        PayloadPacket::Text(text) => Some(text),
        PayloadPacket::Bytes(_) => None,
    });
    texts.collect()
}

/// Packets behind their lengths in UTF-16 units.
fn counted_packets(mut text: &str) -> Option<Vec<&str>> {
    let mut packets = Vec::new();
    while !text.is_empty() {
        let (units, rest) = text.split_once(':')?;
        let mut left: usize = units.parse().ok()?;
        let mut end = 0;
        for character in rest.chars() {
            if left == 0 {
                break;
            }
            left = left.checked_sub(character.len_utf16())?;
            end += character.len_utf8();
        }
        if left > 0 {
            return None;
        }
        packets.push(rest.get(..end)?);
        text = rest.get(end..)?;
    }
    Some(packets)
}

/// Packets behind their kinds and their lengths in bytes.
fn binary(mut body: &[u8]) -> Option<Vec<PayloadPacket>> {
    let mut packets = Vec::new();
    while let Some((kind, rest)) = body.split_first() {
        let digits = rest
            .iter()
            .position(|byte| *byte == 255)
            .filter(|digits| *digits < 16)?;
        let mut length: usize = 0;
        for digit in rest.get(..digits)? {
            let digit = Some(usize::from(*digit)).filter(|digit| *digit < 10)?;
            length = length.checked_mul(10)?.checked_add(digit)?;
        }
        let rest = rest.get(digits + 1..)?;
        let packet = rest.get(..length)?;
        packets.push(match kind {
            0 => PayloadPacket::Text(std::str::from_utf8(packet).ok()?.to_owned()),
            1 => PayloadPacket::Bytes(packet.to_vec()),
            _ => return None,
        });
        body = rest.get(length..)?;
    }
    Some(packets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(packets: &[&str]) -> Vec<PayloadPacket> {
        let text = |packet: &&str| PayloadPacket::Text((*packet).to_owned());
        packets.iter().map(text).collect()
    }

    fn round(body: &[u8], format: PollingFormat, packets: &[PayloadPacket]) {
        // Whatever the URL says.
        for by_url in [false, true] {
            let payload = Payload::parse(body, by_url).unwrap();
            assert_eq!(payload.packets, packets);
            assert_eq!(payload.write(), body);
        }
        assert_eq!(
            PollingFormat::of(body).unwrap_or(PollingFormat::Separated),
            format
        );
    }

    #[test]
    fn payloads_of_every_protocol_are_taken_apart_and_put_together_again() {
        let (v4, v3) = (PollingFormat::Separated, PollingFormat::Counted);
        round(
            "4hello\u{1e}2\u{1e}4€".as_bytes(),
            v4,
            &text(&["4hello", "2", "4€"]),
        );
        round(b"40", v4, &text(&["40"]));
        round(b"b4AQID\x1e2", v4, &text(&["b4AQID", "2"]));
        // The examples of the protocol's description: lengths are JavaScript's.
        round("6:4hello2:4€".as_bytes(), v3, &text(&["4hello", "4€"]));
        round("3:4😀1:2".as_bytes(), v3, &text(&["4😀", "2"]));
        round(b"0:", v3, &text(&[""]));
        let mut packets = text(&["4hello"]);
        packets.push(PayloadPacket::Bytes((0..12).collect()));
        let bytes: Vec<u8> = (0..12).collect();
        let body = [&b"\x00\x06\xff4hello\x01\x01\x02\xff"[..], &bytes].concat();
        round(&body, PollingFormat::Binary, &packets);
        round(
            br#"___eio[0]("6:4hello7:42[\"a\"]");"#,
            PollingFormat::Jsonp,
            &text(&["4hello", "42[\"a\"]"]),
        );
        round(
            br#"___eio[12]("42[\"a\\n\"]");"#,
            PollingFormat::Jsonp,
            &text(&["42[\"a\\n\"]"]),
        );
    }

    #[test]
    fn a_body_tells_its_format_as_soon_as_it_can() {
        for (opening, expected) in [
            ("", None),
            ("4", None),
            ("___eio", None),
            ("___eio[", Some(PollingFormat::Jsonp)),
            ("___x", Some(PollingFormat::Separated)),
            ("42[", Some(PollingFormat::Separated)),
            (":", Some(PollingFormat::Separated)),
            ("<html>", Some(PollingFormat::Separated)),
            ("97:0{", Some(PollingFormat::Counted)),
            ("12345678901234567", Some(PollingFormat::Separated)),
            ("\u{0}", Some(PollingFormat::Binary)),
            ("\u{1}", Some(PollingFormat::Binary)),
        ] {
            assert_eq!(PollingFormat::of(opening.as_bytes()), expected, "{opening}");
        }
    }

    #[test]
    fn what_is_no_payload_is_refused() {
        for body in ["5:4a", "9999999999999999999999:a", "1:😀", "45:b4AAAA"] {
            assert_eq!(Payload::parse(body.as_bytes(), true), None, "{body}");
        }
        // With protocol 4 in the URL it may be a message that begins like a length.
        assert_eq!(Payload::parse(b"45:hello", true), None);
        let separated = Payload::parse(b"45:hello\x1e2", false).unwrap();
        assert_eq!(separated.packets, text(&["45:hello", "2"]));
        assert_eq!(Payload::parse(b"45:b4AAAA", false), None);
        for body in [
            &b"\x00\x05\xffab"[..],
            b"\x00\x01\xffa\x02\x01\xffa",
            b"\x00\x0a\xffaaaaaaaaaa",
            b"\x00",
            b"\x01\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff",
        ] {
            assert_eq!(Payload::parse(body, true), None);
        }
        for body in [
            "___eio[0](",
            "___eio[0](6:4hello);",
            "___eio[0]({\"type\":\"Buffer\"});",
        ] {
            assert_eq!(Payload::parse(body.as_bytes(), true), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_the_same_once_it_is_written(
            begin in prop_oneof![Just(""), Just("___eio[0](\""), Just("\u{0}\u{1}"), Just("1:"), Just("4")],
            text in "[0-3b:\"\u{0}\u{1}\u{1e}\u{ff}\u{2028}()\\\\;é😀]{0,12}",
            end in prop_oneof![Just(""), Just("\");"), Just("\")")],
            by_url: bool,
        ) {
            let body = format!("{begin}{text}{end}");
            if let Some(read) = Payload::parse(body.as_bytes(), by_url) {
                let again = Payload::parse(&read.write(), by_url).unwrap();
                prop_assert_eq!(read, again);
            }
            client_packets(body.as_bytes());
        }
    }

    #[test]
    fn a_clients_packets_are_read_in_every_protocol() {
        let connect = "40{\"token\":\"a\"}";
        let read = |body: &str| client_packets(body.as_bytes());
        assert_eq!(read(&format!("{connect}\u{1e}2")), [connect, "2"]);
        assert_eq!(read(&format!("15:{connect}")), [connect]);
        let counted = [&b"\x00\x01\x05\xff"[..], connect.as_bytes()].concat();
        assert_eq!(client_packets(&counted), [connect]);
        let form = "d=40%7B%22token%22%3A%22a%22%7D";
        assert_eq!(read(form), [connect]);
        let counted = "x=1&d=15%3A40%7B%22token%22%3A%22a%22%7D";
        assert_eq!(read(counted), [connect]);
        assert!(read("nothing").iter().all(String::is_empty));
    }
}
