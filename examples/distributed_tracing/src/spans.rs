//! Spans around any work, with its errors.

use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{
    FutureExt as _, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};

use crate::error::ErrorType;
pub use crate::event_type::EventType;

/// Runs `work` in `span`, which is marked as failed if `work` fails.
pub async fn in_span<T, E: ErrorType>(
    span: BoxedSpan,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let cx = Context::current_with_span(span);
    let result = work.with_context(cx.clone()).await;
    if let Err(error) = &result {
        let error_type = KeyValue::new("error.type", error.error_type());
        cx.span().set_attribute(error_type);
        cx.span().set_status(Status::error(error.to_string()));
    }
    cx.span().end();
    result
}

/// Runs `work` in a new span.
pub async fn trace<T, E: ErrorType>(
    name: &'static str,
    event_type: EventType,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let tracer = global::tracer("distributed_tracing");
    let event_type = KeyValue::new("honeyhive_event_type", event_type.as_str());
    let span = tracer.span_builder(name).with_attributes([event_type]);
    in_span(span.start(&tracer), work).await
}

/// Adds details to the current span.
pub fn enrich_span(details: impl IntoIterator<Item = KeyValue>) {
    Context::map_current(|cx| cx.span().set_attributes(details));
}
