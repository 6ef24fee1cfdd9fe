//! A filter that lists the targets whose spans are exported, to keep out those of
//! other crates.

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use production::incoming::extract_context_from_carrier;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument as _, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, exporter, layer, provider};
use crate::stock::serve;

/// Makes the span as middleware of another crate does, with that crate's target.
async fn server_span(request: Request, next: Next) -> Response {
    let span =
        info_span!(target: "middleware", "POST /reserve", otel.kind = "server");
    // This fails when the span is filtered out. The request must go on.
    let _ = span.set_parent(extract_context_from_carrier(request.headers()));
    next.run(request).instrument(span).await
}

#[instrument]
async fn reserve() -> Json<u32> {
    Json(1)
}

/// Wrong: the list has our own crate alone, so the SERVER span is filtered out, and
/// with it the caller's context.
pub async fn broken() -> anyhow::Result<()> {
    stock(Targets::new().with_target("symptoms", LevelFilter::INFO)).await
}

/// The list has the middleware too.
pub async fn repaired() -> anyhow::Result<()> {
    let own = Targets::new().with_target("symptoms", LevelFilter::INFO);
    stock(own.with_target("middleware", LevelFilter::INFO)).await
}

async fn stock(exported: Targets) -> anyhow::Result<()> {
    let provider = provider("stock", exporter()?);
    let spans = layer(&provider).with_filter(exported);
    tracing_subscriber::registry().with(spans).init();
    let routes = Router::new().route("/reserve", post(reserve));
    serve(routes.layer(from_fn(server_span))).await?;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}
