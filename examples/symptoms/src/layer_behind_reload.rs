//! A subscriber whose filter can be changed while it runs.

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use production::incoming::extract_context_from_carrier;
use tracing::{info_span, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, exporter, layer, provider};
use crate::stock::serve;

/// Wrong: behind `reload::Layer` the layer is not found, neither by `set_parent` nor
/// by `context`.
pub async fn broken() -> anyhow::Result<()> {
    let provider = provider("stock", exporter()?);
    let spans = layer(&provider).with_filter(LevelFilter::INFO);
    let (spans, _handle) = reload::Layer::new(spans);
    tracing_subscriber::registry().with(spans).init();
    serve(routes()).await?;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

/// Only the filter is behind `reload::Layer`.
pub async fn repaired() -> anyhow::Result<()> {
    let provider = provider("stock", exporter()?);
    let (filter, _handle) = reload::Layer::new(LevelFilter::INFO);
    let spans = layer(&provider).with_filter(filter);
    tracing_subscriber::registry().with(spans).init();
    serve(routes()).await?;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

fn routes() -> Router {
    Router::new().route("/reserve", post(reserve))
}

async fn reserve(request: Request) -> &'static str {
    let span = info_span!("POST /reserve", otel.kind = "server");
    if let Err(error) =
        span.set_parent(extract_context_from_carrier(request.headers()))
    {
        eprintln!("the caller's trace is not continued: {error}");
    }
    span.in_scope(|| "1")
}
