//! Whatever comes in, what is read is valid or absent; whatever goes out comes back.

use std::collections::HashMap;

use http::HeaderMap;
use http::header::HeaderValue;
use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt as _};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use w3c_trace_context::{
    BaggagePropagator, HeaderExtractor, HeaderInjector, TraceContextPropagator,
};

fn carrier(headers: &[(&'static str, Vec<u8>)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.append(*name, value);
        }
    }
    map
}

/// What goes out when `cx` is passed on, and what comes in from that.
fn round_trip(propagator: &dyn TextMapPropagator, cx: &Context) -> (HeaderMap, Context) {
    let mut headers = HeaderMap::new();
    propagator.inject_context(cx, &mut HeaderInjector(&mut headers));
    let back = propagator.extract_with_context(&Context::new(), &HeaderExtractor(&headers));
    (headers, back)
}

/// Bytes that look like what a header could hold, more often than chance would have it.
fn nearly(pattern: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let text = proptest::string::string_regex(pattern).expect("a pattern");
    prop_oneof![text.prop_map(String::into_bytes), vec(any::<u8>(), 0..200)]
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(|name| name.as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_trace_context_is_valid_or_absent(
        parents in vec(nearly("[0-9a-fA-F]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"), 0..3),
        states in vec(nearly("([a-z0-9@*/_-]{1,20}=[ -~]{0,20}[ \t]*,){0,40}"), 0..4),
    ) {
        let headers = parents.into_iter().map(|value| ("traceparent", value));
        let headers: Vec<_> = headers.chain(states.into_iter().map(|value| ("tracestate", value))).collect();
        let propagator = TraceContextPropagator::new();
        let cx = propagator.extract_with_context(&Context::new(), &HeaderExtractor(&carrier(&headers)));
        let (sent, back) = round_trip(&propagator, &cx);
        if !cx.span().span_context().is_valid() {
            prop_assert_eq!(names(&sent), Vec::<&str>::new());
            return Ok(());
        }
        prop_assert_eq!(back.span().span_context().clone(), cx.span().span_context().clone());
        // What this crate sends, it sends again in the same words.
        prop_assert_eq!(round_trip(&propagator, &back).0, sent);
    }

    #[test]
    fn any_baggage_is_valid_or_absent(
        values in vec(nearly("([!-~]{0,12} ?=[ -~]{0,20}(;[!-~]{0,9})*,){0,80}"), 0..4),
    ) {
        let headers: Vec<_> = values.into_iter().map(|value| ("baggage", value)).collect();
        let propagator = BaggagePropagator::new();
        let cx = propagator.extract_with_context(&Context::new(), &HeaderExtractor(&carrier(&headers)));
        prop_assert!(cx.baggage().len() <= 64);
        let (sent, back) = round_trip(&propagator, &cx);
        let length = sent.get("baggage").map_or(0, HeaderValue::len);
        prop_assert!(length <= 8192);
        prop_assert!(back.baggage().len() <= cx.baggage().len());
    }

    #[test]
    fn a_span_context_comes_back(
        trace_id in 1u128.., span_id in 1u64.., flags in 0u8..4,
        state in vec(("[a-z][a-z0-9_*/-]{0,20}", "[!-+.-;>-~]{1,20}"), 0..32),
    ) {
        let mut keys = std::collections::HashSet::new();
        let state: Vec<_> = state.into_iter().filter(|(key, _)| keys.insert(key.clone())).collect();
        let state = TraceState::from_key_value(state).expect("valid");
        let span = SpanContext::new(trace_id.into(), span_id.into(), TraceFlags::new(flags), true, state);
        let cx = Context::new().with_remote_span_context(span.clone());
        let (_, back) = round_trip(&TraceContextPropagator::new(), &cx);
        prop_assert_eq!(back.span().span_context().clone(), span);
    }

    #[test]
    fn any_unicode_comes_back_as_baggage(entries in hash_map("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", any::<String>(), 0..20)) {
        let mut baggage = Baggage::new();
        for (key, value) in &entries {
            baggage.insert(key.clone(), value.clone());
        }
        let cx = Context::new().with_baggage(baggage);
        let (sent, back) = round_trip(&BaggagePropagator::new(), &cx);
        let back: HashMap<String, String> = back
            .baggage()
            .iter()
            .map(|(key, (value, _))| (key.to_string(), value.to_string()))
            .collect();
        let fits = entries.iter().map(|(key, value)| key.len() + 3 * value.len() + 2).sum::<usize>() <= 8192;
        if fits {
            prop_assert_eq!(back, entries);
        } else {
            prop_assert!(sent.get("baggage").map_or(0, HeaderValue::len) <= 8192);
        }
    }
}
