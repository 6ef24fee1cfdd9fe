//! The edge begins a trace of its own and doesn't trust incoming context.

use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry::global;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use production::outgoing::inject_context_into_carrier;
use tokio::net::TcpListener;
use trust_boundaries::edge::{edge, set_propagator};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_callers_span_is_linked_and_not_the_parent() -> anyhow::Result<()> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    global::set_tracer_provider(provider);
    set_propagator();
    // Answers with the headers that a call from here would be sent with.
    let handler = async || {
        let mut headers = HeaderMap::new();
        inject_context_into_carrier(&mut headers);
        headers
    };
    let routes = Router::new().route("/api/query", post(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/api/query", listener.local_addr()?);
    let service = edge(routes, Duration::from_secs(5));
    tokio::spawn(async move { axum::serve(listener, service).await });
    let response = reqwest::Client::new()
        .post(url)
        .header("traceparent", CALLER)
        .header("tracestate", "stranger=1")
        .header("baggage", "tenant=forged")
        .send()
        .await?
        .error_for_status()?;

    let spans = exporter.get_finished_spans()?;
    let [server] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert!(
        !server.parent_span_is_remote,
        "the caller is not the parent"
    );
    let header = |trace, span| format!("00-{trace}-{span}-01");
    let own = &server.span_context;
    let own = header(own.trace_id().to_string(), own.span_id().to_string());
    assert_ne!(own[..35], CALLER[..35], "a trace of its own");
    let links: Vec<_> = server.links.iter().map(|it| &it.span_context).collect();
    let links = links
        .iter()
        .map(|it| header(it.trace_id().to_string(), it.span_id().to_string()));
    assert_eq!(links.collect::<Vec<_>>(), [CALLER]);
    let sent = ["traceparent", "tracestate", "baggage"]
        .map(|name| response.headers().get(name)?.to_str().ok());
    assert_eq!(sent, [Some(&*own), None, None]);
    Ok(())
}
