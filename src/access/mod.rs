//! May they? Who is calling, which streams are live, who holds which token.

pub mod jwt;
pub mod sessions;
pub mod streams;
