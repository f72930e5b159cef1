//! Answers whose packets are separated, as engine.io's protocol 4 writes them.
//!
//! Keeps true: what is held back is one packet of at most [`HELD`] bytes, and what its rewriting holds.
//! Must not know: what packets say.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::super::packet::opening;
use super::super::packet_rewriter::{PacketKind, PacketRewriter};
use super::super::payload::SEPARATOR;
use super::PollingSetting;
use crate::exchange::rewrite::Rewrite;
use crate::reissue::body_fields;
use crate::reissue::names::Before;

/// The most bytes of one packet that are held until it is known to hold no token.
pub(super) const HELD: usize = 64 * 1024;

/// An answer whose packets are separated (engine.io's protocol 4).
pub(super) struct SeparatedRewrite {
    setting: PollingSetting,
    held: BytesMut,
    /// How many held bytes are known to hold no separator.
    searched: usize,
    packet: Option<PacketRewriting>,
    output: VecDeque<Bytes>,
    ended: bool,
}

struct PacketRewriting {
    rewriter: PacketRewriter,
    opening: Bytes,
    /// The packet has ended; whether a separator follows.
    over: Option<bool>,
}

impl SeparatedRewrite {
    /// A rewriting that has seen nothing.
    pub(super) fn new(setting: PollingSetting) -> Self {
        Self {
            setting,
            held: BytesMut::new(),
            searched: 0,
            packet: None,
            output: VecDeque::new(),
            ended: false,
        }
    }

    /// Takes the next part of a packet out of what is held; false where more bytes are needed.
    fn next_part(&mut self) -> bool {
        let fresh = self.held.get(self.searched..).unwrap_or_default();
        let end = memchr::memchr(SEPARATOR, fresh).map(|at| self.searched + at);
        let over = match end {
            Some(_) => Some(true),
            None if self.ended => Some(false),
            None if self.packet.is_some() || self.held.len() > HELD => None,
            None => {
                self.searched = self.held.len();
                return false;
            }
        };
        let part = self.held.split_to(end.unwrap_or(self.held.len())).freeze();
        if end.is_some() {
            self.held.advance(1);
        }
        self.searched = 0;
        if part.is_empty() && over.is_none() {
            return false;
        }
        self.go_on(part, over);
        true
    }

    fn go_on(&mut self, part: Bytes, over: Option<bool>) {
        if self.packet.is_none() {
            self.setting.tell_id(&part);
            let packets = &self.setting.packets;
            let plain = over.is_some() && !packets.may_hold_token(PacketKind::Text, &part);
            let opening = opening(&part);
            let rewriter = if plain {
                None
            } else {
                packets.begin(PacketKind::Text, opening, &mut Before::default())
            };
            let Some(rewriter) = rewriter else {
                packets.passed(PacketKind::Text, opening);
                self.output.push_back(part);
                if over == Some(true) {
                    self.output.push_back(Bytes::from_static(&[SEPARATOR]));
                }
                return;
            };
            self.packet = Some(PacketRewriting {
                rewriter,
                opening: Bytes::copy_from_slice(opening),
                over: None,
            });
        }
        if let Some(packet) = &mut self.packet {
            if !part.is_empty() {
                packet.rewriter.take(part);
            }
            if over.is_some() {
                packet.rewriter.end();
            }
            packet.over = over;
        }
    }
}

impl Rewrite for SeparatedRewrite {
    fn take(&mut self, data: Bytes) {
        self.held.extend_from_slice(&data);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(data) = self.output.pop_front() {
                if !data.is_empty() {
                    return Poll::Ready(Some(data));
                }
                continue;
            }
            if let Some(packet) = &mut self.packet {
                if let Some(data) = ready!(packet.rewriter.poll_data(context)) {
                    return Poll::Ready(Some(data));
                }
                if let Some(separated) = packet.over {
                    let packets = &self.setting.packets;
                    packets.passed(PacketKind::Text, &packet.opening);
                    self.packet = None;
                    if separated {
                        self.output.push_back(Bytes::from_static(&[SEPARATOR]));
                    }
                    continue;
                }
            }
            let ends_packet = self.ended && self.packet.is_some();
            if (self.held.is_empty() && !ends_packet) || !self.next_part() {
                return Poll::Ready(None);
            }
        }
    }

    fn trailers(&mut self, trailers: HeaderMap) -> HeaderMap {
        body_fields::trailers(trailers)
    }

    fn keeps_length(&self) -> bool {
        false
    }
}
