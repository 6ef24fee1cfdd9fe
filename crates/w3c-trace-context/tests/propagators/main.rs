//! The propagators: what the standards say of them, what they do with any input, and where they and the SDK's own agree.

mod logs;
mod properties;
mod sdk;
mod specification;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use opentelemetry::{Context, KeyValue};
use w3c_trace_context::{
    BaggagePropagator, HeaderExtractor, HeaderInjector, TraceContextPropagator,
};

/// Headers in order. A name may appear more than once.
fn headers<Value: AsRef<[u8]>>(list: &[(&str, Value)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("a value"));
    }
    headers
}

fn extract(propagator: &dyn TextMapPropagator, headers: &HeaderMap) -> Context {
    propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

fn inject(propagator: &dyn TextMapPropagator, cx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    propagator.inject_context(cx, &mut HeaderInjector(&mut headers));
    headers
}
