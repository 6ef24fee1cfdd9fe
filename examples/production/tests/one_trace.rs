//! One request through all three services must give one trace. Runs them in this
//! process, on free ports.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use opentelemetry::global;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData,
};
use production::model::Model;
use production::outgoing::Upstream;
use production::{api_gateway, llm_service, server, telemetry, user_service};
use serde_json::json;
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn one_request_gives_one_trace() -> anyhow::Result<()> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_simple_exporter(exporter.clone())
        .build();
    global::set_tracer_provider(provider);
    telemetry::set_propagator();

    let llm_service = start(llm_service::routes(Model::offline())).await?;
    let user_service = start(user_service::routes(upstream(llm_service)?)).await?;
    let api_gateway = start(api_gateway::routes(upstream(user_service)?)).await?;
    let response = reqwest::Client::new()
        .post(format!("http://{api_gateway}/api/query"))
        .json(&json!({ "user_id": "user_1", "query": "What is a trace?" }))
        .send()
        .await?;
    assert_eq!(response.status(), 200);

    let spans = exporter.get_finished_spans()?;
    assert_eq!(
        with_parents(&spans),
        [
            "POST /api/query Server, below nothing",
            "POST /generate Client, below POST /process Server",
            "POST /generate Server, below POST /generate Client",
            "POST /process Client, below POST /api/query Server",
            "POST /process Server, below POST /process Client",
            "chat offline Internal, below POST /generate Server",
            "validate_user Internal, below POST /process Server",
        ]
    );
    let trace_ids: HashSet<_> = spans
        .iter()
        .map(|span| span.span_context.trace_id())
        .collect();
    assert_eq!(trace_ids.len(), 1, "one request, one trace id");
    Ok(())
}

/// Each span with the name and kind of its parent, in alphabetical order.
fn with_parents(spans: &[SpanData]) -> Vec<String> {
    let name = |span: &SpanData| format!("{} {:?}", span.name, span.span_kind);
    let names: HashMap<_, _> = spans
        .iter()
        .map(|span| (span.span_context.span_id(), name(span)))
        .collect();
    let mut lines: Vec<String> = spans
        .iter()
        .map(|span| {
            let parent = names
                .get(&span.parent_span_id)
                .map_or("nothing", String::as_str);
            format!("{}, below {parent}", name(span))
        })
        .collect();
    lines.sort();
    lines
}

async fn start(routes: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        axum::serve(listener, server::traced(routes, DEADLINE)).await
    });
    Ok(address)
}

fn upstream(address: SocketAddr) -> anyhow::Result<Upstream> {
    Ok(Upstream::new(
        format!("http://{address}").parse()?,
        DEADLINE,
    )?)
}
