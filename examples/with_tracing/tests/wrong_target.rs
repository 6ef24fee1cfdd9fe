//! The layer's filter names another crate, as it does when the guide's name was
//! copied. Requests succeed, and one warning says that they have no spans.

mod log;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::post;
use log::Log;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tower::ServiceExt as _;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use with_tracing::by_hand::continue_trace;

#[tokio::test]
async fn spans_of_a_crate_that_the_filter_does_not_name_are_missed_once()
-> anyhow::Result<()> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let log = Log::default();
    let writer = log.clone();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let named = Targets::new().with_target("another_crate", Level::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry()
        .with(spans.with_filter(named))
        .with(lines);
    let _subscriber = tracing::subscriber::set_default(subscriber);

    let routes = Router::new()
        .route("/process", post(async || "done"))
        .layer(from_fn(continue_trace));
    for _ in 0..2 {
        let request = Request::post("/process").body(Body::empty())?;
        let response = routes.clone().oneshot(request).await?;
        assert_eq!(response.status(), StatusCode::OK);
    }
    let log = log.text();
    let warnings = log.matches("requests have no span here").count();
    let spans = exporter.get_finished_spans()?.len();
    assert_eq!((spans, warnings), (0, 1), "{log}");
    Ok(())
}
