//! The edge doesn't trust a caller's context, no other host gets ours, and every service has the tenant.

use axum::http::HeaderMap;
use course::services::Service;
use lab::diagnose::diagnose;
use lab::receiver;
use lab::report;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use trust_boundaries::edge::{edge_sampler, set_propagator};
use trust_boundaries::outgoing::Hosts;

use super::example::{all_run_by, binaries};
use support::recording::{check, figures};
use support::{Setup, System, WHOLE, has_attributes, plan, query, serve, shape, within_reason};

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_begins_a_trace_and_links_the_callers_span() {
    let system = System::start().await;
    let backend = serve(receiver::routes(system.store.clone())).await;
    let plan = plan(&binaries().await, "edge-gateway", backend)
        .calling("user-service", system.user.address);
    let edge = Service::start(plan, system.log.sink()).await.expect("it starts");
    let context = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = query(edge.address, "user_1", &[context]).send();
    assert_eq!(within_reason(answer).await.expect("an answer").status(), 200);
    edge.stop().await;
    let trees = [system.stop().await.only_tree()];
    assert_eq!(diagnose(&trees, &[]), [], "a rule reports the link as a fault");
    check!("trust-boundaries/stranger.html", &figures(&trees));
}

/// The caller's baggage claims another tenant than the one that the edge has determined.
#[tokio::test(flavor = "multi_thread")]
async fn every_span_has_the_tenant_that_the_edge_set() {
    binaries().await;
    let system = all_run_by("tenant_services", Setup::default().wired()).start().await;
    system.ask_with(&[("x-tenant", "acme"), ("baggage", "tenant=forged,more=1")]).await;
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    let mut lines = String::new();
    for row in &tree.rows {
        has_attributes(&row.span, "tenant=acme more=(none)");
        let (service, name) = (row.span.service(), row.span.name());
        lines.push_str(&format!("{service:13} {name:15} tenant=acme\n"));
    }
    check!("trust-boundaries/tenant.txt", &lines);
    let exchanges = stopped.wire.exchanges();
    assert_eq!(exchanges.len(), 2);
    for exchange in &exchanges {
        assert!(exchange.sent.contains("baggage: tenant=acme\r\n"), "{}", exchange.sent);
    }
    check!("trust-boundaries/tenant.html", &(report::wire(&exchanges, false).into_string() + "\n"));
}

fn remote(flags: TraceFlags) -> Context {
    let state: TraceState = "acme=internal".parse().expect("a state");
    let (trace, span) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
    Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, state))
}

#[test]
fn a_host_that_is_not_on_the_list_receives_no_context() {
    set_propagator();
    let cx = remote(TraceFlags::SAMPLED).with_baggage([KeyValue::new("tenant", "acme")]);
    let _guard = cx.attach();
    let hosts = Hosts { own: &["user-service"], partners: &["partner.example"] };
    let sent_to = |host: &str| {
        let mut headers = HeaderMap::new();
        hosts.inject(host, &mut headers);
        let mut names: Vec<String> = headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(sent_to("user-service"), ["baggage", "traceparent", "tracestate"]);
    assert_eq!(sent_to("partner.example"), ["traceparent"]);
    for other in ["api.example", "", "user-service.example", "partner.example."] {
        assert!(sent_to(other).is_empty(), "{other}");
    }
}

#[test]
fn we_record_our_own_share_of_a_partners_traces() {
    let recorded = |ratio: f64, flags: TraceFlags| {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_sampler(edge_sampler(ratio))
            .with_simple_exporter(exporter.clone())
            .build();
        let tracer = provider.tracer("test");
        let server = tracer.start_with_context("server", &remote(flags));
        // What we decide at the edge holds inside.
        let cx = remote(flags).with_span(server);
        drop(tracer.start_with_context("inside", &cx));
        drop(cx);
        exporter.get_finished_spans().expect("spans").len()
    };
    assert_eq!(recorded(0.0, TraceFlags::SAMPLED), 0);
    assert_eq!(recorded(1.0, TraceFlags::SAMPLED), 2);
    // Nobody would see the rest of such a trace.
    assert_eq!(recorded(1.0, TraceFlags::default()), 0);
}
