//! Whatever comes as `baggage` is kept within its limits, and what is passed on is read again as it was.
#![no_main]

mod common;

use common::{append, receive, send};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use opentelemetry::baggage::{Baggage, BaggageExt as _};
use w3c_trace_context::BaggagePropagator;

/// Whether each entry of `one` is in `other` too.
fn within(one: &Baggage, other: &Baggage) -> bool {
    let mut entries = one.iter();
    entries.all(|(key, entry)| other.get_with_metadata(key.as_str()) == Some(entry))
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
    let again = receive(&propagator, &sent);
    let (came, again) = (cx.baggage(), again.baggage());
    // An entry that is longer when encoded may no longer fit.
    assert!(within(again, came));
    assert!(length > 7000 || within(came, again));
});
