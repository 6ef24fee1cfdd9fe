//! Makes OpenTelemetry spans of `tracing`'s.

use std::time::Duration;

use anyhow::Context as _;
use distributed_tracing::telemetry;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How long the last spans may take to the backend.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts tracing for `service`, and log lines. The provider must be shut down
/// before `main` returns.
///
/// # Errors
/// When an `OTEL_EXPORTER_OTLP_*` variable cannot be used.
pub fn init(service: &'static str) -> anyhow::Result<SdkTracerProvider> {
    telemetry::set_propagator();
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.namespace", "one-trace"));
    let exporter = SpanExporter::builder()
        .with_http()
        .build()
        .context("the OTEL_EXPORTER_OTLP_* variables cannot be used")?;
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build();
    // For spans that are made with OpenTelemetry's own API.
    global::set_tracer_provider(provider.clone());

    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("with_tracing"))
        // Neither is worth an attribute on each span.
        .with_location(false)
        .with_threads(false);
    // Each layer has a filter of its own: RUST_LOG is about lines alone.
    let traced = Targets::new()
        .with_target("with_tracing", Level::INFO)
        .with_target("tower_otel", Level::INFO);
    let printed = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,opentelemetry=warn"));
    tracing_subscriber::registry()
        .with(spans.with_filter(traced))
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_filter(printed),
        )
        .init();
    Ok(provider)
}
