//! On what both call valid, this crate and `opentelemetry_sdk`'s own propagators agree.

use super::*;
use opentelemetry_sdk::propagation as sdk;
use proptest::collection::vec;
use proptest::prelude::*;

fn sent_by(propagator: &dyn TextMapPropagator, cx: &Context) -> HeaderMap {
    let mut headers = inject(propagator, cx);
    // The SDK sends an empty tracestate, which the standard advises against.
    if headers.get("tracestate").is_some_and(HeaderValue::is_empty) {
        headers.remove("tracestate");
    }
    headers
}

/// Different keys, so that there is one right answer.
fn list(members: Vec<(String, String)>) -> String {
    let members = members.into_iter().enumerate();
    Vec::from_iter(members.map(|(n, (key, value))| format!("{key}_{n}={value}"))).join(",")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_valid_trace_context_is_the_same_to_both(
        version in "(00|01|cc)", trace_id in 1u128.., span_id in 1u64.., flags in "0[01]",
        members in vec(("[a-z][a-z0-9_*/-]{0,20}", "[!-+.-;>-~]{1,20}"), 0..32),
    ) {
        let parent = format!("{version}-{trace_id:032x}-{span_id:016x}-{flags}");
        let mut sent = vec![("traceparent", parent)];
        if !members.is_empty() {
            sent.push(("tracestate", list(members)));
        }
        let headers = headers(&sent);
        let (ours, theirs) = (TraceContextPropagator::new(), sdk::TraceContextPropagator::new());
        let (here, there) = (extract(&ours, &headers), extract(&theirs, &headers));
        prop_assert!(here.span().span_context().is_valid());
        prop_assert_eq!(here.span().span_context().clone(), there.span().span_context().clone());
        prop_assert_eq!(sent_by(&ours, &here), sent_by(&theirs, &there));
    }

    #[test]
    fn valid_baggage_is_the_same_to_both(
        members in vec(("[a-zA-Z][a-zA-Z0-9_*.-]{0,20}", "[!#-$&-+.-:<>-\\[\\]-~]{0,20}"), 0..60),
    ) {
        let headers = headers(&[("baggage", list(members))]);
        let sorted = |propagator: &dyn TextMapPropagator| {
            let cx = extract(propagator, &headers);
            let mut entries = Vec::from_iter(cx.baggage().iter().map(|entry| format!("{entry:?}")));
            entries.sort();
            entries
        };
        prop_assert_eq!(sorted(&BaggagePropagator::new()), sorted(&sdk::BaggagePropagator::new()));
    }
}

/// The differences that the README lists, in what is sent on.
#[test]
fn where_the_two_differ() {
    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let other = VALID.replace("4bf9", "1111");
    let random: &str = &VALID.replace("-01", "-03");
    let many = Vec::from_iter((0..33).map(|n| format!("k{n}=1"))).join(",");
    let (first_32, _) = many.rsplit_once(',').expect("a list");
    let one = |value: &str| vec![("traceparent", value.to_owned())];
    let state = |values: &[&str]| {
        let states = values.iter().map(|value| ("tracestate", (*value).to_owned()));
        Vec::from_iter(one(VALID).into_iter().chain(states))
    };
    // The headers that come in, and those that each of the two sends on: `traceparent`, `tracestate`.
    for (received, theirs, ours) in [
        ([one(VALID), one(&other)].concat(), &[VALID][..], &[][..]),
        (one(&VALID[1..]), &[VALID], &[]),
        (one(&format!("0{VALID}")), &[VALID], &[]),
        (one(&VALID.replace("-00f", "-0f")), &[VALID], &[]),
        (one(&VALID.replace("-01", "-1")), &[VALID], &[]),
        (one(&VALID.replace("-01", "-001")), &[VALID], &[]),
        (one(random), &[VALID], &[random]),
        (state(&["a=1", "b=2"]), &[VALID, "a=1"], &[VALID, "a=1,b=2"]),
        (state(&["", "a=1"]), &[VALID], &[VALID, "a=1"]),
        (state(&[&many]), &[VALID, first_32], &[VALID]),
        (state(&["foo=,bar=3"]), &[VALID, "foo=,bar=3"], &[VALID]),
        (state(&["foo=bar=baz"]), &[VALID], &[VALID]),
        (state(&["a=1,a=2"]), &[VALID, "a=1,a=2"], &[VALID, "a=1"]),
        (state(&["foo@@bar=1"]), &[VALID], &[VALID, "foo@@bar=1"]),
    ] {
        for (propagator, sent) in [
            (&sdk::TraceContextPropagator::new() as &dyn TextMapPropagator, theirs),
            (&TraceContextPropagator::new(), ours),
        ] {
            let expected = ["traceparent", "tracestate"].into_iter().zip(sent);
            let cx = extract(propagator, &headers(&received));
            assert_eq!(
                sent_by(propagator, &cx),
                headers(&Vec::from_iter(expected)),
                "{propagator:?}: {received:?}"
            );
        }
    }
}

#[test]
fn where_the_two_differ_on_baggage() {
    let ours: &dyn TextMapPropagator = &BaggagePropagator::new();
    let theirs: &dyn TextMapPropagator = &sdk::BaggagePropagator::new();
    let long = format!("a=1,k={}", "v".repeat(8190));
    // The headers, and how many entries each of the two reads; the value of `k`.
    for (values, by_theirs, by_ours) in [
        (&["k=a=b"][..], (1, Some("a")), (1, Some("a=b"))),
        (&["k=1", "b=2"], (1, Some("1")), (2, Some("1"))),
        (&[&long], (0, None), (1, None)),
    ] {
        let headers = headers(&Vec::from_iter(values.iter().map(|value| ("baggage", value))));
        for (propagator, expected) in [(theirs, by_theirs), (ours, by_ours)] {
            let cx = extract(propagator, &headers);
            let value = cx.baggage().get("k").map(|value| value.as_str());
            assert_eq!((cx.baggage().len(), value), expected, "{propagator:?}");
        }
    }
    let cx = Context::new().with_baggage([KeyValue::new("k", "100%25")]);
    let sent = [theirs, ours].map(|propagator| inject(propagator, &cx)["baggage"].clone());
    assert_eq!(sent, ["k=100%25", "k=100%2525"]);
}
