//! One of the three services of the tutorial, whose spans say which tenant the
//! request is of.

use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use distributed_tracing::delivery::NOT_EXPORTED;
use distributed_tracing::error::Failure;
use distributed_tracing::model::Model;
use distributed_tracing::outgoing::Upstream;
use distributed_tracing::{logs, server, settings, telemetry};
use opentelemetry::global;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::net::TcpListener;
use trust_boundaries::edge::{edge, set_propagator};
use trust_boundaries::tenant::{BaggageAttributes, name_tenant};

// Their `main`s are not called.
#[allow(dead_code)]
#[path = "../../../distributed_tracing/src/bin/api_gateway.rs"]
mod api_gateway;
#[allow(dead_code)]
#[path = "../../../distributed_tracing/src/bin/llm_service.rs"]
mod llm_service;
#[allow(dead_code)]
#[path = "../../../distributed_tracing/src/bin/user_service.rs"]
mod user_service;

const DEADLINE: Duration = Duration::from_secs(9);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (name, variable, routes) = match std::env::args().nth(1).as_deref() {
        Some("api-gateway") => {
            let routes = api_gateway::routes(upstream("USER_SERVICE", 5001)?);
            let routes = edge(routes.layer(from_fn(name_tenant)), DEADLINE);
            ("api-gateway", "API_GATEWAY_ADDR", routes)
        }
        Some("user-service") => {
            let routes = user_service::routes(upstream("LLM_SERVICE", 5002)?);
            ("user-service", "USER_SERVICE_ADDR", inside(routes))
        }
        Some("llm-service") => {
            let routes = llm_service::routes(Model::from_env()?);
            ("llm-service", "LLM_SERVICE_ADDR", inside(routes))
        }
        _ => return Err(no_such_service()),
    };
    let provider = start_tracing(name);
    let address: String = settings::read(variable, "127.0.0.1:0")?;
    let listener = TcpListener::bind(&address).await?;
    let stop = server::stop_signal()?;
    println!("{name} listening on http://{}", listener.local_addr()?);
    let served = axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await;
    if let Err(error) = provider.shutdown_with_timeout(Duration::from_secs(5)) {
        tracing::warn!(%error, "the last spans were not flushed");
    }
    Ok(served?)
}

fn start_tracing(service: &'static str) -> SdkTracerProvider {
    logs::init();
    set_propagator();
    let provider = SdkTracerProvider::builder()
        .with_resource(telemetry::resource(service))
        .with_span_processor(BaggageAttributes(&["tenant"]));
    match SpanExporter::builder().with_http().build() {
        Ok(exporter) => {
            let provider = provider.with_batch_exporter(exporter).build();
            global::set_tracer_provider(provider.clone());
            provider
        }
        Err(error) => {
            tracing::error!(%error, "{NOT_EXPORTED}");
            provider.build()
        }
    }
}

fn inside(routes: Router) -> Router {
    server::traced(routes, DEADLINE)
}

fn upstream(name: &str, port: u16) -> anyhow::Result<Upstream> {
    Upstream::from_env(name, &format!("http://127.0.0.1:{port}"), DEADLINE)
}

fn no_such_service() -> Failure {
    anyhow::anyhow!("say which service: api-gateway, user-service or llm-service")
        .into()
}
