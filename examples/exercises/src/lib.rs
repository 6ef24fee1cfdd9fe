//! Solutions of the book's exercises: each changes a file of `examples/production`
//! and is that file once more, or is a module of its own.

pub mod caching_user_service;
pub mod hang_up;
pub mod limiting_llm_service;
pub mod plan_api_gateway;
pub mod plan_llm_service;
pub mod titling_user_service;

// So that the solutions can name them as the services do.
use production::{error, model, outgoing, service, settings, spans};
