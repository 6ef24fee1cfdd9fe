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
    let members: Vec<String> =
        members.map(|(n, (key, value))| format!("{key}_{n}={value}")).collect();
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

/// What the README and the book say that the SDK does with headers that are odd, and that this crate does.
#[test]
fn where_the_two_differ() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let other = valid.replace("4bf9", "1111");
    let random = valid.replace("-01", "-03");
    let many: Vec<String> = (0..33).map(|n| format!("k{n}=1")).collect();
    let many = many.join(",");
    let with_state = |states: &[&str]| {
        let mut list = vec![("traceparent", valid.to_owned())];
        list.extend(states.iter().map(|state| ("tracestate", (*state).to_owned())));
        list
    };
    let one = |value: &str| vec![("traceparent", value.to_owned())];
    let first_32 = many.rsplit_once(',').expect("a list").0;
    // The headers, and what each of the two sends on: `traceparent`, `tracestate`.
    let cases = [
        (
            vec![("traceparent", valid.to_owned()), ("traceparent", other)],
            (Some(valid), None),
            (None, None),
        ),
        (one(&valid[1..]), (Some(valid), None), (None, None)),
        (one(&format!("0{valid}")), (Some(valid), None), (None, None)),
        (one(&valid.replace("-00f", "-0f")), (Some(valid), None), (None, None)),
        (one(&valid.replace("-01", "-1")), (Some(valid), None), (None, None)),
        (one(&valid.replace("-01", "-001")), (Some(valid), None), (None, None)),
        (one(&random), (Some(valid), None), (Some(&*random), None)),
        (with_state(&["a=1", "b=2"]), (Some(valid), Some("a=1")), (Some(valid), Some("a=1,b=2"))),
        (with_state(&["", "a=1"]), (Some(valid), None), (Some(valid), Some("a=1"))),
        (with_state(&[&many]), (Some(valid), Some(first_32)), (Some(valid), None)),
        (with_state(&["foo=,bar=3"]), (Some(valid), Some("foo=,bar=3")), (Some(valid), None)),
        (with_state(&["foo=bar=baz"]), (Some(valid), None), (Some(valid), None)),
        (with_state(&["a=1,a=2"]), (Some(valid), Some("a=1,a=2")), (Some(valid), Some("a=1"))),
        (with_state(&["foo@@bar=1"]), (Some(valid), None), (Some(valid), Some("foo@@bar=1"))),
    ];
    for (list, theirs, ours) in cases {
        let mut headers = HeaderMap::new();
        for (name, value) in &list {
            headers.append(*name, value.parse().expect("a value"));
        }
        for (propagator, expected) in [
            (&sdk::TraceContextPropagator::new() as &dyn TextMapPropagator, theirs),
            (&TraceContextPropagator::new(), ours),
        ] {
            let sent = sent_by(propagator, &received_by(propagator, &headers));
            let text = |name| sent.get(name).map(|value| value.to_str().expect("text"));
            assert_eq!(
                (text("traceparent"), text("tracestate")),
                expected,
                "{propagator:?}: {list:?}"
            );
        }
    }
}

#[test]
fn where_the_two_differ_on_baggage() {
    let long = format!("a=1,k={}", "v".repeat(8190));
    // The headers, and how many entries each of the two reads; the value of `k`.
    for (list, theirs, ours) in [
        (vec!["k=a=b"], (1, Some("a")), (1, Some("a=b"))),
        (vec!["k=1", "b=2"], (1, Some("1")), (2, Some("1"))),
        (vec![&*long], (0, None), (1, None)),
    ] {
        let mut headers = HeaderMap::new();
        for value in &list {
            headers.append("baggage", value.parse().expect("a value"));
        }
        for (propagator, expected) in [
            (&sdk::BaggagePropagator::new() as &dyn TextMapPropagator, theirs),
            (&BaggagePropagator::new(), ours),
        ] {
            let cx = received_by(propagator, &headers);
            let value = cx.baggage().get("k").map(|value| value.as_str().to_owned());
            assert_eq!((cx.baggage().len(), value.as_deref()), expected, "{propagator:?}");
        }
    }
    let cx = Context::new().with_baggage([opentelemetry::KeyValue::new("k", "100%25")]);
    assert_eq!(sent_by(&sdk::BaggagePropagator::new(), &cx)["baggage"], "k=100%25");
    assert_eq!(sent_by(&BaggagePropagator::new(), &cx)["baggage"], "k=100%2525");
}
