//! api-gateway or user-service of the tutorial, which notices that its caller hung
//! up.

use std::time::Duration;

use axum::middleware::from_fn;
use exercises::hang_up::notice_hang_up;
use production::error::Failure;
use production::outgoing::Upstream;
use production::{api_gateway, server, settings, telemetry, user_service};

const DEADLINE: Duration = Duration::from_secs(9);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let name = std::env::args().nth(1);
    let (name, variable, routes) = match name.as_deref() {
        Some("api-gateway") => {
            let routes = api_gateway::routes(upstream("USER_SERVICE", 5001)?);
            ("api-gateway", "API_GATEWAY_ADDR", routes)
        }
        Some("user-service") => {
            let routes = user_service::routes(upstream("LLM_SERVICE", 5002)?);
            ("user-service", "USER_SERVICE_ADDR", routes)
        }
        _ => {
            let problem = "say which service: api-gateway or user-service";
            return Err(anyhow::anyhow!(problem).into());
        }
    };
    let telemetry = telemetry::init(name);
    let address = settings::read(variable, "127.0.0.1:0")?;
    let routes = routes.layer(from_fn(notice_hang_up));
    let served = server::serve(name, routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}

fn upstream(name: &str, port: u16) -> anyhow::Result<Upstream> {
    Upstream::from_env(name, &format!("http://127.0.0.1:{port}"), DEADLINE)
}
