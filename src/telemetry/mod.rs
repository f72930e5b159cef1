//! The reports to operators: metrics, log, access log, audit.
//!
//! Keeps true: a request never waits for a reader of these.
//! Must not know: how requests are served.

pub mod access_log;
pub mod audit;
pub(crate) mod escape;
pub(crate) mod journal;
pub mod labels;
pub(crate) mod line;
pub mod line_writer;
pub mod log;
pub mod metrics;
pub(crate) mod process;
pub mod traffic_labels;
