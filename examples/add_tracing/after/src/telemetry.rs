//! Starts log lines and spans. Both come from `tracing`.

use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, global};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::{Layer, Registry, prelude::*};

/// Prints log lines by the layer `lines`, but only those that `filter` lets through.
/// Sends spans of level INFO and above to `OTEL_EXPORTER_OTLP_ENDPOINT`.
pub fn init<L>(lines: L, filter: EnvFilter) -> SdkTracerProvider
where
    L: Layer<Registry> + Send + Sync,
{
    global::set_text_map_propagator(TraceContextPropagator::new());
    let mut provider = SdkTracerProvider::builder();
    match SpanExporter::builder().with_http().build() {
        Ok(exporter) => provider = provider.with_batch_exporter(exporter),
        Err(_) => eprintln!("no span is sent: check OTEL_EXPORTER_OTLP_*"),
    }
    let provider = provider.build();
    let tracer = provider.tracer(module_path!());
    let spans = tracing_opentelemetry::layer().with_tracer(tracer);
    // Lines show the trace id of their request, whatever else the filter removes.
    let filter = match "request=error".parse() {
        Ok(always) => filter.add_directive(always),
        Err(_) => filter,
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans.with_filter(LevelFilter::INFO))
        .init();
    provider
}

/// The id of the current trace, for the log lines of a spawned task.
pub fn trace_id() -> String {
    Context::map_current(|it| it.span().span_context().trace_id().to_string())
}
