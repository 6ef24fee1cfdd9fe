// ANCHOR: code
//! B3 headers, for as long as some services have no others.

use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{
    Extractor, Injector, TextMapCompositePropagator, TextMapPropagator,
};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

/// Reads and writes both kinds of headers. Of a caller that sends both, the last
/// propagator's count.
pub fn both() -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(vec![
        Box::new(B3),
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ])
}

static FIELDS: LazyLock<[String; 4]> = LazyLock::new(|| {
    ["x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "b3"].map(str::to_owned)
});

/// Writes three headers. Reads these, or the single header `b3`.
#[derive(Debug)]
pub struct B3;

impl TextMapPropagator for B3 {
    fn inject_context(&self, cx: &Context, headers: &mut dyn Injector) {
        let span = cx.span();
        let ids = span.span_context();
        if ids.is_valid() {
            headers.set("x-b3-traceid", ids.trace_id().to_string());
            headers.set("x-b3-spanid", ids.span_id().to_string());
            headers.set("x-b3-sampled", u8::from(ids.is_sampled()).to_string());
        }
    }

    fn extract_with_context(
        &self,
        cx: &Context,
        headers: &dyn Extractor,
    ) -> Context {
        match read(headers) {
            Some(caller) => cx.with_remote_span_context(caller),
            None => cx.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&*FIELDS)
    }
}

fn read(headers: &dyn Extractor) -> Option<SpanContext> {
    let (trace, span, sampled) = match headers.get("b3") {
        Some(single) => {
            let mut parts = single.split('-');
            (parts.next()?, parts.next()?, parts.next())
        }
        None => {
            let sampled = headers.get("x-b3-flags").filter(|flags| *flags == "1");
            let sampled = sampled.or_else(|| headers.get("x-b3-sampled"));
            (
                headers.get("x-b3-traceid")?,
                headers.get("x-b3-spanid")?,
                sampled,
            )
        }
    };
    let is_hex = |text: &str| text.bytes().all(|it| it.is_ascii_hexdigit());
    if !matches!(trace.len(), 16 | 32)
        || span.len() != 16
        || !is_hex(trace)
        || !is_hex(span)
    {
        return None;
    }
    // Without a decision the callee decides, and ours records.
    let flags = match sampled {
        Some("0" | "false") => TraceFlags::default(),
        _ => TraceFlags::SAMPLED,
    };
    let (trace, span) =
        (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const LONG: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SHORT: &str = "a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    /// Reads headers, written as `NAME=VALUE` with spaces between. Returns the trace
    /// id and whether it is sampled.
    fn extracted(headers: &str) -> Option<(String, bool)> {
        let headers = headers
            .split_whitespace()
            .filter_map(|it| it.split_once('='));
        let headers: HashMap<String, String> = headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let context = both().extract(&headers);
        let span = context.span();
        let ids = span.span_context();
        let read = (ids.trace_id().to_string(), ids.is_sampled());
        ids.is_valid().then_some(read)
    }

    #[test]
    fn every_form_of_b3_is_read() {
        let padded = format!("{:0>32}", SHORT);
        for (headers, expected) in [
            (
                format!("x-b3-traceid={LONG} x-b3-spanid={SPAN} x-b3-sampled=1"),
                Some((LONG, true)),
            ),
            (
                format!("x-b3-traceid={LONG} x-b3-spanid={SPAN} x-b3-sampled=0"),
                Some((LONG, false)),
            ),
            (
                format!("x-b3-traceid={LONG} x-b3-spanid={SPAN} x-b3-flags=1"),
                Some((LONG, true)),
            ),
            (
                format!("x-b3-traceid={SHORT} x-b3-spanid={SPAN}"),
                Some((&*padded, true)),
            ),
            (format!("b3={LONG}-{SPAN}-1"), Some((LONG, true))),
            (format!("b3={LONG}-{SPAN}-d-{SPAN}"), Some((LONG, true))),
            (format!("b3={LONG}-{SPAN}-0"), Some((LONG, false))),
            ("b3=0".to_owned(), None),
            (format!("b3=+{}-{SPAN}-1", &LONG[1..]), None),
            (format!("x-b3-traceid={LONG}"), None),
            (
                format!("x-b3-traceid={} x-b3-spanid={SPAN}", "0".repeat(32)),
                None,
            ),
        ] {
            let expected = expected.map(|(id, sampled)| (id.to_owned(), sampled));
            assert_eq!(extracted(&headers), expected, "{headers}");
        }
    }

    #[test]
    fn traceparent_counts_where_both_are_sent() {
        let traceparent = format!("traceparent=00-{LONG}-{SPAN}-01");
        let read = extracted(&format!("b3={SHORT}-{SPAN}-0 {traceparent}"));
        assert_eq!(read, Some((LONG.to_owned(), true)));
    }

    #[test]
    fn both_kinds_are_written() {
        let caller = HashMap::from([("b3".to_owned(), format!("{LONG}-{SPAN}-0"))]);
        let mut headers = HashMap::new();
        both().inject_context(&both().extract(&caller), &mut headers);
        assert_eq!(headers["traceparent"], format!("00-{LONG}-{SPAN}-00"));
        let b3 = ["x-b3-traceid", "x-b3-spanid", "x-b3-sampled"]
            .map(|name| &*headers[name]);
        assert_eq!(b3, [LONG, SPAN, "0"]);
    }
}
