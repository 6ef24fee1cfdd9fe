//! Starts api-gateway.

use std::time::Duration;

use distributed_tracing::api_gateway::{NAME, routes};
use distributed_tracing::client::Upstream;
use distributed_tracing::error::Failure;
// <added>
use distributed_tracing::telemetry;
// </added>
use distributed_tracing::{logs, server, settings};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    logs::init();
    // <added>
    let telemetry = telemetry::init(NAME);
    // </added>
    let address = settings::read("API_GATEWAY_ADDR", "127.0.0.1:5000")?;
    let user_service = Upstream::from_env(
        "USER_SERVICE",
        "http://127.0.0.1:5001",
        Duration::from_secs(10),
    )?;
    let served = server::serve(NAME, routes(user_service), address).await;
    // <added>
    telemetry.shutdown().ok();
    // </added>
    Ok(served?)
}
