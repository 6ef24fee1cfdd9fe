//! Starts llm-service.

use distributed_tracing::error::Failure;
use distributed_tracing::llm_service::{NAME, routes};
// ANCHOR: telemetry_import
use distributed_tracing::telemetry;
// ANCHOR_END: telemetry_import
use distributed_tracing::{logs, server, settings};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    logs::init();
    // ANCHOR: telemetry
    let telemetry = telemetry::init(NAME);
    // ANCHOR_END: telemetry
    let address = settings::read("LLM_SERVICE_ADDR", "127.0.0.1:5002")?;
    let served = server::serve(NAME, routes(), address).await;
    // ANCHOR: shutdown
    telemetry.shutdown().ok();
    // ANCHOR_END: shutdown
    Ok(served?)
}
