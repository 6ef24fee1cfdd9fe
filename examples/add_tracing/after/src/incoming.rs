//! The SERVER span of a request, made by `TraceLayer`.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use opentelemetry::global;
use opentelemetry::trace::{Status, TraceContextExt as _};
use opentelemetry_http::HeaderExtractor;
use tracing::{Span, error_span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Returns the span of a request. Its parent is the caller's span.
pub fn server_span(request: &Request) -> Span {
    let method = request.method().to_string();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map(|it| it.as_str().to_owned());
    let name = match &route {
        Some(route) => format!("{method} {route}"),
        None => method.clone(),
    };
    let span = error_span!(
        target: "request",
        "request",
        otel.name = name,
        otel.kind = "server",
        url.path = request.uri().path(),
        trace_id = Empty,
    );
    let headers = HeaderExtractor(request.headers());
    let caller = global::get_text_map_propagator(|it| it.extract(&headers));
    span.set_parent(caller).ok();
    let trace_id = span.context().span().span_context().trace_id();
    span.record("trace_id", trace_id.to_string());
    span.set_attribute("http.request.method", method);
    if let Some(route) = route {
        span.set_attribute("http.route", route);
    }
    span
}

/// Records the status of the answer.
pub fn record_status(response: &Response, _: Duration, span: &Span) {
    let status = response.status();
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set_attribute("error.type", status.as_str().to_owned());
        span.set_status(Status::error(""));
    }
}
