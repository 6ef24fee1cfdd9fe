//! Three HTTP services: api-gateway calls user-service, which calls llm-service.

pub mod api_gateway;
pub mod client;
pub mod error;
pub mod event_type;
// <added>
pub mod incoming;
// </added>
pub mod llm_service;
pub mod logs;
pub mod model;
// <added>
pub mod outgoing;
// </added>
pub mod server;
pub mod settings;
// <added>
pub mod spans;
// </added>
// <added>
pub mod telemetry;
// </added>
pub mod user_service;
