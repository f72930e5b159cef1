//! May they? Who is calling, whether their account is in good standing, which streams are live, who holds which token.

pub mod accounts;
pub mod authorize;
pub mod endpoint;
pub mod fields;
pub mod jwt;
pub mod logins;
pub mod lookup;
pub mod mongodb;
pub mod outage;
pub mod proven;
pub mod sessions;
pub mod streams;
