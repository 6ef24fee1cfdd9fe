//! Checks the contract against the tutorial's user-service, `sound`, against another
//! sound service, or against one with a seeded fault. Prints the result of each
//! case.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use axum::Router;
use opentelemetry::global;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SdkTracerProvider;
use production::error::Failure;
use production::outgoing::Upstream;
use production::{server, telemetry, user_service};
use reqwest::Url;
use serde_json::json;
use test_propagation::contract::{self, Neighbor, Spans};
use test_propagation::faults::{self, Fault};
use test_propagation::sound;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let name = std::env::args().nth(1).unwrap_or_default();
    // In memory for the contract, and over OTLP so that you can look at the spans.
    let spans = Spans::default();
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
    let neighbor = Neighbor::start(calls(&name), json!({ "response": "" })).await?;
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
    let upstream = Upstream::new(neighbor.clone(), DEADLINE)?;
    Ok(match name {
        "sound" | "no-propagator" => {
            server::traced(user_service::routes(upstream), DEADLINE)
        }
        "two-calls" => sound::two_calls(upstream),
        "spawned" => sound::spawned(upstream),
        "leaf" => sound::leaf(),
        _ => {
            let fault = fault(name).with_context(|| {
                let names = Fault::ALL.map(|(name, _)| name).join(", ");
                let sound = "sound, two-calls, spawned, leaf";
                format!("name a service: {sound}, no-propagator, {names}")
            });
            faults::service(fault?, neighbor)
        }
    })
}

/// How many calls a request to the service causes.
fn calls(name: &str) -> usize {
    match name {
        "two-calls" => 2,
        "leaf" => 0,
        _ => fault(name).map_or(1, Fault::calls),
    }
}

fn fault(name: &str) -> Option<Fault> {
    let fault = Fault::ALL.into_iter().find(|(it, _)| *it == name);
    fault.map(|(_, fault)| fault)
}
