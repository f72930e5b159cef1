//! The data that must survive a restart, in `state.directory`: whole files, and a journal of records.
//!
//! Keeps true: a crash leaves every file readable.
//! Must not know: what is in the records.

pub mod directory;
mod frames;
pub mod journal;
