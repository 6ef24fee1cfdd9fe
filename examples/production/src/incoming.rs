//! The incoming half of propagation: a span for each request.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::{
    FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_http::HeaderExtractor;

use crate::telemetry::{VALUE_LIMIT, cut, tracer};

/// The name that the conventions give to a method that HTTP doesn't define.
const OTHER: &str = "_OTHER";

/// Puts a SERVER span around a request.
pub async fn continue_trace(
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let parent = extract_context_from_carrier(request.headers());
    let method = known_method(request.method());
    let mut name = if method == OTHER { "HTTP" } else { method }.to_owned();
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.path", cut(request.uri().path(), VALUE_LIMIT)),
        KeyValue::new("url.scheme", "http"),
    ];
    if let Some(route) = route {
        name = format!("{name} {}", route.as_str());
        attributes.push(KeyValue::new("http.route", route.as_str().to_owned()));
    }
    let tracer = tracer();
    let span = tracer
        .span_builder(name)
        .with_kind(SpanKind::Server)
        .with_attributes(attributes)
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
    let _current = cx.clone().attach();
    tracing::info!(status = code, "answered");
    response
}

/// `_OTHER` if HTTP doesn't define `method`, so that no caller can choose the value.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "CONNECT" => "CONNECT",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "PATCH" => "PATCH",
        _ => OTHER,
    }
}

/// Returns the context that a caller put into its headers.
pub fn extract_context_from_carrier(headers: &HeaderMap) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
    })
}

/// Runs `work` in the context that a caller put into its headers. The spans that it
/// starts join the caller's trace.
pub async fn with_distributed_trace_context<F: Future>(
    headers: &HeaderMap,
    work: F,
) -> F::Output {
    work.with_context(extract_context_from_carrier(headers))
        .await
}
