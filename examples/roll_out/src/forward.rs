//! Passes a caller's headers on in a service that records no spans.

use axum::http::HeaderMap;

/// The headers of a trace: those of the W3C, and B3.
const CONTEXT: [&str; 8] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
];

/// Returns the headers of a request that belong into every call that it causes.
pub fn context_headers(request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in CONTEXT {
        for value in request.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    headers
}
