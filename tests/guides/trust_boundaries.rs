//! A stranger's word is not taken, strangers are told nothing, and a tenant is known in every service.

use axum::http::HeaderMap;
use course::services::{Plan, Service};
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
use serde_json::json;
use trust_boundaries::edge::{edge_sampler, set_propagator};
use trust_boundaries::outgoing::Hosts;

use super::example::{binaries, in_order, shapes};
use crate::support::recording::{check, figures};
use crate::support::{FREE, Setup, Stopped, System, WHOLE, client, serve, shape};

fn setup() -> Setup {
    Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_the_edge() {
    let System { gateway, user, llm, store, wire, log } = setup().start().await;
    let backend = serve(receiver::routes(store.clone())).await;
    let free = FREE.parse().expect("an address");
    let plan = Plan::new(&binaries().await, "edge-gateway", free, backend)
        .calling("user-service", user.address);
    let edge = Service::start(plan, log.sink()).await.expect("it starts");
    let request = client()
        .post(format!("http://{}/api/query", edge.address))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .json(&serde_json::json!({ "user_id": "user_1", "query": "What is a trace?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    for service in [edge, gateway, user, llm] {
        service.stop().await;
    }
    let stopped = Stopped { store, wire, log };
    let trees = in_order(stopped.trees());
    assert_eq!(diagnose(&trees, &[]), [], "a link is no fault");
    assert_eq!(shapes(&trees).matches("\n\n").count(), 0, "one trace");
    check!("trust-boundaries/stranger.html", &figures(&trees));
}

/// Who asks claims to be of another tenant, in its baggage; the edge knows better.
#[tokio::test(flavor = "multi_thread")]
async fn every_span_says_which_tenant_the_edge_has_named() {
    binaries().await;
    let services = ["api-gateway", "user-service", "llm-service"];
    let setup = services.into_iter().fold(setup().wired(), |setup, service| {
        setup.run_by(service, &format!("tenant_services {service}"))
    });
    let system = setup.start().await;
    let request = client()
        .post(format!("http://{}/api/query", system.gateway.address))
        .header("x-tenant", "acme")
        .header("baggage", "tenant=forged,more=1")
        .json(&json!({ "user_id": "user_1", "query": "What is a trace?" }));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    assert_eq!(shape(&tree), WHOLE);
    let mut lines = String::new();
    for row in &tree.rows {
        let tenant = row.span.attribute("tenant");
        assert_eq!(tenant.as_deref(), Some("acme"), "{}", row.span.name());
        assert_eq!(row.span.attribute("more"), None);
        let tenant = tenant.unwrap_or_default();
        let (service, name) = (row.span.service(), row.span.name());
        lines.push_str(&format!("{service:13} {name:15} tenant={tenant}\n"));
    }
    check!("trust-boundaries/tenant.txt", &lines);
    let exchanges = stopped.wire.exchanges();
    assert_eq!(exchanges.len(), 2);
    for exchange in &exchanges {
        assert!(exchange.sent.contains("baggage: tenant=acme\r\n"), "{}", exchange.sent);
    }
    check!("trust-boundaries/tenant.html", &(report::wire(&exchanges, false).into_string() + "\n"),);
}

fn remote(flags: TraceFlags) -> Context {
    let state: TraceState = "acme=internal".parse().expect("a state");
    let (trace, span) = (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8]));
    Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, state))
}

#[test]
fn a_host_that_nobody_thought_of_is_told_nothing() {
    set_propagator();
    let cx = remote(TraceFlags::SAMPLED).with_baggage([KeyValue::new("tenant", "acme")]);
    let _guard = cx.attach();
    let hosts = Hosts { own: &["user-service"], partners: &["partner.example"] };
    let told = |host: &str| {
        let mut headers = HeaderMap::new();
        hosts.inject(host, &mut headers);
        let mut names: Vec<String> = headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(told("user-service"), ["baggage", "traceparent", "tracestate"]);
    assert_eq!(told("partner.example"), ["traceparent"]);
    for stranger in ["api.example", "", "user-service.example", "partner.example."] {
        assert!(told(stranger).is_empty(), "{stranger}");
    }
}

#[test]
fn what_a_partner_records_is_not_what_we_must_record() {
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
