//! Spans of our own: a name and a kind of work around any future, and details added
//! from inside it.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt::Display;

use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};

use crate::telemetry::{record_error, tracer};

/// HoneyHive's attribute for the kind of work.
pub const EVENT_TYPE: &str = "honeyhive_event_type";

/// The kind of work that a span stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// A call of a language model.
    Model,
    /// A piece of ordinary work: a check, a query, a call of a function.
    Tool,
    /// A sequence of models and tools.
    Chain,
    /// A conversation of several requests.
    Session,
    /// None of these.
    Generic,
}

impl EventType {
    /// The value of [`EVENT_TYPE`].
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Model => "model",
            EventType::Tool => "tool",
            EventType::Chain => "chain",
            EventType::Session => "session",
            EventType::Generic => "generic",
        }
    }
}

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
