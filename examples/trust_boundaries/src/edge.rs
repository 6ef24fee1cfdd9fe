//! What to believe of those who call: strict propagators, and an edge that takes no
//! stranger's word.

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

/// As in `src/telemetry.rs` of the tutorial: only the crate that the two propagators
/// come from is another.
pub fn set_propagator() {
    global::set_text_map_propagator(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ]));
}

/// `routes` at the edge of a system: each request begins a trace of its own, and its
/// first span has a link to what the stranger sent.
pub fn edge(routes: Router, pause: Duration) -> Router {
    server::traced(routes.layer(from_fn(link_stranger)), pause)
        .layer(from_fn(take_no_word))
}

/// The sampler of a service that partners call: their traces go on, and of those
/// that they record we record the share `ratio`, from 0.0 to 1.0.
pub fn edge_sampler(ratio: f64) -> ParentBasedSampler {
    let ratio = || Box::new(Sampler::TraceIdRatioBased(ratio)) as Box<_>;
    Sampler::parent_based(ratio()).with_remote_parent_sampled(ratio())
}

/// The span that a stranger named, for a link.
#[derive(Clone)]
struct Stranger(SpanContext);

/// Around `continue_trace`: takes the headers of propagation off the request.
async fn take_no_word(mut request: Request, next: Next) -> Response {
    let sent = extract_context_from_carrier(request.headers());
    for name in ["traceparent", "tracestate", "baggage"] {
        request.headers_mut().remove(name);
    }
    let span = sent.span().span_context().clone();
    if span.is_valid() {
        request.extensions_mut().insert(Stranger(span));
    }
    next.run(request).await
}

/// Inside of `continue_trace`: its SERVER span is the current one.
async fn link_stranger(request: Request, next: Next) -> Response {
    if let Some(Stranger(span)) = request.extensions().get() {
        Context::map_current(|cx| cx.span().add_link(span.clone(), Vec::new()));
    }
    next.run(request).await
}
