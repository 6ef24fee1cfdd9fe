//! A process without a propagator.

use opentelemetry::global;
use opentelemetry_sdk::trace::SdkTracerProvider;
use production::outgoing::Upstream;
use production::telemetry;

use crate::setup::{FLUSH, exporter};
use crate::stock::order;

/// Wrong: without `set_text_map_propagator` the global propagator writes nothing,
/// reads nothing and logs nothing.
pub async fn broken(stock: Upstream) -> anyhow::Result<()> {
    let provider = SdkTracerProvider::builder()
        .with_resource(telemetry::resource("shop"))
        .with_batch_exporter(exporter()?)
        .build();
    global::set_tracer_provider(provider.clone());
    order(stock).await?;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

/// `telemetry::init` sets it.
pub async fn repaired(stock: Upstream) -> anyhow::Result<()> {
    let telemetry = telemetry::init("shop");
    order(stock).await?;
    telemetry.shutdown();
    Ok(())
}
