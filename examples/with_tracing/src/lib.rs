//! The three services once more, with spans of `tracing`: made by hand, and by
//! layers that others have made.

pub mod by_hand;
pub mod ready_made;
pub mod services;
pub mod telemetry;
pub mod validate;
