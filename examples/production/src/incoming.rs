//! The incoming half of propagation: a request's headers become the parent of what
//! the service does.

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_semantic_conventions::attribute::{
    HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, URL_PATH, URL_SCHEME,
};
use tracing::info;

use crate::telemetry::{record_error, tracer};

/// The context that the caller sent: its span, whether it is sampled, and its
/// baggage. Headers that are missing or malformed give an empty context, which
/// starts a new trace.
pub fn extract_context_from_carrier(headers: &HeaderMap) -> Context {
    // From an empty context, and not from the current one: a request belongs to its
    // caller alone.
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
    })
}

/// Runs `work` in the caller's context, so that every span that it starts joins the
/// caller's trace.
pub async fn with_distributed_trace_context<F: Future>(
    headers: &HeaderMap,
    work: F,
) -> F::Output {
    work.with_context(extract_context_from_carrier(headers))
        .await
}

/// Middleware: one SERVER span around every request, as a child of the caller's
/// span.
pub async fn continue_trace(request: Request, next: Next) -> Response {
    let parent = extract_context_from_carrier(request.headers());
    let cx = parent.with_span(server_span(&request, &parent));
    async {
        let response = next.run(request).await;
        end_server_span(&Context::current(), &response);
        response
    }
    .with_context(cx)
    .await
}

/// Named after the route and never after the raw path, which would give every user a
/// span name of their own.
fn server_span(request: &Request, parent: &Context) -> BoxedSpan {
    let method = known_method(request.method());
    let verb = if method == OTHER { "HTTP" } else { method };
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str);
    let name = match route {
        Some(route) => format!("{verb} {route}"),
        None => verb.to_owned(),
    };
    let mut attributes = vec![
        KeyValue::new(HTTP_REQUEST_METHOD, method),
        KeyValue::new(URL_PATH, request.uri().path().to_owned()),
        KeyValue::new(URL_SCHEME, "http"),
    ];
    attributes
        .extend(route.map(|route| KeyValue::new(HTTP_ROUTE, route.to_owned())));
    let tracer = tracer();
    tracer
        .span_builder(name)
        .with_kind(SpanKind::Server)
        .with_attributes(attributes)
        .start_with_context(&tracer, parent)
}

/// A 4xx answer is the client's error and leaves the SERVER span unset; a 5xx answer
/// is ours.
fn end_server_span(cx: &Context, response: &Response) {
    let (span, status) = (cx.span(), response.status());
    span.set_attribute(KeyValue::new(
        HTTP_RESPONSE_STATUS_CODE,
        i64::from(status.as_u16()),
    ));
    if status.is_server_error() {
        record_error(&span, status.as_str().to_owned(), String::new());
    }
    span.end();
    info!(status = status.as_u16(), "answered");
}

// ANCHOR: method
/// The conventions' name for a method that HTTP does not know.
const OTHER: &str = "_OTHER";

/// Returns `_OTHER` for an unknown method, so that no caller can choose the value.
fn known_method(method: &axum::http::Method) -> &'static str {
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
// ANCHOR_END: method
