//! Starts llm-service.

use distributed_tracing::error::Failure;
use distributed_tracing::llm_service::{NAME, routes};
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
    let address = settings::read("LLM_SERVICE_ADDR", "127.0.0.1:5002")?;
    let served = server::serve(NAME, routes(), address).await;
    // <added>
    telemetry.shutdown().ok();
    // </added>
    Ok(served?)
}
