//! One of the three services of the tutorial, as it is without tracing: it makes no
//! span, and forwards no header.

use std::time::Duration;

use anyhow::anyhow;
use distributed_tracing::error::Failure;
use distributed_tracing::model::Model;
use distributed_tracing::outgoing::Upstream;
use distributed_tracing::{server, settings};

// Their `main`s are not called.
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/api_gateway.rs"]
mod api_gateway;
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/llm_service.rs"]
mod llm_service;
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/user_service.rs"]
mod user_service;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let (variable, routes) = match &*name {
        "api-gateway" => {
            let user_service = next("USER_SERVICE", "http://127.0.0.1:5001")?;
            ("API_GATEWAY_ADDR", api_gateway::routes(user_service))
        }
        "user-service" => {
            let llm_service = next("LLM_SERVICE", "http://127.0.0.1:5002")?;
            ("USER_SERVICE_ADDR", user_service::routes(llm_service))
        }
        "llm-service" => ("LLM_SERVICE_ADDR", llm_service::routes(Model::offline())),
        _ => {
            let names = "api-gateway, user-service or llm-service";
            return Err(anyhow!("say which service: {names}").into());
        }
    };
    // Nobody has called `telemetry::init`: what the library calls does nothing.
    let address = settings::read(variable, "127.0.0.1:0")?;
    Ok(server::serve(&name, routes, address).await?)
}

fn next(name: &str, url: &str) -> anyhow::Result<Upstream> {
    Upstream::from_env(name, url, Duration::from_secs(10))
}
