//! Three HTTP services: api-gateway calls user-service, which calls llm-service.

pub mod api_gateway;
pub mod client;
pub mod error;
pub mod event_type;
// ANCHOR: incoming
pub mod incoming;
// ANCHOR_END: incoming
pub mod llm_service;
pub mod logs;
pub mod model;
// ANCHOR: outgoing
pub mod outgoing;
// ANCHOR_END: outgoing
pub mod server;
pub mod settings;
// ANCHOR: spans
pub mod spans;
// ANCHOR_END: spans
// ANCHOR: telemetry
pub mod telemetry;
// ANCHOR_END: telemetry
pub mod user_service;
