//! user-service keeps the contract: what comes in goes out, with its own span
//! between.
//!
//! One test in this file: provider and propagator are those of the whole process.

use std::time::Duration;

use distributed_tracing::outgoing::Upstream;
use distributed_tracing::{server, telemetry};
use opentelemetry::global;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use serde_json::json;
use test_propagation::contract::{self, Neighbor};

// The service; it has a `main` that a test does not call.
#[allow(dead_code)]
#[path = "../../distributed_tracing/src/bin/user_service.rs"]
mod user_service;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_contract_is_kept() -> anyhow::Result<()> {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        // Each span as it ends: nothing waits, and nothing has to be flushed.
        .with_simple_exporter(spans.clone())
        .build();
    global::set_tracer_provider(provider);
    telemetry::set_propagator();

    let neighbor = Neighbor::start(json!({ "response": "" })).await?;
    let upstream = Upstream::new(neighbor.url.clone(), DEADLINE)?;
    let service = server::traced(user_service::routes(upstream), DEADLINE);
    let address = contract::listen(service).await?;
    let url = format!("http://{address}/process").parse()?;
    let question = contract::question();
    for (case, violations) in
        contract::check(&url, &question, &neighbor, &spans).await?
    {
        assert_eq!(violations, [""; 0], "{case}");
    }
    Ok(())
}
