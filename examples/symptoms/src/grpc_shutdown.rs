//! Shutting down an exporter over gRPC on the only thread of a runtime.

use opentelemetry_otlp::SpanExporter;
use production::logs;

use crate::setup::{FLUSH, pay, provider};

/// Wrong: the call blocks the thread that the exporter needs to send with, and
/// nothing moves until the time is over.
pub async fn broken() -> anyhow::Result<()> {
    logs::init();
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let provider = provider("shop", exporter);
    pay().await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

/// Another thread waits, and the runtime goes on.
pub async fn repaired() -> anyhow::Result<()> {
    logs::init();
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let provider = provider("shop", exporter);
    pay().await;
    let flush = move || provider.shutdown_with_timeout(FLUSH);
    Ok(tokio::task::spawn_blocking(flush).await??)
}
