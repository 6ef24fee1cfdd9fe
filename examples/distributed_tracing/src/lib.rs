// ANCHOR: setup
//! What the three services share: telemetry, the two halves of propagation, and a
//! small HTTP server around them.

pub mod delivery;
pub mod error;
pub mod logs;
pub mod settings;
pub mod telemetry;
// ANCHOR_END: setup
// ANCHOR: step1
pub mod incoming;
pub mod model;
pub mod server;
// ANCHOR_END: step1
// ANCHOR: step2
pub mod outgoing;
pub mod spans;
// ANCHOR_END: step2
