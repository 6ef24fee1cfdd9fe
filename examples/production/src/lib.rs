//! The three services of the tutorial, prepared for production: what the guides add
//! to them, and build on.

pub mod api_gateway;
pub mod delivery;
pub mod error;
pub mod incoming;
pub mod llm_service;
pub mod logs;
pub mod model;
pub mod outgoing;
pub mod server;
pub mod service;
pub mod settings;
pub mod spans;
pub mod telemetry;
pub mod user_service;
