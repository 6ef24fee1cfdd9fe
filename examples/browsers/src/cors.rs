//! Lets the pages of one other origin call this service, send trace headers and read
//! the trace's id.

use std::time::Duration;

use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use tower_http::cors::CorsLayer;

/// Allows pages of `origin`, such as `https://shop.example`, to call this service.
pub fn cors(origin: HeaderValue) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            CONTENT_TYPE,
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("tracestate"),
            HeaderName::from_static("baggage"),
        ])
        .expose_headers([HeaderName::from_static("server-timing")])
        .max_age(Duration::from_secs(3600))
}
