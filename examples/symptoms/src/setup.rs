//! Shared set-up for the symptoms that start OpenTelemetry themselves.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use production::spans::{EventType, trace};
use production::telemetry;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// How long the last spans may take to reach the backend.
pub const FLUSH: Duration = Duration::from_millis(500);

/// The tutorial's exporter: OTLP over HTTP, configured by the standard variables.
///
/// # Errors
/// When one of the variables cannot be used.
pub fn exporter() -> anyhow::Result<SpanExporter> {
    SpanExporter::builder()
        .with_http()
        .build()
        .context("the OTEL_EXPORTER_OTLP_* variables cannot be used")
}

/// A global provider that sends the spans of `service` to `exporter` in batches.
/// Also sets the tutorial's propagators.
pub fn provider(service: &'static str, exporter: SpanExporter) -> SdkTracerProvider {
    let provider = SdkTracerProvider::builder()
        .with_resource(telemetry::resource(service))
        .with_batch_exporter(exporter)
        .build();
    global::set_tracer_provider(provider.clone());
    telemetry::set_propagator();
    provider
}

/// Turns spans of `tracing` into OpenTelemetry spans.
pub fn layer<S>(provider: &SdkTracerProvider) -> OpenTelemetryLayer<S, SdkTracer>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer().with_tracer(provider.tracer("symptoms"))
}

/// Work under one span of its own.
pub async fn pay() {
    let paid = async { Ok::<(), Infallible>(()) };
    let Ok(()) = trace("pay", EventType::Tool, paid).await;
}
