//! What the three targets share: the bytes of the fuzzer as headers, and one way through a propagator.

use http::HeaderMap;
use http::header::HeaderValue;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use w3c_trace_context::{HeaderExtractor, HeaderInjector};

/// Each line is one header `name`; what HTTP does not allow in a header is left out.
pub fn append(headers: &mut HeaderMap, name: &'static str, data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
}

pub fn receive(propagator: &dyn TextMapPropagator, headers: &HeaderMap) -> Context {
    propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

pub fn send(propagator: &dyn TextMapPropagator, cx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    propagator.inject_context(cx, &mut HeaderInjector(&mut headers));
    headers
}
