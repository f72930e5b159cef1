//! Who is calling: JSON Web Tokens, the keys that verify them, and which logins were refused.
//!
//! Must not know: what a caller may do.

pub mod jwt;
pub mod remembered;
