//! What operators see: metrics, log, access log, audit.

pub mod access_log;
pub mod audit;
pub mod escape;
pub mod journal;
pub mod labels;
pub mod line;
pub mod line_writer;
pub mod log;
pub mod metrics;
pub mod process;
pub mod traffic_labels;
