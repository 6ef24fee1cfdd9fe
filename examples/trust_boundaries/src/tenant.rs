//! Sends the tenant along with a request: the edge sets it once, and every service
//! can read it.

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

/// Puts the tenant into the baggage, for everything that this request calls. Runs
/// inside `continue_trace`. The header stands for a token that you have checked.
pub async fn set_tenant(request: Request, next: Next) -> Response {
    let tenant = request.headers().get("x-tenant");
    let tenant = tenant.and_then(|value| value.to_str().ok());
    let cx = match tenant {
        Some(tenant) => {
            let tenant = KeyValue::new("tenant", cut(tenant, VALUE_LIMIT));
            // The SERVER span started before the tenant was in the baggage.
            Context::map_current(|cx| cx.span().set_attribute(tenant.clone()));
            Context::current_with_baggage([tenant])
        }
        None => Context::current(),
    };
    next.run(request).with_context(cx).await
}

/// Copies the named baggage entries to each new span. It leaves out the others,
/// because any service on the way can add some.
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
