//! The propagator of `traceparent` and `tracestate`.

use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};

use crate::traceparent::{self, Traceparent};
use crate::{tracestate, trim};

/// Bit 1 of the flags (TC Random Trace ID Flag), which OpenTelemetry's API doesn't name.
const RANDOM: TraceFlags = TraceFlags::new(0b10);

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
static FIELDS: LazyLock<[String; 2]> = LazyLock::new(|| [TRACEPARENT.into(), TRACESTATE.into()]);

/// Reads and writes `traceparent` and `tracestate`. It replaces the propagator of the same name in `opentelemetry_sdk`.
///
/// The flags *sampled* and *random* are passed on as they came; the random flag is never set by this crate, which
/// cannot know how an id was made. A `tracestate` of 32 members is passed on whole, however long.
#[derive(Debug, Clone, Default)]
pub struct TraceContextPropagator {
    _private: (),
}

impl TraceContextPropagator {
    /// The propagator has no settings.
    pub fn new() -> Self {
        TraceContextPropagator::default()
    }
}

/// The part of the caller's headers that a `SpanContext` can't hold or doesn't pass to its children. It is passed on only
/// within the caller's trace.
struct Received {
    trace_id: TraceId,
    /// The SDK clears all flags of a span that is not sampled.
    random: bool,
    /// A valid `tracestate`, where the API's `TraceState` has a narrower grammar: for keys with an `@`.
    verbatim: Option<String>,
}

impl TextMapPropagator for TraceContextPropagator {
    /// Writes nothing where the current span has no valid ids, and no `tracestate` where there is none to write
    /// (TC tracestate Header Field Values: empty ones should not be sent).
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        if span.span_context().is_valid() {
            inject(span.span_context(), cx.get::<Received>(), injector);
        }
    }

    /// The caller's span as the remote parent; `cx` itself where there is no `traceparent`, more than one, or none that
    /// is valid. `tracestate` is read only with a valid `traceparent` (TC Tracestate Header).
    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let values = extractor.get_all(TRACEPARENT);
        let value = values.as_deref().and_then(only);
        let Some(Ok(traceparent)) = value.map(|it| Traceparent::read(trim(it))) else {
            return cx.clone();
        };
        let headers = extractor.get_all(TRACESTATE).unwrap_or_default();
        let (state, verbatim) = match headers.is_empty() {
            true => (TraceState::NONE, None),
            false => read(&headers),
        };
        let Traceparent { trace_id, parent_id, sampled, random } = traceparent;
        let mut flags = TraceFlags::default().with_sampled(sampled);
        if random {
            flags = flags | RANDOM;
        }
        let parent = SpanContext::new(trace_id.into(), parent_id.into(), flags, true, state);
        let cx = cx.with_remote_span_context(parent);
        match random || verbatim.is_some() {
            true => cx.with_value(Received { trace_id: trace_id.into(), random, verbatim }),
            false => cx,
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&*FIELDS)
    }
}

impl From<traceparent::TraceId> for TraceId {
    fn from(id: traceparent::TraceId) -> Self {
        TraceId::from_bytes(id.0)
    }
}

impl From<traceparent::SpanId> for SpanId {
    fn from(id: traceparent::SpanId) -> Self {
        SpanId::from_bytes(id.0)
    }
}

fn inject(span: &SpanContext, received: Option<&Received>, injector: &mut dyn Injector) {
    let trace_id = span.trace_id();
    let received = received.filter(|received| received.trace_id == trace_id);
    let flags = span.trace_flags();
    let traceparent = Traceparent {
        trace_id: traceparent::TraceId(trace_id.to_bytes()),
        parent_id: traceparent::SpanId(span.span_id().to_bytes()),
        sampled: flags.is_sampled(),
        random: flags & RANDOM == RANDOM || received.is_some_and(|received| received.random),
    };
    injector.set(TRACEPARENT, traceparent.to_string());

    let header = tracestate::format(span.trace_state());
    if !header.is_empty() {
        injector.set(TRACESTATE, header);
    } else if let Some(verbatim) = received.and_then(|received| received.verbatim.as_ref()) {
        injector.set(TRACESTATE, verbatim.clone());
    }
}

/// The list of a `tracestate`, and the list itself where `TraceState` cannot hold it.
fn read(headers: &[&str]) -> (TraceState, Option<String>) {
    let Some(members) = tracestate::Members::parse(headers) else {
        return (TraceState::NONE, None);
    };
    match TraceState::from_key_value(&members) {
        Ok(state) => (state, None),
        Err(_) => (TraceState::NONE, Some(tracestate::format(&members))),
    }
}

/// The only value of a header that may come but once.
fn only<'a>(values: &[&'a str]) -> Option<&'a str> {
    match values {
        [value] => Some(value),
        _ => None,
    }
}
