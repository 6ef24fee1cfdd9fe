//! On what both call valid, this crate and `opentelemetry_sdk`'s own propagators agree.

use http::HeaderMap;
use http::header::HeaderValue;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation as sdk;
use proptest::collection::vec;
use proptest::prelude::*;
use w3c_trace_context::{
    BaggagePropagator, HeaderExtractor, HeaderInjector, TraceContextPropagator,
};

fn sent_by(propagator: &dyn TextMapPropagator, cx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    propagator.inject_context(cx, &mut HeaderInjector(&mut headers));
    // The SDK sends an empty tracestate, which the standard advises against.
    if headers.get("tracestate").is_some_and(HeaderValue::is_empty) {
        headers.remove("tracestate");
    }
    headers
}

fn received_by(propagator: &dyn TextMapPropagator, headers: &HeaderMap) -> Context {
    propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

/// Different keys, so that there is one right answer.
fn list(members: Vec<(String, String)>) -> String {
    let members = members.into_iter().enumerate();
    let members: Vec<String> = members
        .map(|(n, (key, value))| format!("{key}{n}={value}"))
        .collect();
    members.join(",")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_valid_trace_context_is_the_same_to_both(
        version in "(00|01|cc)", trace_id in 1u128.., span_id in 1u64.., flags in "0[01]",
        members in vec(("[a-z][a-z0-9_*/-]{0,20}", "[!-+.-;>-~]{1,20}"), 0..32),
    ) {
        let mut headers = HeaderMap::new();
        let traceparent = format!("{version}-{trace_id:032x}-{span_id:016x}-{flags}");
        headers.insert("traceparent", traceparent.parse().expect("a value"));
        if !members.is_empty() {
            headers.insert("tracestate", list(members).parse().expect("a value"));
        }
        let (ours, theirs) = (TraceContextPropagator::new(), sdk::TraceContextPropagator::new());
        let (here, there) = (received_by(&ours, &headers), received_by(&theirs, &headers));
        prop_assert!(here.span().span_context().is_valid());
        prop_assert_eq!(here.span().span_context().clone(), there.span().span_context().clone());
        prop_assert_eq!(sent_by(&ours, &here), sent_by(&theirs, &there));
    }

    #[test]
    fn valid_baggage_is_the_same_to_both(
        members in vec(("[a-zA-Z][a-zA-Z0-9_*/.-]{0,20}", "[!#-$&-+.-:<>-\\[\\]-~]{0,20}"), 0..60),
    ) {
        let members = members.into_iter().map(|(key, value)| (key.replace('/', "_"), value)).collect();
        let mut headers = HeaderMap::new();
        headers.insert("baggage", list(members).parse().expect("a value"));
        let (here, there) = (
            received_by(&BaggagePropagator::new(), &headers),
            received_by(&sdk::BaggagePropagator::new(), &headers),
        );
        let sorted = |cx: &Context| {
            let mut entries: Vec<String> = cx.baggage().iter().map(|entry| format!("{entry:?}")).collect();
            entries.sort();
            entries
        };
        prop_assert_eq!(sorted(&here), sorted(&there));
    }
}
