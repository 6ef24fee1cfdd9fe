//! Spans and log records of one service, over OTLP, and log lines on standard error.

use std::time::Duration;

use opentelemetry::{Key, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, SpanExporter};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use production::delivery::report_no_exporter;
use production::logs::SECRETS;
use production::telemetry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::lines::JsonLines;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The providers that must be flushed before the process ends.
pub struct Telemetry {
    spans: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

/// Starts spans, log records and log lines. All of them name the same service, so
/// that a backend can put them together.
pub fn init(service: &'static str) -> Telemetry {
    telemetry::set_propagator();
    let resource = telemetry::resource(service);
    let service = resource.get(&Key::from_static_str("service.name"));
    let service = service.map_or_else(String::new, |name| name.to_string());

    let mut spans = SdkTracerProvider::builder().with_resource(resource.clone());
    let mut logs = SdkLoggerProvider::builder().with_resource(resource);
    let problem = match exporters() {
        Ok((span_exporter, log_exporter)) => {
            spans = spans.with_batch_exporter(span_exporter);
            logs = logs.with_batch_exporter(log_exporter);
            None
        }
        Err(error) => Some(error),
    };
    let (spans, logs) = (spans.build(), logs.build());
    if problem.is_none() {
        global::set_tracer_provider(spans.clone());
    }

    let printed = EnvFilter::new(format!("info,opentelemetry=warn,{SECRETS}"));
    let exported = EnvFilter::new(format!("info,{SECRETS}"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A line that can't be written must not panic in a request.
        .log_internal_errors(false)
        .event_format(JsonLines { service });
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(printed))
        .with(OpenTelemetryTracingBridge::new(&logs).with_filter(exported))
        .try_init();
    if let Err(error) = started {
        tracing::error!(%error, "this process has a subscriber already");
    }
    if let Some(error) = problem {
        report_no_exporter(&error);
    }
    Telemetry { spans, logs }
}

fn exporters() -> Result<(SpanExporter, LogExporter), ExporterBuildError> {
    Ok((
        SpanExporter::builder().with_http().build()?,
        LogExporter::builder().with_http().build()?,
    ))
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
