//! An async HTTP client in the exporter.

use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};

use crate::setup::{FLUSH, exporter, pay, provider};

/// Wrong: batches are sent from a thread of their own, which has no tokio runtime.
pub async fn broken() -> anyhow::Result<()> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(reqwest::Client::new())
        .build()?;
    let provider = provider("shop", exporter);
    pay().await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

/// The default client blocks, which its own thread may.
pub async fn repaired() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    pay().await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}
