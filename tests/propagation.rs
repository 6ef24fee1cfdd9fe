//! The parts of the taught API that no service needs, but a reader will.

use distributed_tracing::incoming::with_distributed_trace_context;
use distributed_tracing::spans::{EventType, trace};
use distributed_tracing::telemetry;
use opentelemetry::global;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};

#[tokio::test]
async fn work_in_a_callers_context_joins_the_callers_trace() {
    let exporter = InMemorySpanExporter::default();
    // A sampler of its own: the one that OTEL_TRACES_SAMPLER names must not decide a test.
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_simple_exporter(exporter.clone())
        .build();
    global::set_tracer_provider(provider);
    telemetry::set_propagator();

    let mut headers = axum::http::HeaderMap::new();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", traceparent.parse().expect("a value"));
    let work = trace("a job from a queue", EventType::Chain, async {
        Ok::<_, String>(42)
    });
    assert_eq!(with_distributed_trace_context(&headers, work).await, Ok(42));

    let spans = exporter.get_finished_spans().expect("spans");
    assert_eq!(spans.len(), 1);
    assert_eq!(
        spans[0].span_context.trace_id().to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert_eq!(spans[0].parent_span_id.to_string(), "00f067aa0ba902b7");
}
