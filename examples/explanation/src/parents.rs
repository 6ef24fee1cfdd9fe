//! Which span each span is below, for some work that is wrapped in one way or
//! another.

use std::collections::BTreeMap;
use std::io;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, global};
use opentelemetry_sdk::trace::SpanData;
use tracing::{Span, info_span};
use tracing_opentelemetry::{OpenTelemetrySpanExt as _, SetParentError};

use crate::{Bridge, recorded};

const REMOTE: u64 = 0x00f0_67aa_0ba9_02b7;

/// The context that a caller has sent.
pub fn remote() -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
        SpanId::from(REMOTE),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    ))
}

/// A span of `tracing`.
pub fn outer() -> Span {
    info_span!("outer")
}

/// The same, below the span of `parent`.
///
/// # Errors
/// When there is no bridge, or the span has begun.
pub fn outer_below(parent: Context) -> Result<Span, SetParentError> {
    let span = outer();
    span.set_parent(parent)?;
    Ok(span)
}

/// Makes `inner`, a span of `tracing`, and after it `plain`, one of OpenTelemetry's
/// own API.
pub async fn work() {
    info_span!("inner").in_scope(|| {});
    drop(global::tracer("explanation").start("plain"));
}

/// Runs `work`. Returns the name of each span's parent by the name of the span; the
/// parent is a span of `work`, `remote`, or `nothing`.
///
/// # Errors
/// When there can be no runtime.
pub fn parents(
    bridge: Bridge,
    work: impl Future,
) -> io::Result<BTreeMap<String, String>> {
    let spans = recorded(bridge, work)?;
    let parent = |span: &SpanData| {
        let id = span.parent_span_id;
        let found = spans.iter().find(|it| it.span_context.span_id() == id);
        match found {
            Some(parent) => parent.name.to_string(),
            None if id == SpanId::from(REMOTE) => "remote".to_owned(),
            None if id == SpanId::INVALID => "nothing".to_owned(),
            None => "a span that has not ended".to_owned(),
        }
    };
    let names = spans
        .iter()
        .map(|span| (span.name.to_string(), parent(span)));
    Ok(names.collect())
}
