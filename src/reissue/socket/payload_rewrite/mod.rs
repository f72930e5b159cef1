//! Answers of the polling transport on their way: each packet is judged by the login of its own namespace.
//!
//! | file | what |
//! |---|---|
//! | `separated` | packets that are separated leave one after the other |
//! | `whole` | payloads with lengths in them, and JSONP, are taken apart once they are whole |
//!
//! Keeps true: what an answer holds says how it is read, whatever the URL says; of its beginning a few bytes are held until
//! it has said so. A session's id is told as soon as the backend has told it.
//! Must not know: HTTP but for trailers, who keeps sessions.

mod separated;
mod whole;

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use serde::Deserialize;

use self::separated::SeparatedRewrite;
use self::whole::WholeRewrite;
use super::packet_rewriter::SocketPackets;
use super::payload::PollingFormat;
use crate::exchange::rewrite::Rewrite;
use crate::reissue::body_fields;

/// Told of the id in the packet that opens a session.
pub(crate) type OnOpen = Rc<dyn Fn(&str)>;

/// What an answer is rewritten with.
#[derive(Clone)]
pub(crate) struct PollingSetting {
    pub packets: SocketPackets,
    pub on_open: OnOpen,
    /// Whether the URL means protocol 3.
    pub counted_by_url: bool,
}

/// The packet that opens a session.
#[derive(Deserialize)]
struct OpenPacket<'p> {
    sid: &'p str,
}

/// One answer.
pub(crate) struct PollingRewrite {
    setting: PollingSetting,
    stage: PollingStage,
}

enum PollingStage {
    /// The first bytes don't tell the format yet.
    Opening(BytesMut),
    Told(Box<dyn Rewrite>),
}

impl PollingSetting {
    /// Tells the session's id, if the packet opens one.
    fn tell_id(&self, packet: &[u8]) {
        let open = packet.strip_prefix(b"0");
        let open: Option<OpenPacket<'_>> = open.and_then(|open| serde_json::from_slice(open).ok());
        if let Some(open) = open {
            (self.on_open)(open.sid);
        }
    }
}

impl PollingRewrite {
    /// A rewriting that has seen nothing.
    pub(crate) fn new(setting: PollingSetting) -> Self {
        Self {
            setting,
            stage: PollingStage::Opening(BytesMut::new()),
        }
    }

    /// Begins to read what is held in this format.
    fn begin(&mut self, format: PollingFormat) {
        let PollingStage::Opening(held) = &mut self.stage else {
            return;
        };
        let held = std::mem::take(held).freeze();
        let setting = self.setting.clone();
        let mut told: Box<dyn Rewrite> = match format {
            PollingFormat::Separated => Box::new(SeparatedRewrite::new(setting)),
            PollingFormat::Counted | PollingFormat::Binary | PollingFormat::Jsonp => {
                Box::new(WholeRewrite::new(setting))
            }
        };
        told.take(held);
        self.stage = PollingStage::Told(told);
    }
}

impl Rewrite for PollingRewrite {
    fn take(&mut self, data: Bytes) {
        match &mut self.stage {
            PollingStage::Told(told) => told.take(data),
            PollingStage::Opening(held) => {
                held.extend_from_slice(&data);
                if let Some(format) = PollingFormat::of(held) {
                    self.begin(format);
                }
            }
        }
    }

    fn end(&mut self) {
        self.begin(PollingFormat::Separated);
        if let PollingStage::Told(told) = &mut self.stage {
            told.end();
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.stage {
            PollingStage::Told(told) => told.poll_data(context),
            PollingStage::Opening(_) => Poll::Ready(None),
        }
    }

    fn trailers(&mut self, trailers: HeaderMap) -> HeaderMap {
        body_fields::trailers(trailers)
    }

    fn keeps_length(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
