//! One of the three services of the tutorial, with the telemetry of this crate.

use std::time::Duration;

use anyhow::bail;
use axum::Router;
use distributed_tracing::error::Failure;
use distributed_tracing::model::Model;
use distributed_tracing::outgoing::Upstream;
use distributed_tracing::{server, settings};
use other_backends::telemetry;

// Their `main`s are not called.
#[allow(dead_code)]
#[path = "../../../distributed_tracing/src/bin/api_gateway.rs"]
mod api_gateway;
#[allow(dead_code)]
#[path = "../../../distributed_tracing/src/bin/llm_service.rs"]
mod llm_service;
#[allow(dead_code)]
#[path = "../../../distributed_tracing/src/bin/user_service.rs"]
mod user_service;

const DEADLINE: Duration = Duration::from_secs(9);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let service = std::env::args().nth(1).unwrap_or_default();
    let (name, address, routes) = service_named(&service)?;
    let telemetry = telemetry::init(name);
    let address = settings::read(address, "127.0.0.1:0")?;
    let served = server::serve(name, routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}

/// The name, the variable with the address, and the routes of a service.
fn service_named(
    service: &str,
) -> anyhow::Result<(&'static str, &'static str, Router)> {
    Ok(match service {
        "api-gateway" => {
            let routes = api_gateway::routes(upstream("USER_SERVICE", 5001)?);
            ("api-gateway", "API_GATEWAY_ADDR", routes)
        }
        "user-service" => {
            let routes = user_service::routes(upstream("LLM_SERVICE", 5002)?);
            ("user-service", "USER_SERVICE_ADDR", routes)
        }
        "llm-service" => {
            let routes = llm_service::routes(Model::from_env()?);
            ("llm-service", "LLM_SERVICE_ADDR", routes)
        }
        _ => bail!("say which service: api-gateway, user-service or llm-service"),
    })
}

fn upstream(name: &str, port: u16) -> anyhow::Result<Upstream> {
    Upstream::from_env(name, &format!("http://127.0.0.1:{port}"), DEADLINE)
}
