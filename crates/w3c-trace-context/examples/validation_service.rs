//! The service that the W3C trace-context validation suite tests: `POST /test` takes a list of
//! `{"url": …, "arguments": …}`, and POSTs each `arguments` to its `url` under a span of its own.
//!
//! `cargo run -p w3c-trace-context --example validation_service -- 127.0.0.1:5999 [strict|sdk]`

use std::net::SocketAddr;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use serde::Deserialize;
use serde_json::Value;
use w3c_trace_context::{HeaderExtractor, HeaderInjector, TraceContextPropagator};

/// A call to make: the address and the body.
#[derive(Deserialize)]
struct Action {
    url: String,
    #[serde(default)]
    arguments: Value,
}

/// The implementation under test: its propagator and its carriers.
#[derive(Clone, Copy)]
pub enum Propagation {
    Strict,
    Sdk,
}

impl Propagation {
    fn extract(self, headers: &HeaderMap) -> Context {
        let cx = Context::new();
        match self {
            Propagation::Strict => {
                TraceContextPropagator::new().extract_with_context(&cx, &HeaderExtractor(headers))
            }
            Propagation::Sdk => opentelemetry_sdk::propagation::TraceContextPropagator::new()
                .extract_with_context(&cx, &opentelemetry_http::HeaderExtractor(headers)),
        }
    }

    fn inject(self, cx: &Context) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Propagation::Strict => {
                TraceContextPropagator::new().inject_context(cx, &mut HeaderInjector(&mut headers))
            }
            Propagation::Sdk => opentelemetry_sdk::propagation::TraceContextPropagator::new()
                .inject_context(cx, &mut opentelemetry_http::HeaderInjector(&mut headers)),
        }
        headers
    }
}

#[derive(Clone)]
struct Service {
    tracer: SdkTracer,
    client: reqwest::Client,
    propagation: Propagation,
}

async fn test(
    State(service): State<Service>,
    headers: HeaderMap,
    actions: Result<Json<Vec<Action>>, JsonRejection>,
) -> Result<&'static str, (StatusCode, String)> {
    let Json(actions) = actions.map_err(|bad| (bad.status(), bad.body_text()))?;
    let parent = service.propagation.extract(&headers);
    let span = |name, kind, parent: &Context| {
        let builder = service.tracer.span_builder(name).with_kind(kind);
        parent.with_span(builder.start_with_context(&service.tracer, parent))
    };
    let server = span("POST /test", SpanKind::Server, &parent);
    for Action { url, arguments } in actions {
        let call = span("POST", SpanKind::Client, &server);
        let request = service.client.post(&url).headers(service.propagation.inject(&call));
        let sent = request.json(&arguments).send().await;
        sent.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    }
    Ok("done")
}

/// The routes of the service.
///
/// # Errors
/// When there can be no HTTP client.
pub fn routes(propagation: Propagation) -> reqwest::Result<Router> {
    let service = Service {
        tracer: SdkTracerProvider::builder().build().tracer("validation"),
        client: reqwest::Client::builder().no_proxy().build()?,
        propagation,
    };
    Ok(Router::new().route("/test", post(test)).with_state(service))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().ok_or("which address? ADDR:PORT")?.parse()?;
    let propagation = match arguments.next().as_deref() {
        None | Some("strict") => Propagation::Strict,
        Some("sdk") => Propagation::Sdk,
        Some(other) => return Err(format!("whose propagator is {other}? strict or sdk").into()),
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, routes(propagation)?).await?;
    Ok(())
}
