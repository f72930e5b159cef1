//! What must survive a restart, in `state.directory`: whole files, and a journal of records.
//!
//! Must not know: what is in the records.

pub mod directory;
mod frames;
pub mod journal;
