//! Spans of our own: a name and a kind of work around any future, and details added
//! from inside it.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt::Display;

pub use distributed_tracing::event_type::EventType;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};

use crate::telemetry::{record_error, tracer};

/// HoneyHive's attribute for the kind of work.
pub const EVENT_TYPE: &str = "honeyhive_event_type";

/// Runs `work` inside an INTERNAL span. When `work` fails, so does the span, with
/// the error's type and text.
///
/// # Errors
/// Whatever `work` returns.
pub async fn trace<T, E: Display>(
    name: impl Into<Cow<'static, str>>,
    event_type: EventType,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let tracer = tracer();
    let span = tracer
        .span_builder(name)
        .with_attributes([KeyValue::new(EVENT_TYPE, event_type.as_str())])
        .start(&tracer);
    let cx = Context::current_with_span(span);
    let result = work.with_context(cx.clone()).await;
    if let Err(error) = &result {
        record_error(&cx.span(), type_name::<E>(), error.to_string());
    }
    cx.span().end();
    result
}

/// Adds details to the current span, as `honeyhive_metadata.KEY`.
pub fn enrich_span(details: impl IntoIterator<Item = KeyValue>) {
    Context::map_current(|cx| {
        let span = cx.span();
        for KeyValue { key, value, .. } in details {
            span.set_attribute(KeyValue::new(
                format!("honeyhive_metadata.{key}"),
                value,
            ));
        }
    });
}
