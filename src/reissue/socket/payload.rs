//! The bodies of engine.io's polling transport: several packets in one request or answer.
//!
//! | protocol | body |
//! |---|---|
//! | 4 | packets, separated by U+001E |
//! | 3 | packets, each behind its length in UTF-16 units and `:` |
//! | 3, with bytes | packets, each behind 0 (text) or 1, its length in bytes as digits of one byte each, and 255 |
//! | JSONP | `___eio[N]("…");` with the payload as a string, and as the form field `d` from the client |
//!
//! Keeps true: what is read and written again unchanged is the same payload.
//! Must not know: what packets say, HTTP.
//!
//! Sources: `encodePayload` of engine.io-parser 2.2 and 5.2, `polling-jsonp.js` of engine.io 3.6 and 6.6.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

/// What separates packets in protocol 4.
pub(crate) const SEPARATOR: u8 = 0x1e;

/// How a polling body holds its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollingFormat {
    /// Protocol 4.
    Separated,
    /// Protocol 3.
    Counted,
    /// Either of them within JSONP.
    Jsonp { counted: bool },
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

impl Payload {
    /// Takes an answer apart; `None` where it isn't in this format.
    pub(crate) fn parse(body: &[u8], format: PollingFormat) -> Option<Self> {
        let (around, body, counted) = match format {
            PollingFormat::Separated => {
                (None, Cow::Borrowed(std::str::from_utf8(body).ok()?), false)
            }
            PollingFormat::Counted if matches!(body.first(), Some(0 | 1)) => {
                return Some(Self {
                    around: None,
                    form: PayloadForm::Binary,
                    packets: binary(body)?,
                });
            }
            PollingFormat::Counted => (None, Cow::Borrowed(std::str::from_utf8(body).ok()?), true),
            PollingFormat::Jsonp { counted } => {
                let text = std::str::from_utf8(body).ok()?;
                let (start, end) = (text.find('(')? + 1, text.rfind(')')?);
                let inner: String = serde_json::from_str(text.get(start..end)?).ok()?;
                let around = (text.get(..start)?.to_owned(), text.get(end..)?.to_owned());
                (Some(around), Cow::Owned(inner), counted)
            }
        };
        let (form, packets) = if counted {
            (PayloadForm::Counted, counted_packets(&body)?)
        } else {
            (
                PayloadForm::Separated,
                body.split(char::from(SEPARATOR)).collect(),
            )
        };
        let text = |packet: &str| PayloadPacket::Text(packet.to_owned());
        Some(Self {
            around,
            form,
            packets: packets.into_iter().map(text).collect(),
        })
    }

    /// Puts it together again.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut body = BytesMut::new();
        for (number, packet) in self.packets.iter().enumerate() {
            let (is_text, bytes) = match packet {
                PayloadPacket::Text(text) => (true, text.as_bytes()),
                PayloadPacket::Bytes(bytes) => (false, &**bytes),
            };
            match (self.form, packet) {
                (PayloadForm::Separated, _) if number > 0 => body.put_u8(SEPARATOR),
                (PayloadForm::Separated, _) => {}
                (PayloadForm::Counted, PayloadPacket::Text(text)) => {
                    let units = text.encode_utf16().count();
                    body.put_slice(format!("{units}:").as_bytes());
                }
                (PayloadForm::Counted, PayloadPacket::Bytes(_)) => continue,
                (PayloadForm::Binary, _) => {
                    body.put_u8(u8::from(!is_text));
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

/// The text packets of a client's request.
pub(crate) fn client_packets(body: &[u8], format: PollingFormat) -> Vec<String> {
    let read = match format {
        PollingFormat::Separated | PollingFormat::Counted => Payload::parse(body, format),
        PollingFormat::Jsonp { counted } => {
            let mut fields = form_urlencoded::parse(body);
            let data = fields.find_map(|(name, value)| (name == "d").then_some(value));
            // Forms change line ends, so that clients escape them.
            let data = data.unwrap_or_default().replace("\\n", "\n");
            let format = if counted {
                PollingFormat::Counted
            } else {
                PollingFormat::Separated
            };
            Payload::parse(data.as_bytes(), format)
        }
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
            let digit = usize::from(*digit);
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
    use super::*;

    fn text(packets: &[&str]) -> Vec<PayloadPacket> {
        let text = |packet: &&str| PayloadPacket::Text((*packet).to_owned());
        packets.iter().map(text).collect()
    }

    fn round(body: &[u8], format: PollingFormat, packets: &[PayloadPacket]) {
        let payload = Payload::parse(body, format).unwrap();
        assert_eq!(payload.packets, packets);
        assert_eq!(payload.write(), body);
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
        // The examples of the protocol's description: lengths are JavaScript's.
        round("6:4hello2:4€".as_bytes(), v3, &text(&["4hello", "4€"]));
        round("3:4😀1:2".as_bytes(), v3, &text(&["4😀", "2"]));
        let mut packets = text(&["4hello"]);
        packets.push(PayloadPacket::Bytes((0..12).collect()));
        let bytes: Vec<u8> = (0..12).collect();
        let body = [&b"\x00\x06\xff4hello\x01\x01\x02\xff"[..], &bytes].concat();
        round(&body, v3, &packets);
        let jsonp = |counted| PollingFormat::Jsonp { counted };
        round(
            br#"___eio[0]("6:4hello7:42[\"a\"]");"#,
            jsonp(true),
            &text(&["4hello", "42[\"a\"]"]),
        );
        round(
            br#"___eio[12]("42[\"a\\n\"]");"#,
            jsonp(false),
            &text(&["42[\"a\\n\"]"]),
        );
    }

    #[test]
    fn what_is_no_payload_is_refused() {
        for body in ["x", "5:4a", "9999999999999999999999:a", ":", "1:😀", "-1:a"] {
            assert_eq!(
                Payload::parse(body.as_bytes(), PollingFormat::Counted),
                None,
                "{body}"
            );
        }
        for body in [
            &b"\x00\x05\xffab"[..],
            b"\x02\x01\xffa",
            b"\x00",
            b"\x01\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff",
        ] {
            assert_eq!(Payload::parse(body, PollingFormat::Counted), None);
        }
        for body in ["___eio[0](", "___eio[0](6:4hello);", ""] {
            let format = PollingFormat::Jsonp { counted: true };
            assert_eq!(Payload::parse(body.as_bytes(), format), None, "{body}");
        }
    }

    #[test]
    fn a_clients_packets_are_read_in_every_protocol() {
        let connect = "40{\"token\":\"a\"}";
        let read = |body: &str, format| client_packets(body.as_bytes(), format);
        let jsonp = |counted| PollingFormat::Jsonp { counted };
        assert_eq!(
            read(&format!("{connect}\u{1e}2"), PollingFormat::Separated),
            [connect, "2"]
        );
        assert_eq!(
            read(&format!("15:{connect}"), PollingFormat::Counted),
            [connect]
        );
        let form = "d=40%7B%22token%22%3A%22a%22%7D";
        assert_eq!(read(form, jsonp(false)), [connect]);
        assert_eq!(
            read("x=1&d=15%3A40%7B%22token%22%3A%22a%22%7D", jsonp(true)),
            [connect]
        );
        assert!(read("nothing", jsonp(true)).is_empty());
    }
}
