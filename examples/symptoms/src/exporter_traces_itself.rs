//! A layer that makes spans of everything, the exporter's own included.

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::task::spawn_blocking;
use tracing::instrument;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, layer, pay, provider};

/// Wrong: each export makes spans, which are exported, which makes spans.
pub async fn broken() -> anyhow::Result<()> {
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let provider = provider("shop", exporter);
    tracing_subscriber::registry().with(layer(&provider)).init();
    order().await;
    flush_twice(provider).await
}

/// Spans of our own code, and of nothing below it.
pub async fn repaired() -> anyhow::Result<()> {
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let provider = provider("shop", exporter);
    let own = Targets::new().with_target("symptoms", tracing::Level::INFO);
    tracing_subscriber::registry()
        .with(layer(&provider).with_filter(own))
        .init();
    order().await;
    flush_twice(provider).await
}

/// The first flush makes spans, and the second sends them.
async fn flush_twice(provider: SdkTracerProvider) -> anyhow::Result<()> {
    let flush = move || {
        provider.force_flush()?;
        provider.shutdown_with_timeout(FLUSH)
    };
    Ok(spawn_blocking(flush).await??)
}

#[instrument]
async fn order() {
    pay().await;
}
