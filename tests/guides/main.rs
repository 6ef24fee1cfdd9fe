//! Every guide shows what its example does: each module here runs the example of one page, asserts the traces, and
//! compares them with the figures of the page.
//!
//! `SNAPSHOTS=overwrite cargo test --test guides` records them anew.

mod component;
mod example;
mod form;
#[path = "../support/mod.rs"]
mod support;

mod logs_and_metrics;
mod polyglot;
mod sampling;
mod service_mesh;
mod symptoms;
mod tasks_and_threads;
mod test_propagation;
mod timeouts_and_retries;
mod trust_boundaries;
mod with_tracing;
