//! Counts the spans that end and those that are exported, so that no span is lost
//! without a log line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

/// Logs why the exporter can't be built, up to the value of a variable, which is in
/// quotation marks and may hold a password. The service still runs.
pub fn report_no_exporter(error: &ExporterBuildError) {
    let error = error.to_string();
    let reason = error.split('\'').next().unwrap_or_default();
    tracing::error!(
        reason,
        "an OTEL_EXPORTER_OTLP_* variable cannot be used: nothing is exported"
    );
}

/// How many sampled spans have ended, and how many the backend has taken.
#[derive(Debug, Default)]
pub struct Delivery {
    ended: AtomicU64,
    delivered: AtomicU64,
}

impl Delivery {
    /// Logs how many spans were not exported, if any: the queue was full, the export
    /// failed, or the time ran out.
    pub fn report(&self) {
        let ended = self.ended.load(Relaxed);
        let lost = ended.saturating_sub(self.delivered.load(Relaxed));
        if lost > 0 {
            tracing::warn!(
                lost,
                ended,
                "spans were lost: the trace backend did not take them"
            );
        }
    }
}

/// Wraps a processor or an exporter and counts the spans that pass.
#[derive(Debug)]
pub struct Counted<T> {
    inner: T,
    delivery: Arc<Delivery>,
}

impl<T> Counted<T> {
    pub fn new(inner: T, delivery: &Arc<Delivery>) -> Self {
        Counted {
            inner,
            delivery: Arc::clone(delivery),
        }
    }
}

impl<T: SpanProcessor> SpanProcessor for Counted<T> {
    fn on_end(&self, span: SpanData) {
        self.delivery.ended.fetch_add(1, Relaxed);
        self.inner.on_end(span);
    }

    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.inner.on_start(span, cx);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<T: SpanExporter> SpanExporter for Counted<T> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) => {
                self.delivery.delivered.fetch_add(spans, Relaxed);
            }
            Err(_) => tracing::warn!(
                spans,
                "spans were dropped: the export of a batch failed"
            ),
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
