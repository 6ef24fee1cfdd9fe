//! An `https` endpoint, and an exporter that was built without TLS.

use anyhow::Context as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use production::{logs, settings};

use crate::setup::{FLUSH, pay, provider};

/// Wrong: of `opentelemetry-otlp`, this crate has `grpc-tonic` and no `tls-*`
/// feature.
pub async fn broken() -> anyhow::Result<()> {
    let backend = backend()?.replace("http://", "https://");
    spans_to(&backend).await
}

/// To a Collector on the same machine, without TLS. To one elsewhere, with the
/// feature `tls-ring` and `tls-roots`.
pub async fn repaired() -> anyhow::Result<()> {
    spans_to(&backend()?).await
}

fn backend() -> anyhow::Result<String> {
    settings::optional("OTEL_EXPORTER_OTLP_ENDPOINT")
        .context("OTEL_EXPORTER_OTLP_ENDPOINT is not set")
}

async fn spans_to(backend: &str) -> anyhow::Result<()> {
    logs::init();
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(backend)
        .build()?;
    let provider = provider("shop", exporter);
    pay().await;
    let flush = move || provider.shutdown_with_timeout(FLUSH);
    Ok(tokio::task::spawn_blocking(flush).await??)
}
