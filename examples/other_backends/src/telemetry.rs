//! Starts OpenTelemetry for one service: variables choose the transport too, and
//! spans get the attributes that HoneyHive needs.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::global;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
use production::delivery::{Counted, Delivery, report_no_exporter};
use production::{logs, telemetry};

use crate::honeyhive::HoneyHive;

/// How long the last spans may take to reach the backend when the service stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The running telemetry of one service. Call [`Telemetry::shutdown`] before `main`
/// returns.
pub struct Telemetry {
    provider: SdkTracerProvider,
    delivery: Arc<Delivery>,
}

/// Like `init` of the tutorial, except that variables choose the transport and that
/// HoneyHive's processor is added.
pub fn init(service: &'static str) -> Telemetry {
    logs::init();
    telemetry::set_propagator();

    let delivery = Arc::new(Delivery::default());
    let mut provider =
        SdkTracerProvider::builder().with_resource(telemetry::resource(service));
    if let Some(honeyhive) = HoneyHive::from_env() {
        provider = provider.with_span_processor(honeyhive);
    }
    // No `with_http()`: `OTEL_EXPORTER_OTLP_PROTOCOL` chooses.
    let exporter = match SpanExporter::builder().build() {
        Ok(exporter) => exporter,
        Err(error) => {
            report_no_exporter(&error);
            let provider = provider.build();
            return Telemetry { provider, delivery };
        }
    };
    let batches =
        BatchSpanProcessor::builder(Counted::new(exporter, &delivery)).build();
    let provider = provider
        .with_span_processor(Counted::new(batches, &delivery))
        .build();
    global::set_tracer_provider(provider.clone());
    Telemetry { provider, delivery }
}

impl Telemetry {
    /// Sends the spans that are still queued, and logs what was lost.
    pub fn shutdown(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not flushed");
        }
        self.delivery.report();
    }
}
