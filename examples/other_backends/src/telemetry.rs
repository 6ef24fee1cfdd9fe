//! Starts OpenTelemetry for one service: variables choose the transport too, and
//! HoneyHive gets what it wants.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use distributed_tracing::delivery::{Counted, Delivery};
use distributed_tracing::{logs, telemetry};
use opentelemetry::global;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};

use crate::honeyhive::HoneyHive;

/// How long the last spans may take to reach the backend when the service stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The running telemetry of one service. Call [`Telemetry::shutdown`] before `main`
/// returns.
pub struct Telemetry {
    provider: SdkTracerProvider,
    delivery: Arc<Delivery>,
}

/// As the `init` of the tutorial, but for two things.
///
/// # Errors
/// When an `OTEL_EXPORTER_OTLP_*` variable cannot be used.
pub fn init(service: &'static str) -> anyhow::Result<Telemetry> {
    logs::init();
    telemetry::set_propagator();

    let delivery = Arc::new(Delivery::default());
    // No `with_http()`: `OTEL_EXPORTER_OTLP_PROTOCOL` chooses.
    let exporter = SpanExporter::builder()
        .build()
        .context("the OTEL_EXPORTER_OTLP_* variables cannot be used")?;
    let batches =
        BatchSpanProcessor::builder(Counted::new(exporter, &delivery)).build();
    let mut provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(service).build());
    if let Some(honeyhive) = HoneyHive::from_env() {
        provider = provider.with_span_processor(honeyhive);
    }
    let provider = provider
        .with_span_processor(Counted::new(batches, &delivery))
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Telemetry { provider, delivery })
}

impl Telemetry {
    /// Sends the spans that are still queued, and logs what was lost.
    ///
    /// # Errors
    /// When there was no time for all of them.
    pub fn shutdown(self) -> anyhow::Result<()> {
        let flushed = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT);
        self.delivery.report();
        Ok(flushed?)
    }
}
