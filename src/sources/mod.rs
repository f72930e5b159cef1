//! Sources: where accounts and streams are looked up, and what holds while a source gives no answer.
//!
//! | file | what |
//! |---|---|
//! | `streams`, `accounts`, `authorize` | the three questions that decisions ask, and their answers |
//! | `lookup` | questions to a source over the network: one in flight per key, answers kept for a moment |
//! | `outage` | since when a source gives no answer |
//! | `http`, `mongodb` | the sources that are asked over the network |
//! | `proven`, `observed_fields` | whether a configured name was ever found, or may be mistyped |
//!
//! A new stream source takes four files, and its `mod` line here: its values in `config/model/source_tables.rs`, its
//! keys in `config/validate/source_tables.rs`, its own file with an impl of [`lookup::LookupSource`] in this folder,
//! and one arm in `snapshot/source_builders.rs`.
//!
//! Keeps true: a source without an answer is never a yes and never a no.
//! Must not know: what is decided with an answer.

pub(crate) mod accounts;
pub(crate) mod authorize;
pub(crate) mod http;
pub(crate) mod lookup;
pub(crate) mod mongodb;
pub(crate) mod observed_fields;
pub(crate) mod outage;
pub(crate) mod proven;
pub mod streams;
