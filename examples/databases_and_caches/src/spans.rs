//! Runs work inside a span. If it fails, the span gets a code and no message.

use opentelemetry::trace::{
    FutureExt as _, SpanBuilder, Status, TraceContextExt as _,
};
use opentelemetry::{Context, KeyValue, global};

use crate::codes::ErrorCode;

/// Runs `work` inside a span.
///
/// # Errors
/// Fails as `work` does.
pub async fn in_span<T, E: ErrorCode>(
    span: SpanBuilder,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let cx =
        Context::current_with_span(span.start(&global::tracer("order-service")));
    let result = work.with_context(cx.clone()).await;
    if let Err(error) = &result {
        let span = cx.span();
        let code = error.status_code();
        let error_type = code.clone().unwrap_or_else(|| error.word().into());
        span.set_attribute(KeyValue::new("error.type", error_type));
        if let Some(code) = code {
            span.set_attribute(KeyValue::new("db.response.status_code", code));
        }
        span.set_status(Status::error(""));
    }
    cx.span().end();
    result
}
