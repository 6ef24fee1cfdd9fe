//! Checks the contract against the tutorial's user-service, `sound`, or against one
//! with a seeded fault. Prints the result of each case.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use axum::Router;
use distributed_tracing::error::Failure;
use distributed_tracing::outgoing::Upstream;
use distributed_tracing::{server, telemetry};
use opentelemetry::global;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use reqwest::Url;
use serde_json::json;
use test_propagation::contract::{self, Neighbor};
use test_propagation::faults::{self, Fault};

// Its `main` is not called.
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/user_service.rs"]
mod user_service;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let name = std::env::args().nth(1).unwrap_or_default();
    // In memory for the contract, and over OTLP so that you can look at the spans.
    let spans = InMemorySpanExporter::default();
    let mut provider = SdkTracerProvider::builder()
        .with_resource(telemetry::resource("user-service"))
        .with_simple_exporter(spans.clone());
    // The contract is checked even where nothing can be exported.
    if let Ok(exporter) = SpanExporter::builder().with_http().build() {
        provider = provider.with_batch_exporter(exporter);
    }
    let provider = provider.build();
    global::set_tracer_provider(provider.clone());
    if name != "no-propagator" {
        telemetry::set_propagator();
    }
    let neighbor = Neighbor::start(json!({ "response": "" })).await?;
    let address = contract::listen(service(&name, neighbor.url.clone())?).await?;
    let url = format!("http://{address}/process").parse()?;
    let results =
        contract::check(&url, &contract::question(), &neighbor, &spans).await?;
    // Without a backend there is nothing to flush to.
    let _ = provider.shutdown_with_timeout(DEADLINE);

    let mut broken = 0;
    for (case, violations) in &results {
        match violations[..] {
            [] => println!("kept    {case}"),
            _ => println!("BROKEN  {case}: {}", violations.join("; ")),
        }
        broken += usize::from(!violations.is_empty());
    }
    match broken {
        0 => Ok(()),
        _ => Err(anyhow!(
            "the contract is broken: {broken} of {} cases",
            results.len()
        )
        .into()),
    }
}

fn service(name: &str, neighbor: Url) -> anyhow::Result<Router> {
    if ["sound", "no-propagator"].contains(&name) {
        let routes = user_service::routes(Upstream::new(neighbor, DEADLINE)?);
        return Ok(server::traced(routes, DEADLINE));
    }
    let names = Fault::ALL.map(|(name, _)| name).join(", ");
    let fault = Fault::ALL.into_iter().find(|(it, _)| *it == name);
    let fault = fault.with_context(|| {
        format!("say which service: sound, no-propagator, {names}")
    });
    Ok(faults::service(fault?.1, neighbor))
}
