// ANCHOR: code
//! A sampler that records a route in full, and a share of the rest.

use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    ParentBasedSampler, Sampler, SamplingResult, ShouldSample,
};

/// Records all requests of the routes in `always`, and of all others the share
/// `otherwise`, from 0.0 to 1.0. For `with_sampler` of the provider's builder.
pub fn by_route(
    always: &'static [&'static str],
    otherwise: f64,
) -> ParentBasedSampler {
    let otherwise = Sampler::TraceIdRatioBased(otherwise);
    // We decide only about roots. A span with a parent follows it.
    Sampler::parent_based(Box::new(ByRoute { always, otherwise }) as Box<_>)
}

#[derive(Clone, Debug)]
struct ByRoute {
    always: &'static [&'static str],
    otherwise: Sampler,
}

impl ShouldSample for ByRoute {
    /// Can use what the span has when it starts, but not its status or duration.
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let route = attributes.iter().find(|it| it.key.as_str() == "http.route");
        let route = route.map(|it| it.value.as_str());
        let sampler = match route {
            Some(route) if self.always.contains(&&*route) => &Sampler::AlwaysOn,
            _ => &self.otherwise,
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{
        Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _,
    };
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

    #[test]
    fn a_route_is_recorded_in_full_and_a_child_does_what_its_parent_does() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_sampler(by_route(&["/checkout"], 0.0))
            .with_simple_exporter(exporter.clone())
            .build();
        let tracer = provider.tracer("test");
        for route in ["/checkout", "/list"] {
            let route = KeyValue::new("http.route", route);
            let span = tracer.span_builder("root").with_attributes([route]);
            let root = Context::new()
                .with_span(span.start_with_context(&tracer, &Context::new()));
            let route = KeyValue::new("http.route", "/checkout");
            let child = tracer.span_builder("child").with_attributes([route]);
            child.start_with_context(&tracer, &root).end();
        }
        let spans = exporter
            .get_finished_spans()
            .expect("no panic holds its lock");
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(
            names,
            ["child", "root"],
            "the child in /list has a parent that is not recorded"
        );
    }
}
