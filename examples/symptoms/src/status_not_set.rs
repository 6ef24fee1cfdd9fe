//! A CLIENT span of a call that failed.

use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use production::error::CallError;
use production::outgoing::{Upstream, inject_context_into_carrier};
use production::telemetry::tracer;
use reqwest::Url;
use reqwest::header::HeaderMap;

/// Wrong: the span has the status code, and nothing that a search for errors finds.
pub async fn broken(stock: &Url) -> anyhow::Result<()> {
    let tracer = tracer();
    let span = tracer
        .span_builder("POST /fail")
        .with_kind(SpanKind::Client);
    let cx = Context::current_with_span(span.start(&tracer));
    let call = async {
        let mut headers = HeaderMap::new();
        inject_context_into_carrier(&mut headers);
        let call = reqwest::Client::new().post(stock.join("/fail")?);
        anyhow::Ok(call.headers(headers).send().await?.status())
    };
    let status = call.with_context(cx.clone()).await?;
    let code = i64::from(status.as_u16());
    cx.span()
        .set_attribute(KeyValue::new("http.response.status_code", code));
    cx.span().end();
    Ok(())
}

/// `Upstream` records the error: status and `error.type`, for 4xx and 5xx alike.
pub async fn repaired(stock: &Url) -> anyhow::Result<()> {
    let stock = Upstream::new(stock.clone(), std::time::Duration::from_secs(5))?;
    match stock.post::<u32>("/fail", &1).await {
        Ok(_) | Err(CallError::Status(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
