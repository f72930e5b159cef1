//! What a token lets its holder do in a channel.

/// A token's role, in Agora's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Joins and publishes audio, video and data.
    Publisher,
    /// Joins and listens.
    Subscriber,
}

impl Role {
    /// Every role, for tables indexed by [`Role::index`].
    pub const ALL: [Self; 2] = [Self::Publisher, Self::Subscriber];

    /// `publisher` or `subscriber`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscriber => "subscriber",
        }
    }

    /// Position in [`Role::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
