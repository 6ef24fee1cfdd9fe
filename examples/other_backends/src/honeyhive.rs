//! The attributes that HoneyHive needs on every span: project, source and session.

use std::time::Duration;

use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::{Span as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use production::settings;

/// Adds to each span that begins what HoneyHive's own SDK adds.
#[derive(Debug)]
pub struct HoneyHive {
    project: String,
    source: String,
}

impl HoneyHive {
    /// Reads `HH_PROJECT` and `HH_SOURCE`. Returns `None` without a project.
    pub fn from_env() -> Option<Self> {
        let source = settings::optional("HH_SOURCE");
        Some(HoneyHive {
            project: settings::optional("HH_PROJECT")?,
            source: source.unwrap_or_else(|| "dev".to_owned()),
        })
    }
}

impl SpanProcessor for HoneyHive {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        // Where a caller names a session, as HoneyHive's SDK does, it goes on in it.
        let session = match cx.baggage().get("session_id") {
            Some(session) => session.to_string(),
            None => session_of(span.span_context().trace_id()),
        };
        span.set_attributes([
            KeyValue::new("honeyhive.project", self.project.clone()),
            KeyValue::new("honeyhive.source", self.source.clone()),
            KeyValue::new("honeyhive.session_id", session),
            // Without it, the session must have been begun by a call of its API.
            KeyValue::new("honeyhive.session_auto_create", true),
        ]);
    }

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A session is named by a UUID, and a trace id has as many digits: so all services
/// agree on one session for each trace, and need not tell each other.
fn session_of(trace: TraceId) -> String {
    let digits = trace.to_string();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    parts.join("-")
}
