//! Public keys, and the DER that keys and certificates come in.
//!
//! Must not know: where a key comes from, and what its signatures are for.

pub(crate) mod der;
pub mod public_key;
