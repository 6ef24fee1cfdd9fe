//! Solutions of the book's exercises. Each is a changed copy of a file of
//! `examples/production` or a new module.

pub mod caching_user_service;
pub mod hang_up;
pub mod limiting_llm_service;
pub mod plan_api_gateway;
pub mod plan_llm_service;
pub mod titling_user_service;

// So that the solutions can name them as the services do.
use production::{error, model, outgoing, server, service, settings, spans};
