//! The role of a token's holder in a channel.

use super::labels::labels;

labels! {
    /// A token's role, in Agora's terms.
    #[derive(PartialOrd, Ord)]
    pub enum Role {
        /// Joins and publishes audio, video and data.
        Publisher => "publisher",
        /// Joins and listens.
        Subscriber => "subscriber",
    }
}

impl Role {
    /// Position in [`Role::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
