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

/// The parts for the rewriting of a message of this namespace; `None` where messages aren't searched any more.
pub(crate) type PartsOf = Box<dyn Fn(&str) -> Option<Parts>>;

/// The asking for a login, after which the parts are those of the login.
pub(crate) type Learning = Pin<Box<dyn Future<Output = ()>>>;

/// The asking that a message of this namespace needs, if any.
pub(crate) type LearningOf = Box<dyn Fn(&str) -> Option<Learning>>;

/// The parts of a socket's messages.
#[derive(Clone)]
pub(crate) struct MessageParts {
    parts: Rc<PartsOf>,
    learning: Option<Rc<LearningOf>>,
}

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
    parts: Rc<PartsOf>,
    namespace: Box<str>,
    before: Before,
    taken: VecDeque<Bytes>,
    ended: bool,
}

impl From<PartsOf> for MessageParts {
    /// All logins are known here.
    fn from(parts: PartsOf) -> Self {
        Self {
            parts: Rc::new(parts),
            learning: None,
        }
    }
}

impl MessageParts {
    /// The same; some logins may be known elsewhere.
    pub(crate) fn learning(self, learning: LearningOf) -> Self {
        Self {
            learning: Some(Rc::new(learning)),
            ..self
        }
    }

    /// The parts by what is known here.
    pub(crate) fn now(&self, namespace: &str) -> Option<Parts> {
        (self.parts)(namespace)
    }

    /// Begins the rewriting of a message of which `before` was passed on, and is taken along.
    pub(crate) fn begin(&self, namespace: &str, before: &mut Before) -> Option<MessageRewriter> {
        if let Some(learning) = self.learning.as_ref().and_then(|of| of(namespace)) {
            return Some(MessageRewriter::Waits(Box::new(WaitingMessage {
                learning,
                parts: Rc::clone(&self.parts),
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
        let Some(parts) = (self.parts)(&self.namespace) else {
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
