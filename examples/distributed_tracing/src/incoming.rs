// ANCHOR: start
//! The incoming half of propagation: a span for each request.

use axum::extract::{MatchedPath, Request};
// ANCHOR_END: start
use axum::http::HeaderMap;
// ANCHOR: imports
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::{
    FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, global};
// ANCHOR_END: imports
use opentelemetry_http::HeaderExtractor;

// ANCHOR: function
/// Puts a SERVER span around a request.
pub async fn continue_trace(
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    // ANCHOR_END: function
    let parent = extract_context_from_carrier(request.headers());
    // ANCHOR: body
    let (method, route) = (request.method().to_string(), route.as_str().to_owned());
    let tracer = global::tracer("distributed_tracing");
    let span = tracer
        .span_builder(format!("{method} {route}"))
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            KeyValue::new("url.path", request.uri().path().to_owned()),
            KeyValue::new("url.scheme", "http"),
        ])
        .start_with_context(&tracer, &parent);
    let cx = parent.with_span(span);
    let response = next.run(request).with_context(cx.clone()).await;

    let (span, status) = (cx.span(), response.status());
    let code = i64::from(status.as_u16());
    span.set_attribute(KeyValue::new("http.response.status_code", code));
    if status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
        span.set_status(Status::error(""));
    }
    span.end();
    tracing::info!(trace_id = %span.span_context().trace_id(), code, "answered");
    response
}
// ANCHOR_END: body

/// Returns the context that a caller put into its headers.
pub fn extract_context_from_carrier(headers: &HeaderMap) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
    })
}
