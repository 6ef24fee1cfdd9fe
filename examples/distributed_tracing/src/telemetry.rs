//! Collects the spans of a service and sends them to a trace backend.

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;

/// Starts tracing for `service`.
pub fn init(service: &'static str) -> SdkTracerProvider {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.namespace", "one-trace"));
    let provider = SdkTracerProvider::builder().with_resource(resource.build());
    let provider = match SpanExporter::builder().with_http().build() {
        Ok(exporter) => provider.with_batch_exporter(exporter).build(),
        Err(_) => {
            tracing::warn!("no span is sent: check OTEL_EXPORTER_OTLP_*");
            provider.build()
        }
    };
    global::set_tracer_provider(provider.clone());
    provider
}
