//! The outgoing half of propagation: a span for each call, its ids in the headers.

use axum::http::{HeaderMap, StatusCode};
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderInjector;
use reqwest::Url;

/// Starts a CLIENT span for a POST to `url`.
pub fn client_span(path: &str, url: &Url) -> BoxedSpan {
    let tracer = global::tracer("distributed_tracing");
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = i64::from(url.port_or_known_default().unwrap_or_default());
    tracer
        .span_builder(format!("POST {path}"))
        .with_kind(SpanKind::Client)
        .with_attributes([
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("url.full", url.to_string()),
            KeyValue::new("server.address", host),
            KeyValue::new("server.port", port),
        ])
        .start(&tracer)
}

/// Writes the ids of the current span into `headers`.
pub fn inject_context_into_carrier(headers: &mut HeaderMap) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), &mut HeaderInjector(headers));
    });
}

/// Records the status of an answer on the current span.
pub fn record_status(status: StatusCode) {
    let code = i64::from(status.as_u16());
    let code = KeyValue::new("http.response.status_code", code);
    Context::map_current(|cx| cx.span().set_attribute(code));
}
