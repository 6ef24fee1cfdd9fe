//! The three services with `tracing` spans, made by hand and by ready-made layers.

pub mod background;
pub mod by_hand;
pub mod ready_made;
pub mod services;
pub mod telemetry;
pub mod validate;
