//! One message of a socket: its parts are known at once, or once another replica's word on its login has come.
//!
//! Keeps true: what waits for a login is kept in order, and nothing of it leaves before.
//! Must not know: frames, packets, payloads, who knows logins.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::exchange::rewrite::Rewrite as _;
use crate::reissue::names::Before;
use crate::reissue::rewriter::{Parts, Rewriter};

/// The asking for a login, after which the parts are those of the login.
pub(crate) type Learning = Pin<Box<dyn Future<Output = ()>>>;

/// Knows what the messages of one socket are judged with.
pub(crate) trait MessageSource {
    /// The parts for the rewriting of a message of this namespace, by what is known here; `None` where messages aren't
    /// searched any more.
    fn parts(&self, namespace: &str) -> Option<Parts>;

    /// The asking that a message of this namespace needs, if any.
    fn learning(&self, namespace: &str) -> Option<Learning>;
}

/// The parts of a socket's messages.
#[derive(Clone)]
pub(crate) struct MessageParts(Rc<dyn MessageSource>);

/// The rewriting of one message.
pub(crate) enum MessageRewriter {
    /// The login is asked for.
    Waits(Box<WaitingMessage>),
    Goes(Box<Rewriter>),
    /// Messages aren't searched any more.
    Passes(VecDeque<Bytes>),
}

pub(crate) struct WaitingMessage {
    learning: Learning,
    parts: MessageParts,
    namespace: Box<str>,
    before: Before,
    taken: VecDeque<Bytes>,
    ended: bool,
}

impl MessageParts {
    /// The parts of this socket's messages.
    pub(crate) fn of(source: Rc<dyn MessageSource>) -> Self {
        Self(source)
    }

    /// The parts by what is known here.
    pub(crate) fn now(&self, namespace: &str) -> Option<Parts> {
        self.0.parts(namespace)
    }

    /// Begins the rewriting of a message of which `before` was passed on, and is taken along.
    pub(crate) fn begin(&self, namespace: &str, before: &mut Before) -> Option<MessageRewriter> {
        if let Some(learning) = self.0.learning(namespace) {
            return Some(MessageRewriter::Waits(Box::new(WaitingMessage {
                learning,
                parts: self.clone(),
                namespace: namespace.into(),
                before: std::mem::take(before),
                taken: VecDeque::new(),
                ended: false,
            })));
        }
        let rewriter = Rewriter::after(self.now(namespace)?, std::mem::take(before));
        Some(MessageRewriter::Goes(Box::new(rewriter)))
    }
}

impl MessageRewriter {
    /// The next bytes from the backend.
    pub(crate) fn take(&mut self, data: Bytes) {
        match self {
            Self::Waits(waiting) => waiting.taken.push_back(data),
            Self::Goes(rewriter) => rewriter.take(data),
            Self::Passes(passing) => passing.push_back(data),
        }
    }

    /// Notes that no more bytes will come.
    pub(crate) fn end(&mut self) {
        match self {
            Self::Waits(waiting) => waiting.ended = true,
            Self::Goes(rewriter) => rewriter.end(),
            Self::Passes(_) => {}
        }
    }

    /// The next bytes for the client; `None` asks for more, or after the end means that there are no more.
    pub(crate) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Self::Waits(waiting) = self {
            ready!(waiting.learning.as_mut().poll(context));
            let next = waiting.go_on();
            *self = next;
        }
        match self {
            Self::Waits(_) => Poll::Pending,
            Self::Goes(rewriter) => rewriter.poll_data(context),
            Self::Passes(passing) => Poll::Ready(passing.pop_front()),
        }
    }
}

impl WaitingMessage {
    /// The rewriting of what was taken, now that the login is known.
    fn go_on(&mut self) -> MessageRewriter {
        let taken = std::mem::take(&mut self.taken);
        let Some(parts) = self.parts.now(&self.namespace) else {
            return MessageRewriter::Passes(taken);
        };
        let mut rewriter = Rewriter::after(parts, std::mem::take(&mut self.before));
        for data in taken {
            rewriter.take(data);
        }
        if self.ended {
            rewriter.end();
        }
        MessageRewriter::Goes(Box::new(rewriter))
    }
}

/// All logins are known here.
#[cfg(test)]
pub(crate) type PartsOf = Box<dyn Fn(&str) -> Option<Parts>>;

#[cfg(test)]
impl MessageSource for PartsOf {
    fn parts(&self, namespace: &str) -> Option<Parts> {
        self(namespace)
    }

    fn learning(&self, _: &str) -> Option<Learning> {
        None
    }
}

#[cfg(test)]
impl From<PartsOf> for MessageParts {
    fn from(parts: PartsOf) -> Self {
        Self::of(Rc::new(parts))
    }
}
