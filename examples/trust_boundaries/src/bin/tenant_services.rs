//! One of the three services of the tutorial. Each of its spans has the tenant of
//! the request.

use std::time::Duration;

use axum::middleware::from_fn;
use opentelemetry::global;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SdkTracerProvider;
use production::delivery::report_no_exporter;
use production::error::Failure;
use production::service::Service;
use production::{logs, server, service, telemetry};
use trust_boundaries::edge::{edge, set_propagator};
use trust_boundaries::tenant::{BaggageAttributes, set_tenant};

const DEADLINE: Duration = Duration::from_secs(9);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let name = service::chosen()?;
    let provider = start_tracing(name);
    let service = Service::named(name)?;
    let routes = match name {
        "api-gateway" => edge(service.routes.layer(from_fn(set_tenant)), DEADLINE),
        _ => server::traced(service.routes, DEADLINE),
    };
    let served = server::listen(name, routes, service.address).await;
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
            report_no_exporter(&error);
            provider.build()
        }
    }
}
