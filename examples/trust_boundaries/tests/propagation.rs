//! With the strict propagators the three services give the same trace, and the edge
//! takes no stranger's word.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use distributed_tracing::model::Model;
use distributed_tracing::outgoing::Upstream;
use distributed_tracing::{server, telemetry};
use opentelemetry::global;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::json;
use tokio::net::TcpListener;
use trust_boundaries::edge::{edge, set_propagator};

// The services themselves; each has a `main` that a test does not call.
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/api_gateway.rs"]
mod api_gateway;
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/llm_service.rs"]
mod llm_service;
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/user_service.rs"]
mod user_service;

const DEADLINE: Duration = Duration::from_secs(5);
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn start(routes: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

fn upstream(address: SocketAddr) -> anyhow::Result<Upstream> {
    Ok(Upstream::new(
        format!("http://{address}").parse()?,
        DEADLINE,
    )?)
}

async fn ask(gateway: SocketAddr, headers: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut request = reqwest::Client::new()
        .post(format!("http://{gateway}/api/query"))
        .json(&json!({ "user_id": "user_1", "query": "What is a trace?" }));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await?.error_for_status()?;
    Ok(())
}

/// Each span with the name and kind of its parent, in alphabetical order.
fn shape(spans: &[SpanData]) -> Vec<String> {
    let name = |span: &SpanData| format!("{} {:?}", span.name, span.span_kind);
    let names: HashMap<_, _> = spans
        .iter()
        .map(|span| (span.span_context.span_id(), name(span)))
        .collect();
    let mut lines: Vec<String> = spans
        .iter()
        .map(|span| (name(span), names.get(&span.parent_span_id)))
        .map(|(span, parent)| format!("{span} below {parent:?}"))
        .collect();
    lines.sort();
    lines
}

/// One test, because the provider and the propagator are global.
#[tokio::test]
async fn the_trace_is_the_same_and_a_stranger_is_only_linked() -> anyhow::Result<()>
{
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    global::set_tracer_provider(provider);
    let spans = || -> anyhow::Result<Vec<SpanData>> {
        let spans = exporter.get_finished_spans()?;
        exporter.reset();
        Ok(spans)
    };

    let traced = |routes| server::traced(routes, DEADLINE);
    let llm = start(traced(llm_service::routes(Model::offline()))).await?;
    let user = start(traced(user_service::routes(upstream(llm)?))).await?;
    let gateway = start(traced(api_gateway::routes(upstream(user)?))).await?;
    telemetry::set_propagator();
    ask(gateway, &[]).await?;
    let with_sdk = shape(&spans()?);
    set_propagator();
    ask(gateway, &[]).await?;
    let strict = spans()?;
    assert_eq!(strict.len(), 7);
    assert_eq!(shape(&strict), with_sdk);
    let trace_ids: HashSet<_> = strict
        .iter()
        .map(|span| span.span_context.trace_id())
        .collect();
    assert_eq!(trace_ids.len(), 1);

    // What the next service is sent.
    let sent = Arc::new(Mutex::new(HeaderMap::new()));
    let seen = Arc::clone(&sent);
    let next = start(Router::new().route(
        "/process",
        post(async move |headers: HeaderMap| {
            *seen.lock().expect("a lock") = headers;
            Json(json!({ "response": "" }))
        }),
    ))
    .await?;
    let gateway =
        start(edge(api_gateway::routes(upstream(next)?), DEADLINE)).await?;
    let headers = [
        ("traceparent", TRACEPARENT),
        ("tracestate", "stranger=1"),
        ("baggage", "tenant=forged"),
    ];
    ask(gateway, &headers).await?;
    let spans = spans()?;
    let server = spans.iter().find(|span| span.name == "POST /api/query");
    let server = server.expect("a SERVER span");
    let forged = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_ne!(server.span_context.trace_id().to_string(), forged);
    assert!(!server.parent_span_is_remote, "a stranger is no parent");
    let links: Vec<_> = server.links.iter().map(|link| &link.span_context).collect();
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].trace_id().to_string(), forged);
    let sent = sent.lock().expect("a lock");
    let own = sent["traceparent"].to_str()?;
    assert!(
        own.contains(&server.span_context.trace_id().to_string()),
        "{own}"
    );
    assert!(!sent.contains_key("tracestate") && !sent.contains_key("baggage"));
    Ok(())
}
