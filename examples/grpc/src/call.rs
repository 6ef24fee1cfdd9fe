// ANCHOR: code
//! The span of one gRPC call, which ends with the call's status.

use axum::http::HeaderMap;
use opentelemetry::trace::{
    SpanBuilder, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_semantic_conventions::attribute::{
    RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME,
};
use production::telemetry::{record_error, tracer};
use tonic::Code;

use crate::code;
use crate::deadline::Deadline;

/// The name of every method that the service doesn't have.
pub const OTHER: &str = "_OTHER";

/// A call whose span is open. If it's dropped before it ends, nobody waits for the
/// answer any longer.
pub struct Call {
    cx: Context,
    kind: SpanKind,
    deadline: Deadline,
    open: bool,
}

impl Call {
    /// Starts the span of a call to `method`, such as `one_trace.Llm/Generate`.
    pub fn start(
        kind: SpanKind,
        method: String,
        parent: &Context,
        headers: &HeaderMap,
        mut attributes: Vec<KeyValue>,
    ) -> Call {
        attributes.push(KeyValue::new(RPC_SYSTEM_NAME, "grpc"));
        attributes.push(KeyValue::new(RPC_METHOD, method.clone()));
        let name = if method == OTHER {
            "grpc".to_owned()
        } else {
            method
        };
        let span = SpanBuilder::from_name(name)
            .with_kind(kind.clone())
            .with_attributes(attributes);
        let span = tracer().build_with_context(span, parent);
        Call {
            cx: parent.with_span(span),
            kind,
            deadline: Deadline::of(headers),
            open: true,
        }
    }

    /// Returns the context with the call's span.
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// Returns whether the caller's time is up.
    pub fn is_late(&self) -> bool {
        self.deadline.has_passed()
    }

    /// Records the status and ends the span, unless it has ended.
    pub fn end(&mut self, code: Code) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let (span, name) = (self.cx.span(), code::name(code));
        span.set_attribute(KeyValue::new(RPC_RESPONSE_STATUS_CODE, name));
        if is_error(&self.kind, code) {
            record_error(&span, name, String::new());
        }
        span.end();
    }
}

/// Returns whether a call that ends with `code` is an error for this side.
fn is_error(kind: &SpanKind, code: Code) -> bool {
    match kind {
        SpanKind::Server => matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ),
        _ => code != Code::Ok,
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(match () {
            () if std::thread::panicking() => Code::Unknown,
            () if self.is_late() => Code::DeadlineExceeded,
            () => Code::Cancelled,
        });
    }
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::global;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

    /// A handler that panics didn't lose its caller.
    #[test]
    fn a_call_that_panics_is_unknown_and_an_error() {
        let spans = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder();
        let provider = provider.with_simple_exporter(spans.clone()).build();
        global::set_tracer_provider(provider);
        let panicked = std::panic::catch_unwind(|| {
            let (cx, headers) = (Context::new(), HeaderMap::new());
            let method = "one_trace.Llm/Generate".to_owned();
            let _call = Call::start(SpanKind::Server, method, &cx, &headers, vec![]);
            panic!("a handler panics");
        });
        panicked.expect_err("it panics");
        let spans = spans.get_finished_spans().expect("spans");
        let unknown = KeyValue::new(RPC_RESPONSE_STATUS_CODE, "UNKNOWN");
        assert!(spans[0].attributes.contains(&unknown), "{spans:?}");
        let error = opentelemetry::trace::Status::error("");
        assert_eq!(spans[0].status, error);
    }
}
