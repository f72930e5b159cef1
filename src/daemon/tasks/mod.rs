//! What runs beside the requests for as long as the process does, one file a task.
//!
//! Must not know: requests and connections.

pub(crate) mod exposure;
pub(crate) mod health;
pub mod lapses;
pub(crate) mod session_journal;
pub(crate) mod upkeep;
