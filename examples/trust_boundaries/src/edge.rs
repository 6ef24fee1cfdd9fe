//! Strict propagators, and an edge that begins its own traces instead of trusting
//! its callers' headers.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry::{Context, global};
use opentelemetry_sdk::trace::{ParentBasedSampler, Sampler};
use production::incoming::extract_context_from_carrier;
use production::server;
use w3c_trace_context::{BaggagePropagator, TraceContextPropagator};

/// Sets the propagators, as `src/telemetry.rs` of the tutorial does, but takes the
/// strict ones of `w3c_trace_context`.
pub fn set_propagator() {
    global::set_text_map_propagator(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]));
}

/// Puts `routes` at the edge of the system: each request begins a trace of its own,
/// whose first span links to the span that the caller sent.
pub fn edge(routes: Router, pause: Duration) -> Router {
    server::traced(routes.layer(from_fn(link_caller)), pause)
        .layer(from_fn(remove_context))
}

/// Returns the sampler for a service that partners call. Their traces continue, and
/// we record the share `ratio` (0.0 to 1.0) of those that they record.
pub fn edge_sampler(ratio: f64) -> ParentBasedSampler {
    let ratio = || Box::new(Sampler::TraceIdRatioBased(ratio)) as Box<_>;
    Sampler::parent_based(ratio()).with_remote_parent_sampled(ratio())
}

/// The span that the caller sent.
#[derive(Clone)]
struct CallerSpan(SpanContext);

/// Removes the trace headers from the request. Runs outside `continue_trace`.
async fn remove_context(mut request: Request, next: Next) -> Response {
    let sent = extract_context_from_carrier(request.headers());
    for name in ["traceparent", "tracestate", "baggage"] {
        request.headers_mut().remove(name);
    }
    let span = sent.span().span_context().clone();
    if span.is_valid() {
        request.extensions_mut().insert(CallerSpan(span));
    }
    next.run(request).await
}

/// Links the SERVER span to the caller's span. Runs inside `continue_trace`, where
/// the SERVER span is the current one.
async fn link_caller(request: Request, next: Next) -> Response {
    if let Some(CallerSpan(span)) = request.extensions().get() {
        Context::map_current(|cx| cx.span().add_link(span.clone(), Vec::new()));
    }
    next.run(request).await
}
