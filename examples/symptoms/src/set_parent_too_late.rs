//! `set_parent` in a function with `#[instrument]`.

use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::trace::FutureExt as _;
use production::incoming::extract_context_from_carrier;
use tracing::{Instrument as _, Span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, exporter, layer, provider};
use crate::stock::serve;

/// Wrong: the span has started before the first line runs. `set_parent` returns an
/// error, which is dropped here.
#[instrument(name = "POST /reserve", skip_all, fields(otel.kind = "server"))]
async fn too_late(headers: HeaderMap) -> Json<u32> {
    let _ = Span::current().set_parent(extract_context_from_carrier(&headers));
    Json(1)
}

/// The span is made while the caller's context is current, so it starts with the
/// right parent. Nothing here can fail the request.
async fn in_time(headers: HeaderMap) -> Json<u32> {
    let reserve = async {
        let span = info_span!("POST /reserve", otel.kind = "server");
        async { Json(1) }.instrument(span).await
    };
    let caller = extract_context_from_carrier(&headers);
    reserve.with_context(caller).await
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
