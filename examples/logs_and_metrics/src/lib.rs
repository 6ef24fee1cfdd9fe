//! Log lines and metrics from which one gets to the trace of a request.

pub mod lines;
pub mod metrics;
pub mod telemetry;
