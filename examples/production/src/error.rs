//! The tutorial's errors, and how a span describes one.

pub use distributed_tracing::error::*;

/// The description of a span's error status. It is empty where the status code says
/// it all.
pub fn description(error: &CallError) -> String {
    match error {
        CallError::Status(_) => String::new(),
        _ => error.to_string(),
    }
}
