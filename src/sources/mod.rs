//! Where accounts, streams and the last word are looked up, and what is true while a source gives no answer.
//!
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
