//! Sends the id of the trace back to the client, in `Server-Timing`.

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;

/// Adds the SERVER span's ids to the answer, and lets scripts of `page` read them.
/// Runs inside `continue_trace`, where the SERVER span is the current one.
pub async fn report_trace(
    State(page): State<HeaderValue>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let span = Context::map_current(|cx| cx.span().span_context().clone());
    let (trace, id, flags) = (span.trace_id(), span.span_id(), span.trace_flags());
    let timing = format!("traceparent;desc=\"00-{trace}-{id}-{flags:02x}\"");
    if let (true, Ok(timing)) = (span.is_valid(), HeaderValue::try_from(timing)) {
        response.headers_mut().append("server-timing", timing);
        response.headers_mut().append("timing-allow-origin", page);
    }
    response
}
