//! Turns spans of `tracing` into OpenTelemetry spans and exports them.

use std::time::Duration;

use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::trace::SdkTracerProvider;
use production::delivery::report_no_exporter;
use production::{logs, telemetry};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The crates whose spans are exported. Replace `with_tracing` with your own crate.
const TRACED: [&str; 2] = ["with_tracing", "tower_otel"];

/// How long the last spans may take to reach the backend.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The provider, which must be flushed before the process ends. `None` without an
/// exporter.
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts spans and log lines for `service`. Never fails: a service that can't
/// export still does its work.
pub fn init(service: &'static str) -> Telemetry {
    telemetry::set_propagator();
    let provider = provider(service);
    let spans = provider.as_ref().ok().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("with_tracing"))
            // The thread isn't worth two attributes on each span. File and line are.
            .with_threads(false)
            .with_filter(
                Targets::new().with_targets(TRACED.map(|name| (name, Level::INFO))),
            )
    });
    // RUST_LOG is for the lines alone: each layer has its own filter.
    let default = "info,opentelemetry=warn,tower_otel=error";
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A line that can't be written must not panic in a request.
        .log_internal_errors(false)
        .with_filter(logs::filter(default));
    let subscriber = tracing_subscriber::registry().with(spans).with(lines);
    if let Err(error) = subscriber.try_init() {
        tracing::error!(%error, "a subscriber is set already: add the layer to it");
    }
    if let Err(error) = &provider {
        report_no_exporter(error);
    }
    Telemetry(provider.ok())
}

impl Telemetry {
    /// Sends the spans that are still queued.
    pub fn shutdown(self) {
        let flushed = self.0.map(|it| it.shutdown_with_timeout(FLUSH_TIMEOUT));
        if let Some(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans were not flushed");
        }
    }
}

fn provider(service: &'static str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let provider = SdkTracerProvider::builder()
        // OTEL_SERVICE_NAME wins over `service`.
        .with_resource(telemetry::resource(service))
        .with_batch_exporter(SpanExporter::builder().with_http().build()?)
        .build();
    // For spans that are made with OpenTelemetry's own API.
    global::set_tracer_provider(provider.clone());
    Ok(provider)
}
