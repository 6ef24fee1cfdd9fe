//! An endpoint that is set in the code.

use anyhow::Context as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use production::{logs, settings};

use crate::setup::{FLUSH, exporter, pay, provider};

/// Wrong: over HTTP, `with_endpoint` is taken as it is, and the spans go to `/`.
pub async fn broken() -> anyhow::Result<()> {
    logs::init();
    let backend = settings::optional("OTEL_EXPORTER_OTLP_ENDPOINT")
        .context("OTEL_EXPORTER_OTLP_ENDPOINT is not set")?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(backend)
        .build()?;
    let provider = provider("shop", exporter);
    pay().await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

/// To the variable, the exporter adds `/v1/traces` itself.
pub async fn repaired() -> anyhow::Result<()> {
    logs::init();
    let provider = provider("shop", exporter()?);
    pay().await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}
