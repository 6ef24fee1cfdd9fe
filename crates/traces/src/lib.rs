//! What is in a trace, seen from outside: spans as they arrive, their tree, where the time went, what looks broken, and
//! the picture of it all. No clock, no file and no socket: the lab and a browser run the same code.

pub mod analysis;
pub mod case;
pub mod diagnose;
pub mod exchange;
pub mod otlp;
pub mod report;
pub mod span;
pub mod summary;
pub mod tree;
pub mod waterfall;

pub use w3c_trace_context::traceparent;
