//! Whatever comes in, what is read is valid or absent; whatever goes out comes back.

use std::collections::HashMap;

use super::*;
use opentelemetry::baggage::Baggage;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;

/// The headers that pass `cx` on, and the context that is read from them.
fn round_trip(propagator: &dyn TextMapPropagator, cx: &Context) -> (HeaderMap, Context) {
    let sent = inject(propagator, cx);
    let back = extract(propagator, &sent);
    (sent, back)
}

/// Bytes that a header can hold. They look like `pattern` more often than by chance.
fn nearly(pattern: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let text = proptest::string::string_regex(pattern).expect("a pattern");
    let bytes = prop_oneof![text.prop_map(String::into_bytes), vec(any::<u8>(), 0..200)];
    bytes.prop_map(|mut bytes| {
        bytes.retain(|byte| HeaderValue::from_bytes(&[*byte]).is_ok());
        bytes
    })
}

fn baggage_length(headers: &HeaderMap) -> usize {
    headers.get("baggage").map_or(0, HeaderValue::len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_trace_context_is_valid_or_absent(
        parents in vec(nearly("[0-9a-fA-F]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"), 0..3),
        states in vec(nearly("([a-z0-9@*/_-]{1,20}=[ -~]{0,20}[ \t]*,){0,40}"), 0..4),
    ) {
        let parents = parents.iter().map(|value| ("traceparent", value));
        let states = states.iter().map(|value| ("tracestate", value));
        let propagator = TraceContextPropagator::new();
        let cx = extract(&propagator, &headers(&Vec::from_iter(parents.chain(states))));
        let (sent, back) = round_trip(&propagator, &cx);
        if !cx.span().span_context().is_valid() {
            prop_assert_eq!(sent, HeaderMap::new());
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
        let list = Vec::from_iter(values.iter().map(|value| ("baggage", value)));
        let propagator = BaggagePropagator::new();
        let cx = extract(&propagator, &headers(&list));
        prop_assert!(cx.baggage().len() <= 64);
        let (sent, back) = round_trip(&propagator, &cx);
        prop_assert!(baggage_length(&sent) <= 8192);
        prop_assert!(back.baggage().len() <= cx.baggage().len());
    }

    #[test]
    fn a_span_context_comes_back(
        trace_id in 1u128.., span_id in 1u64.., flags in 0u8..4,
        state in hash_map("[a-z][a-z0-9_*/-]{0,20}", "[!-+.-;>-~]{1,20}", 0..32),
    ) {
        let state = TraceState::from_key_value(state).expect("valid");
        let flags = TraceFlags::new(flags);
        let span = SpanContext::new(trace_id.into(), span_id.into(), flags, true, state);
        let cx = Context::new().with_remote_span_context(span.clone());
        let (_, back) = round_trip(&TraceContextPropagator::new(), &cx);
        prop_assert_eq!(back.span().span_context().clone(), span);
    }

    #[test]
    fn any_unicode_comes_back_as_baggage(
        entries in hash_map("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", any::<String>(), 0..20),
    ) {
        let mut baggage = Baggage::new();
        for (key, value) in &entries {
            baggage.insert(key.clone(), value.clone());
        }
        let (sent, back) = round_trip(&BaggagePropagator::new(), &Context::new().with_baggage(baggage));
        let back = back.baggage().iter().map(|(key, (value, _))| (key.to_string(), value.to_string()));
        let most = entries.iter().map(|(key, value)| key.len() + 3 * value.len() + 2).sum::<usize>();
        if most <= 8192 {
            prop_assert_eq!(HashMap::from_iter(back), entries);
        } else {
            prop_assert!(baggage_length(&sent) <= 8192);
        }
    }
}
