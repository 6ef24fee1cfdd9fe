//! Starts OpenTelemetry for one service, and flushes it before the process ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::{SpanRef, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, SdkTracerProvider,
};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE,
};

use crate::delivery::{Counted, Delivery};
use crate::{logs, settings};

/// How long the last spans may take to reach the backend when the service stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The running telemetry of one service. Call [`Telemetry::shutdown`] before `main`
/// returns.
pub struct Telemetry {
    provider: SdkTracerProvider,
    delivery: Arc<Delivery>,
}

/// Starts logs and tracing for `service`. The standard `OTEL_*` variables apply;
/// spans go to `http://localhost:4318` over OTLP/HTTP unless
/// `OTEL_EXPORTER_OTLP_ENDPOINT` says otherwise.
///
/// # Errors
/// When an `OTEL_EXPORTER_OTLP_*` variable cannot be used. A backend that is down is
/// not an error.
pub fn init(service: &'static str) -> anyhow::Result<Telemetry> {
    logs::init();
    set_propagator();

    let delivery = Arc::new(Delivery::default());
    let mut provider = SdkTracerProvider::builder().with_resource(resource(service));
    if !disabled() {
        let exporter = SpanExporter::builder()
            .with_http()
            .build()
            .context("the OTEL_EXPORTER_OTLP_* variables cannot be used")?;
        let batches =
            BatchSpanProcessor::builder(Counted::new(exporter, &delivery)).build();
        provider = provider.with_span_processor(Counted::new(batches, &delivery));
    }
    let provider = provider.build();
    if !disabled() {
        global::set_tracer_provider(provider.clone());
    }
    Ok(Telemetry { provider, delivery })
}

impl Telemetry {
    /// Sends the spans that are still queued, waits at most five seconds, and logs
    /// what was lost.
    pub fn shutdown(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not flushed");
        }
        self.delivery.report();
    }
}

/// W3C trace context and baggage. Without this call the propagator is one that does
/// nothing, silently.
pub fn set_propagator() {
    global::set_text_map_propagator(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]));
}

/// The tracer that all spans of this crate come from.
pub fn tracer() -> BoxedTracer {
    global::tracer("distributed_tracing")
}

/// Marks a span as failed. `error_type` has few values, so that errors can be
/// counted by it.
pub fn record_error(
    span: &SpanRef<'_>,
    error_type: impl Into<Value>,
    message: String,
) {
    span.set_attribute(KeyValue::new(ERROR_TYPE, error_type));
    span.set_status(Status::error(message));
}

/// Who the spans come from. Variables win over what the code says.
fn resource(service: &'static str) -> Resource {
    let instance = RandomIdGenerator::default().new_trace_id().to_string();
    let mut resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new(SERVICE_NAME, service),
            KeyValue::new(SERVICE_NAMESPACE, "one-trace"),
            KeyValue::new(SERVICE_INSTANCE_ID, instance),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = settings::optional("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(name);
    }
    resource.build()
}

/// `OTEL_SDK_DISABLED=true` keeps propagation and turns spans off.
fn disabled() -> bool {
    settings::optional("OTEL_SDK_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}
