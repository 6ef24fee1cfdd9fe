//! The headers that the propagators read, each as a function of any bytes: a line is one header. A fuzz target calls one, and the
//! crate's tests call all of them with the committed corpus.

use std::collections::BTreeSet;

use http::HeaderMap;
use http::header::HeaderValue;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt as _;
use w3c_trace_context::{
    BaggagePropagator, HeaderExtractor, HeaderInjector, TraceContextPropagator,
};

/// The name of a target, which is also that of its folder in `corpus`, and what it calls.
pub type Decoder = (&'static str, fn(&[u8]));

/// The decoders of all targets.
pub const DECODERS: [Decoder; 3] =
    [("baggage", baggage), ("traceparent", traceparent), ("tracestate", tracestate)];

const TRACEPARENT: HeaderValue =
    HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

/// A `traceparent` gives a valid parent that is passed on unchanged, or none.
pub fn traceparent(bytes: &[u8]) {
    let propagator = TraceContextPropagator::new();
    let mut headers = HeaderMap::new();
    append(&mut headers, "traceparent", bytes);
    let cx = receive(&propagator, &headers);
    let sent = send(&propagator, &cx);
    match cx.span().span_context().is_valid() {
        false => assert!(sent.is_empty()),
        true => {
            assert_eq!(sent["traceparent"].len(), 55);
            let again = receive(&propagator, &sent);
            assert_eq!(again.span().span_context(), cx.span().span_context());
        }
    }
}

/// A `tracestate` doesn't change its `traceparent`. It is passed on within its limits, and unchanged by the next service.
pub fn tracestate(bytes: &[u8]) {
    let propagator = TraceContextPropagator::new();
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", TRACEPARENT);
    append(&mut headers, "tracestate", bytes);
    let sent = send(&propagator, &receive(&propagator, &headers));
    assert_eq!(sent["traceparent"], TRACEPARENT);
    if let Some(state) = sent.get("tracestate") {
        let state = state.to_str().expect("only printable ASCII is sent");
        assert!((1..=32).contains(&state.split(',').count()));
        assert!(state.len() <= 32 * 513 + 31);
        // A list is passed on whole or not at all.
        let came = headers.get_all("tracestate").iter().filter_map(|it| it.to_str().ok());
        assert_eq!(keys(state).collect::<BTreeSet<_>>(), came.flat_map(keys).collect());
    }
    assert_eq!(send(&propagator, &receive(&propagator, &sent)), sent);
}

/// Baggage is kept within its limits, and what was read is passed on whole.
pub fn baggage(bytes: &[u8]) {
    let propagator = BaggagePropagator::new();
    let mut headers = HeaderMap::new();
    append(&mut headers, "baggage", bytes);
    let cx = receive(&propagator, &headers);
    assert!(cx.baggage().len() <= 64);
    let sent = send(&propagator, &cx);
    assert!(sent.get("baggage").is_none_or(|value| value.len() <= 8192));
    let again = receive(&propagator, &sent);
    assert_eq!(again.baggage().len(), cx.baggage().len());
    for (key, entry) in cx.baggage() {
        assert_eq!(again.baggage().get_with_metadata(key.as_str()), Some(entry));
    }
}

fn keys(state: &str) -> impl Iterator<Item = &str> {
    state.split(',').filter_map(|member| Some(member.split_once('=')?.0.trim_matches([' ', '\t'])))
}

/// Adds each line as a header, except for those that HTTP doesn't allow.
fn append(headers: &mut HeaderMap, name: &'static str, bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
}

fn receive(propagator: &dyn TextMapPropagator, headers: &HeaderMap) -> Context {
    propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

fn send(propagator: &dyn TextMapPropagator, cx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    propagator.inject_context(cx, &mut HeaderInjector(&mut headers));
    headers
}
