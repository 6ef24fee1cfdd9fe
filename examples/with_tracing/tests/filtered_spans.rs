//! A service filters its whole subscriber, as with `RUST_LOG=warn`, so its own spans
//! are gone. Its requests must succeed, and the caller's trace must go on behind it.
//!
//! Subscriber and propagator belong to the whole process, so the tests share them.

mod log;

use std::sync::LazyLock;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::routing::post;
use axum::{Json, Router};
use log::Log;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use with_tracing::{by_hand, ready_made, telemetry};

const CALLER: [(&str, &str); 3] = [
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("tracestate", "acme=1"),
    ("baggage", "tenant=acme"),
];

/// The log of a service that had a subscriber before its tracing: one filter for all
/// layers.
static FILTERED: LazyLock<Log> = LazyLock::new(|| {
    production::telemetry::set_propagator();
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::registry()
        .with(EnvFilter::new("warn"))
        .with(tracing_subscriber::fmt::layer().with_writer(move || writer.clone()))
        .with(tracing_opentelemetry::layer().with_tracer(tracer))
        .init();
    log
});

/// The next service: answers with the caller's headers that have reached it.
async fn neighbor() -> anyhow::Result<Url> {
    let answer = async |headers: HeaderMap| {
        let text = |(name, _)| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Json(json!(CALLER.map(text)))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?).parse()?;
    let routes = Router::new().route("/generate", post(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

/// Sends two requests through `service`, which answers as its neighbor does.
async fn passes_the_context_on(service: Router) -> anyhow::Result<()> {
    for _ in 0..2 {
        let request = CALLER
            .iter()
            .fold(Request::post("/process"), |request, (name, value)| {
                request.header(*name, *value)
            });
        let request = request.body(Body::empty())?;
        let response = service.clone().oneshot(request).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let arrived = to_bytes(response.into_body(), usize::MAX).await?;
        let arrived: Value = serde_json::from_slice(&arrived)?;
        assert_eq!(arrived, json!(CALLER.map(|(_, value)| value)));
    }
    Ok(())
}

#[tokio::test]
async fn spans_made_by_hand_may_be_filtered_out() -> anyhow::Result<()> {
    let log = &*FILTERED;
    let (client, base) = (Client::new(), neighbor().await?);
    let upstream = by_hand::Upstream { client, base };
    let call = async move || {
        let answer = upstream.post::<Value>("/generate", &json!({})).await;
        answer.map(Json).map_err(|_| StatusCode::BAD_GATEWAY)
    };
    let service = Router::new()
        .route("/process", post(call))
        .layer(from_fn(by_hand::continue_trace));
    passes_the_context_on(service).await?;
    let log = log.text();
    let warnings = log.matches("requests have no span here").count();
    assert_eq!(warnings, 1, "{log}");
    Ok(())
}

#[tokio::test]
async fn spans_of_ready_made_layers_may_be_filtered_out() -> anyhow::Result<()> {
    LazyLock::force(&FILTERED);
    let upstream = ready_made::Upstream::new(Client::new(), neighbor().await?);
    let call = async move || {
        let answer = upstream.post::<Value>("/generate", &json!({})).await;
        answer.map(Json).map_err(|_| StatusCode::BAD_GATEWAY)
    };
    let service = Router::new().route("/process", post(call));
    passes_the_context_on(ready_made::traced(service)).await
}

#[test]
fn a_service_that_has_a_subscriber_starts_all_the_same() {
    LazyLock::force(&FILTERED);
    drop(telemetry::init("user-service"));
}
