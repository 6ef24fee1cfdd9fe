//! A tenant that every service of a request knows: set once, at the edge.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::{FutureExt as _, Span as _, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use production::telemetry::{VALUE_LIMIT, cut};

/// Middleware of the edge, inside of `continue_trace`: from here on, the baggage
/// says whose request this is. The header stands in for a token that was checked.
pub async fn name_tenant(request: Request, next: Next) -> Response {
    let tenant = request.headers().get("x-tenant");
    let tenant = tenant.and_then(|value| value.to_str().ok());
    let cx = match tenant {
        Some(tenant) => {
            let tenant = KeyValue::new("tenant", cut(tenant, VALUE_LIMIT));
            // Its span has begun, too early for `BaggageAttributes`.
            Context::map_current(|cx| cx.span().set_attribute(tenant.clone()));
            Context::current_with_baggage([tenant])
        }
        None => Context::current(),
    };
    next.run(request).with_context(cx).await
}

/// Copies entries of the baggage onto each span that begins: those that are named,
/// as anyone on the way may have added others.
#[derive(Debug)]
pub struct BaggageAttributes(pub &'static [&'static str]);

impl SpanProcessor for BaggageAttributes {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        for key in self.0 {
            if let Some(value) = cx.baggage().get(key) {
                span.set_attribute(KeyValue::new(*key, value.clone()));
            }
        }
    }

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
