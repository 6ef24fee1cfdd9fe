//! Starts user-service.

use std::time::Duration;

use distributed_tracing::client::Upstream;
use distributed_tracing::error::Failure;
// <added>
use distributed_tracing::telemetry;
// </added>
use distributed_tracing::user_service::{NAME, routes};
use distributed_tracing::{logs, server, settings};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    logs::init();
    // <added>
    let telemetry = telemetry::init(NAME);
    // </added>
    let address = settings::read("USER_SERVICE_ADDR", "127.0.0.1:5001")?;
    let llm_service = Upstream::from_env(
        "LLM_SERVICE",
        "http://127.0.0.1:5002",
        Duration::from_secs(9),
    )?;
    let served = server::serve(NAME, routes(llm_service), address).await;
    // <added>
    telemetry.shutdown().ok();
    // </added>
    Ok(served?)
}
