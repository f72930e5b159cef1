//! What operators see: metrics, access log, audit.

pub mod labels;
