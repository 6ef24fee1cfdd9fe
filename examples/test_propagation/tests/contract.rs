//! Checks that user-service keeps the contract: it passes on what comes in, with its
//! own span in between.
//!
//! The provider and the propagator belong to the whole process, so this file has one
//! test.

use std::time::Duration;

use opentelemetry::global;
use opentelemetry_sdk::trace::SdkTracerProvider;
use production::outgoing::Upstream;
use production::{server, telemetry, user_service};
use serde_json::json;
use test_propagation::contract::{self, Neighbor, Spans};

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_contract_is_kept() -> anyhow::Result<()> {
    let spans = Spans::default();
    let provider = SdkTracerProvider::builder()
        // Exports each span as it ends, so that nothing has to be flushed.
        .with_simple_exporter(spans.clone())
        .build();
    global::set_tracer_provider(provider);
    telemetry::set_propagator();

    // A request to user-service causes one call.
    let neighbor = Neighbor::start(1, json!({ "response": "" })).await?;
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
