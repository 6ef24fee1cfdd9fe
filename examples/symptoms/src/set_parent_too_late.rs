//! `set_parent` in a function that has `#[instrument]`.

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use distributed_tracing::incoming::extract_context_from_carrier;
use tracing::{Instrument as _, Span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, exporter, layer, provider};
use crate::stock::serve;

/// Wrong: the span has begun before its first line runs. `set_parent` says so, and
/// nobody listens.
#[instrument(name = "POST /reserve", skip_all, fields(otel.kind = "server"))]
async fn too_late(headers: HeaderMap) -> Json<u32> {
    let _ = Span::current().set_parent(extract_context_from_carrier(&headers));
    Json(1)
}

/// The span gets its parent first, and is entered then.
async fn in_time(headers: HeaderMap) -> Result<Json<u32>, StatusCode> {
    let span = info_span!("POST /reserve", otel.kind = "server");
    span.set_parent(extract_context_from_carrier(&headers))
        .map_err(|error| {
            tracing::error!(%error, "the caller's trace is not continued");
            StatusCode::INTERNAL_SERVER_ERROR
        })?;
    async { Ok(Json(1)) }.instrument(span).await
}

pub async fn broken() -> anyhow::Result<()> {
    stock(Router::new().route("/reserve", post(too_late))).await
}

pub async fn repaired() -> anyhow::Result<()> {
    stock(Router::new().route("/reserve", post(in_time))).await
}

async fn stock(routes: Router) -> anyhow::Result<()> {
    let provider = provider("stock", exporter()?);
    tracing_subscriber::registry().with(layer(&provider)).init();
    serve(routes).await?;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}
