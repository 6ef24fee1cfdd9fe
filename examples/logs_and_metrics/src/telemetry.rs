//! Spans and log records of one service, over OTLP, and log lines on standard error.

use std::time::Duration;

use anyhow::Context as _;
use distributed_tracing::telemetry;
use opentelemetry::{KeyValue, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::lines::JsonLines;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What must be flushed before the process ends.
pub struct Telemetry {
    spans: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

/// Starts spans, log records and log lines. One resource for all, so that a backend
/// knows them as those of one service.
///
/// # Errors
/// When an `OTEL_EXPORTER_OTLP_*` variable cannot be used.
pub fn init(service: &'static str) -> anyhow::Result<Telemetry> {
    telemetry::set_propagator();
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.namespace", "one-trace"))
        .build();
    let wrong = "the OTEL_EXPORTER_OTLP_* variables cannot be used";
    let exporter = SpanExporter::builder().with_http().build();
    let spans = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(exporter.context(wrong)?)
        .build();
    global::set_tracer_provider(spans.clone());

    let exporter = LogExporter::builder().with_http().build();
    let logs = SdkLoggerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter.context(wrong)?)
        .build();
    let printed = Targets::new()
        .with_default(Level::INFO)
        .with_target("opentelemetry", Level::WARN);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(JsonLines { service });
    tracing_subscriber::registry()
        .with(lines.with_filter(printed))
        .with(OpenTelemetryTracingBridge::new(&logs).with_filter(LevelFilter::INFO))
        .init();
    Ok(Telemetry { spans, logs })
}

impl Telemetry {
    /// Sends what is still queued: the spans first, as their flush may log.
    pub fn shutdown(self) {
        if let Err(error) = self.spans.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not flushed");
        }
        if let Err(error) = self.logs.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last log records were not flushed");
        }
    }
}
