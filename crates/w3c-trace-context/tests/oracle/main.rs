//! Compares the propagators with an oracle on generated headers. `ORACLE_INPUTS` sets how many headers each test tries, and
//! `ORACLE_SEED` which ones; a failure prints the seed and the headers.

mod inputs;
mod oracle;

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use inputs::{Random, printable};
use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt as _};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt as _;
use oracle::Entries;
use w3c_trace_context::{
    BaggagePropagator, HeaderExtractor, HeaderInjector, TraceContextPropagator,
};

const VALID: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Enough for every kind of input to come many times. A debug build takes a few seconds for them.
const DEFAULT_INPUTS: u64 = 5_000;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number: {value:?}")))
}

/// Calls `check` with as many different generators as inputs are asked for.
fn for_each_input(check: impl Fn(&mut Random)) {
    let first = variable("ORACLE_SEED").unwrap_or(1);
    for seed in first..first + variable("ORACLE_INPUTS").unwrap_or(DEFAULT_INPUTS) {
        let current = Seed(seed);
        check(&mut Random::new(seed));
        std::mem::forget(current);
    }
}

/// Names the seed of the input that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        eprintln!("This input again: ORACLE_INPUTS=1 ORACLE_SEED={}", self.0);
    }
}

fn append(headers: &mut HeaderMap, name: &'static str, values: &[Vec<u8>]) {
    for value in values {
        let value =
            HeaderValue::from_bytes(value).expect("the generator leaves out control characters");
        headers.append(HeaderName::from_static(name), value);
    }
}

fn extract(propagator: &dyn TextMapPropagator, headers: &HeaderMap) -> Context {
    propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers))
}

fn inject(propagator: &dyn TextMapPropagator, cx: &Context) -> HeaderMap {
    let mut headers = HeaderMap::new();
    propagator.inject_context(cx, &mut HeaderInjector(&mut headers));
    headers
}

/// Compares what is read and what is passed on with the oracle's answers.
fn check_trace_context(parents: &[Vec<u8>], states: &[Vec<u8>]) {
    let input = || format!("{:?}, {:?}", printable(parents), printable(states));
    let propagator = TraceContextPropagator::new();
    let mut headers = HeaderMap::new();
    append(&mut headers, "traceparent", parents);
    append(&mut headers, "tracestate", states);
    let cx = extract(&propagator, &headers);
    let sent = inject(&propagator, &cx);

    let parent = oracle::traceparent(parents);
    let span = cx.span().span_context().clone();
    let flags = span.trace_flags().to_u8();
    let read =
        span.is_valid().then(|| (span.trace_id().to_string(), span.span_id().to_string(), flags));
    assert_eq!(read, parent, "{}", input());
    assert_eq!(span.is_remote(), parent.is_some(), "{}", input());

    let expected = parent.map(|(trace_id, span_id, flags)| {
        let state = oracle::tracestate(states).filter(|members| !members.is_empty());
        (format!("00-{trace_id}-{span_id}-{flags:02x}"), state.map(|members| members.join(",")))
    });
    let text = |name| sent.get(name).map(|value| value.to_str().expect("text").to_owned());
    let passed_on = text("traceparent").map(|parent| (parent, text("tracestate")));
    assert_eq!(passed_on, expected, "{}", input());
}

/// Inputs that all are valid, or all invalid, would prove nothing.
#[test]
fn the_inputs_are_on_both_sides_of_each_rule() {
    let mut counts = BTreeMap::new();
    let mut count = |what, holds: bool| *counts.entry((what, holds)).or_insert(0) += 1;
    for seed in 1..=2_000 {
        let mut random = Random::new(seed);
        count(
            "traceparent is valid",
            oracle::traceparent(&inputs::traceparents(&mut random)).is_some(),
        );
        let states = inputs::tracestates(&mut random);
        count("tracestate is valid", oracle::tracestate(&states).is_some());
        let list = states.join(&b',');
        let commas = list.iter().filter(|byte| **byte == b',').count();
        count("tracestate is long", commas >= 30);
        count("a long tracestate is valid", commas >= 30 && oracle::tracestate(&states).is_some());
        let values = inputs::baggage(&mut random);
        let baggage = oracle::baggage(&values);
        count("baggage has valid entries", !baggage.is_empty());
        count("baggage has 64 entries", baggage.len() == 64);
        count("baggage has more than 8192 bytes", values.concat().len() > 8192);
        count(
            "baggage has properties",
            baggage.values().any(|(_, properties)| !properties.is_empty()),
        );
    }
    assert_eq!(counts.len(), 16, "{counts:?}");
    assert!(counts.values().all(|count| *count >= 10), "{counts:?}");
}

fn entries(cx: &Context) -> Entries {
    let entries = cx.baggage().iter().map(|(key, (value, properties))| {
        (key.to_string(), (value.to_string(), properties.to_string()))
    });
    entries.collect()
}

#[test]
fn traceparent_agrees_with_the_oracle() {
    for_each_input(|random| {
        let parents = inputs::traceparents(random);
        check_trace_context(&parents, &[b"a=1".to_vec()]);
    });
}

#[test]
fn tracestate_agrees_with_the_oracle() {
    for_each_input(|random| {
        let states = inputs::tracestates(random);
        check_trace_context(&[VALID.to_vec()], &states);
    });
}

#[test]
fn baggage_agrees_with_the_oracle() {
    for_each_input(|random| {
        let values = inputs::baggage(random);
        let input = || format!("{:?}", printable(&values));
        let propagator = BaggagePropagator::new();
        let mut headers = HeaderMap::new();
        append(&mut headers, "baggage", &values);
        let cx = extract(&propagator, &headers);
        let read = entries(&cx);
        let expected = oracle::baggage(&values);
        assert_eq!(read, expected, "{}", input());

        // What was read is passed on whole, in a header that is valid.
        let sent = inject(&propagator, &cx);
        let passed_on = sent.get("baggage").map(|value| value.as_bytes().to_vec());
        assert_eq!(passed_on.is_none(), expected.is_empty(), "{}", input());
        if let Some(header) = passed_on {
            assert!(oracle::is_baggage_within_limits(&header), "{}", input());
            assert_eq!(oracle::baggage(&[header]), expected, "{}", input());
        }
    });
}

/// Whatever an application puts into its baggage, the header is valid.
#[test]
fn baggage_of_the_application_is_sent_as_valid_baggage() {
    for_each_input(|random| {
        let mut baggage = Baggage::new();
        for (key, value, properties) in inputs::application_baggage(random) {
            baggage.insert_with_metadata(key, value, properties);
        }
        let values: BTreeMap<String, String> =
            baggage.iter().map(|(key, (value, _))| (key.to_string(), value.to_string())).collect();
        let cx = Context::new().with_baggage(baggage);
        let sent = inject(&BaggagePropagator::new(), &cx);
        let header = sent.get("baggage").map(|value| value.as_bytes().to_vec());
        assert!(
            header.as_ref().is_none_or(|it| oracle::is_baggage_within_limits(it)),
            "{header:?}"
        );
        let received = oracle::baggage(&Vec::from_iter(header));
        for (key, (value, _)) in &received {
            assert_eq!(values.get(key), Some(value), "{values:?}");
        }
        // An entry is left out only for want of room: no byte takes more than three, and no list of properties more than is there.
        let longest: usize = entries(&cx)
            .iter()
            .map(|(key, (value, properties))| key.len() + 3 * (value.len() + properties.len()) + 3)
            .sum();
        if longest <= 8192 {
            assert_eq!(received.len(), values.len(), "{values:?}");
        }
    });
}
