//! Whatever comes as `tracestate` never hurts its `traceparent`, and is passed on within its limits, in the same words
//! each time.
#![no_main]

mod common;

use common::{append, receive, send};
use http::HeaderMap;
use http::header::HeaderValue;
use libfuzzer_sys::fuzz_target;
use w3c_trace_context::TraceContextPropagator;

const TRACEPARENT: HeaderValue =
    HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

fuzz_target!(|data: &[u8]| {
    let propagator = TraceContextPropagator::new();
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", TRACEPARENT);
    append(&mut headers, "tracestate", data);
    let sent = send(&propagator, &receive(&propagator, &headers));
    assert_eq!(sent["traceparent"], TRACEPARENT);
    if let Some(state) = sent.get("tracestate") {
        let state = state.to_str().expect("only printable ASCII is sent");
        assert!((1..=32).contains(&state.split(',').count()));
        assert!(state.len() <= 32 * 513 + 31);
    }
    assert_eq!(send(&propagator, &receive(&propagator, &sent)), sent);
});
