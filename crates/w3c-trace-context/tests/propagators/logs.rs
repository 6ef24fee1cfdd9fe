//! No header is logged, because it can hold a secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use opentelemetry_sdk::propagation as sdk;
use tracing::span;

/// Counts the lines of all levels.
struct Lines(Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata) -> bool {
        true
    }

    fn event(&self, _: &tracing::Event) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &span::Attributes) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The number of lines that are logged when a propagator reads headers and passes the context on.
fn lines(propagator: &dyn TextMapPropagator, headers: &HeaderMap) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Lines(Arc::clone(&count)), || {
        inject(propagator, &extract(propagator, headers));
    });
    count.load(Ordering::Relaxed)
}

#[test]
fn invalid_headers_are_not_logged() {
    let too_long = format!("token=secret,k={}", "v".repeat(9_000));
    for list in [
        &[("baggage", &b"token=secret,not an entry"[..])][..],
        &[("baggage", b"token=secret,k=\xff")],
        &[("baggage", b"token=secret;not a property,=,;")],
        &[("baggage", too_long.as_bytes())],
        &[("traceparent", b"secret"), ("tracestate", b"secret")],
        &[
            ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", b"secret,a@@b=secret"),
        ],
    ] {
        let headers = headers(list);
        assert_eq!(lines(&BaggagePropagator::new(), &headers), 0, "{list:?}");
        assert_eq!(lines(&TraceContextPropagator::new(), &headers), 0, "{list:?}");
    }
    // The SDK's own propagator logs such a header whole, so the lines are really seen.
    let logged = headers(&[("baggage", "token=secret,not an entry")]);
    assert_ne!(lines(&sdk::BaggagePropagator::new(), &logged), 0);
}
