//! Where accounts, streams and the last word are looked up, and what is true while a source gives no answer.
//!
//! Must not know: what is decided with an answer.

pub mod accounts;
pub mod authorize;
pub mod http;
pub mod lookup;
pub mod mongodb;
pub mod observed_fields;
pub mod outage;
pub mod proven;
pub mod streams;
