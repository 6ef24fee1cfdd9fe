//! Whatever comes as `baggage` is kept within its limits, and what is passed on is read again as it was.
#![no_main]

mod common;

use common::{append, receive, send};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt as _;
use w3c_trace_context::BaggagePropagator;

/// The entries, in an order of their own.
fn entries(cx: &Context) -> Vec<String> {
    let mut entries: Vec<String> = cx.baggage().iter().map(|entry| format!("{entry:?}")).collect();
    entries.sort();
    entries
}

fuzz_target!(|data: &[u8]| {
    let propagator = BaggagePropagator::new();
    let mut headers = HeaderMap::new();
    append(&mut headers, "baggage", data);
    let cx = receive(&propagator, &headers);
    assert!(cx.baggage().len() <= 64);
    let sent = send(&propagator, &cx);
    let length = sent.get("baggage").map_or(0, |value| value.len());
    assert!(length <= 8192);
    let again = entries(&receive(&propagator, &sent));
    // An entry that is longer when encoded may no longer fit.
    assert!(again.iter().all(|entry| entries(&cx).contains(entry)));
    assert!(length > 7000 || again == entries(&cx));
});
