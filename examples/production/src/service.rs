//! The three services by name.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use axum::Router;

use crate::{api_gateway, llm_service, user_service};

/// One of the three services, as the environment sets it up.
pub struct Service {
    pub name: &'static str,
    pub address: SocketAddr,
    pub routes: Router,
}

/// The name of the service that the first argument of this program names.
///
/// # Errors
/// When it names none.
pub fn chosen() -> anyhow::Result<&'static str> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let names = ["api-gateway", "user-service", "llm-service"];
    let name = names.into_iter().find(|it| *it == name);
    name.context("say which service: api-gateway, user-service or llm-service")
}

impl Service {
    /// # Errors
    /// When no service has this name, or a variable cannot be used.
    pub fn named(name: &str) -> anyhow::Result<Service> {
        match name {
            "api-gateway" => api_gateway::from_env(),
            "user-service" => user_service::from_env(),
            "llm-service" => llm_service::from_env(),
            _ => bail!("no service has the name {name}"),
        }
    }
}
