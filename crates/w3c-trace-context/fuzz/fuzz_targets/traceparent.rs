//! Whatever comes as `traceparent` gives a valid parent that is passed on in the same words, or none.
#![no_main]

mod common;

use common::{append, receive, send};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use opentelemetry::trace::TraceContextExt as _;
use w3c_trace_context::TraceContextPropagator;

fuzz_target!(|data: &[u8]| {
    let propagator = TraceContextPropagator::new();
    let mut headers = HeaderMap::new();
    append(&mut headers, "traceparent", data);
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
});
