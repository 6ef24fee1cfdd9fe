//! Starts OpenTelemetry for one service, and flushes it before the process ends.

use std::sync::Arc;
use std::time::Duration;

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

use crate::delivery::{Counted, Delivery, report_no_exporter};
use crate::{logs, settings};

/// How long the last spans may take to reach the backend when the service stops.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How many characters of a value that a caller or a server chooses go on a span. A
/// backend refuses a batch that is too large, and with it the spans of others.
pub const VALUE_LIMIT: usize = 1024;

/// The same for a prompt or an answer of a model.
pub const MESSAGE_LIMIT: usize = 4096;

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
/// Never fails: a service that can't export still does its work, and it still passes
/// on the context of each request.
pub fn init(service: &'static str) -> Telemetry {
    logs::init();
    set_propagator();

    let delivery = Arc::new(Delivery::default());
    let provider = SdkTracerProvider::builder().with_resource(resource(service));
    let Some(exporter) = exporter() else {
        let provider = provider.build();
        return Telemetry { provider, delivery };
    };
    let batches =
        BatchSpanProcessor::builder(Counted::new(exporter, &delivery)).build();
    let provider = provider
        .with_span_processor(Counted::new(batches, &delivery))
        .build();
    global::set_tracer_provider(provider.clone());
    Telemetry { provider, delivery }
}

impl Telemetry {
    /// Sends the spans that are still queued, waits at most five seconds, and logs
    /// how many were lost.
    pub fn shutdown(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not flushed");
        }
        self.delivery.report();
    }
}

/// Sets the propagators for W3C trace context and baggage. The default one silently
/// does nothing.
pub fn set_propagator() {
    global::set_text_map_propagator(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]));
}

/// The tracer that all spans of this crate come from.
pub fn tracer() -> BoxedTracer {
    global::tracer("production")
}

/// The first `limit` characters of `value`.
pub fn cut(value: &str, limit: usize) -> String {
    value.chars().take(limit).collect()
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

/// Describes this process: `OTEL_SERVICE_NAME`, or `service` if it is unset, a new
/// instance id, and the attributes in `OTEL_RESOURCE_ATTRIBUTES`.
pub fn resource(service: &'static str) -> Resource {
    let instance = RandomIdGenerator::default().new_trace_id().to_string();
    let mut resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new(SERVICE_NAME, service),
            KeyValue::new(SERVICE_NAMESPACE, "one-trace"),
            KeyValue::new(SERVICE_INSTANCE_ID, instance),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    // The builder's `with_service_name` would win over the variable.
    if let Some(name) = settings::optional("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(name);
    }
    resource.build()
}

/// `None` if `OTEL_SDK_DISABLED` is `true`. Also `None` if an `OTEL_EXPORTER_OTLP_*`
/// variable can't be used, which is logged.
fn exporter() -> Option<SpanExporter> {
    if settings::flag("OTEL_SDK_DISABLED") {
        return None;
    }
    let exporter = SpanExporter::builder().with_http().build();
    exporter.inspect_err(report_no_exporter).ok()
}
