//! A service filters its whole subscriber, as with `RUST_LOG=warn`, so its own spans
//! are gone. Its requests must succeed, and the caller's trace must go on behind it.
//!
//! Subscriber and propagator belong to the whole process, so the tests share them.

use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::routing::post;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
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

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The subscriber of a service that was there before its tracing: one filter for all
/// layers.
fn filter_all_layers() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        distributed_tracing::telemetry::set_propagator();
        let provider = SdkTracerProvider::builder().build();
        tracing_subscriber::registry()
            .with(EnvFilter::new("warn"))
            .with(tracing_subscriber::fmt::layer().with_writer(|| Log))
            .with(
                tracing_opentelemetry::layer()
                    .with_tracer(provider.tracer("filtered_spans")),
            )
            .init();
    });
}

/// The next service: sends the headers of each request to the test.
async fn neighbor() -> anyhow::Result<(Url, UnboundedReceiver<HeaderMap>)> {
    let (sender, requests) = unbounded_channel();
    let answer = async move |headers: HeaderMap| {
        // The test may have ended.
        let _ = sender.send(headers);
        axum::Json(json!("answered"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?).parse()?;
    let routes = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok((url, requests))
}

/// Sends two requests through `service` and checks the status and the headers of the
/// call that it makes.
async fn passes_the_context_on(
    service: Router,
    mut calls: UnboundedReceiver<HeaderMap>,
) -> anyhow::Result<()> {
    for _ in 0..2 {
        let mut request = Request::post("/process");
        for (name, value) in CALLER {
            request = request.header(name, value);
        }
        let response = service
            .clone()
            .oneshot(request.body(Body::empty())?)
            .await?;
        assert_eq!(response.status(), StatusCode::OK);
        let sent = calls.recv().await.expect("a call");
        for (name, value) in CALLER {
            let found = sent.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(found, Some(value), "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn spans_made_by_hand_may_be_filtered_out() -> anyhow::Result<()> {
    filter_all_layers();
    let (base, calls) = neighbor().await?;
    let upstream = by_hand::Upstream {
        client: Client::new(),
        base,
    };
    let call = async move || match upstream.post("/generate", &json!({})).await {
        Ok::<Value, _>(_) => StatusCode::OK,
        Err(_) => StatusCode::BAD_GATEWAY,
    };
    let service = Router::new()
        .route("/process", post(call))
        .layer(from_fn(by_hand::continue_trace));
    passes_the_context_on(service, calls).await?;

    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let log = String::from_utf8_lossy(&log);
    let warnings = log.matches("requests have no span here").count();
    assert_eq!(warnings, 1, "{log}");
    Ok(())
}

#[tokio::test]
async fn spans_of_ready_made_layers_may_be_filtered_out() -> anyhow::Result<()> {
    filter_all_layers();
    let (base, calls) = neighbor().await?;
    let upstream = ready_made::Upstream::new(Client::new(), base);
    let call = async move || match upstream.post("/generate", &json!({})).await {
        Ok::<Value, _>(_) => StatusCode::OK,
        Err(_) => StatusCode::BAD_GATEWAY,
    };
    let service = Router::new().route("/process", post(call));
    passes_the_context_on(ready_made::traced(service), calls).await
}

#[test]
fn a_service_that_has_a_subscriber_starts_all_the_same() {
    filter_all_layers();
    drop(telemetry::init("user-service"));
}
