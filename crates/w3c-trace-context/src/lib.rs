//! W3C Trace Context and Baggage for OpenTelemetry, to the letter of the standards.
//!
//! [`TraceContextPropagator`] reads and writes `traceparent` and `tracestate`, [`BaggagePropagator`] reads and writes
//! `baggage`. Both are [`TextMapPropagator`](opentelemetry::propagation::TextMapPropagator)s, and take the place of the
//! SDK's own. [`HeaderExtractor`] and [`HeaderInjector`] join them to [`http::HeaderMap`], and see every value of a header
//! that is repeated.
//!
//! ```
//! use http::HeaderMap;
//! use opentelemetry::trace::TraceContextExt as _;
//! use opentelemetry::{Context, global};
//! use w3c_trace_context::{HeaderExtractor, HeaderInjector, TraceContextPropagator};
//!
//! global::set_text_map_propagator(TraceContextPropagator::new());
//!
//! let mut received = HeaderMap::new();
//! let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
//! received.insert("traceparent", traceparent.parse()?);
//! let cx = global::get_text_map_propagator(|propagator| {
//!     propagator.extract_with_context(&Context::new(), &HeaderExtractor(&received))
//! });
//! assert!(cx.span().span_context().is_sampled());
//!
//! let mut sent = HeaderMap::new();
//! global::get_text_map_propagator(|propagator| {
//!     propagator.inject_context(&cx, &mut HeaderInjector(&mut sent));
//! });
//! assert_eq!(sent["traceparent"], traceparent);
//! # Ok::<(), http::header::InvalidHeaderValue>(())
//! ```
//!
//! # Without OpenTelemetry
//!
//! [`Traceparent`] reads and writes the value of the header by itself and says which byte of an invalid value is wrong. It
//! needs no feature: `default-features = false` leaves out the propagators, OpenTelemetry and `http`. The feature `serde`
//! reads and writes trace and span ids as text.
//!
//! # What is strict about it
//!
//! Invalid headers are ignored: an invalid `traceparent` starts a new trace, an invalid `tracestate` is left out, and an
//! invalid entry of `baggage` is left out alone. Nothing panics, nothing is logged, and the limits of the standards bound the
//! memory. Rules cite their section: `TC` is
//! [Trace Context Level 2](https://www.w3.org/TR/trace-context-2/), `B` is [Baggage](https://www.w3.org/TR/baggage/).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "propagators")]
mod baggage;
#[cfg(feature = "propagators")]
mod headers;
#[cfg(feature = "propagators")]
mod trace_context;
pub mod traceparent;
#[cfg(feature = "propagators")]
mod tracestate;

#[cfg(feature = "propagators")]
pub use baggage::BaggagePropagator;
#[cfg(feature = "propagators")]
pub use headers::{HeaderExtractor, HeaderInjector};
#[cfg(feature = "propagators")]
pub use trace_context::TraceContextPropagator;
pub use traceparent::Traceparent;

/// The text without the optional white space around it: spaces and tabs (RFC 9110, 5.6.3).
#[cfg(feature = "propagators")]
#[inline]
fn trim(text: &str) -> &str {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = text.as_bytes();
    let start = bytes.iter().take_while(|byte| is_space(byte)).count();
    let end = bytes.len() - bytes[start..].iter().rev().take_while(|byte| is_space(byte)).count();
    &text[start..end]
}
