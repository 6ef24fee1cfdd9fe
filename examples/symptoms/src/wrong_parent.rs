//! Headers that are written before the span of the call is current.

use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use production::outgoing::inject_context_into_carrier;
use production::spans::{EventType, trace};
use production::telemetry::tracer;
use reqwest::Url;
use reqwest::header::HeaderMap;

/// Wrong: the headers carry `order`, and `stock` becomes a brother of the call that
/// it answers.
pub async fn broken(stock: &Url) -> anyhow::Result<()> {
    let order = async {
        let mut headers = HeaderMap::new();
        inject_context_into_carrier(&mut headers);
        in_client_span(async { call(stock, headers).await }).await
    };
    trace("order", EventType::Chain, order).await
}

/// The headers are written inside of the CLIENT span, and carry it.
pub async fn repaired(stock: &Url) -> anyhow::Result<()> {
    let order = in_client_span(async {
        let mut headers = HeaderMap::new();
        inject_context_into_carrier(&mut headers);
        call(stock, headers).await
    });
    trace("order", EventType::Chain, order).await
}

async fn call(stock: &Url, headers: HeaderMap) -> anyhow::Result<()> {
    let call = reqwest::Client::new().post(stock.join("/reserve")?);
    call.headers(headers).send().await?.error_for_status()?;
    Ok(())
}

async fn in_client_span<F: Future>(call: F) -> F::Output {
    let tracer = tracer();
    let span = tracer
        .span_builder("POST /reserve")
        .with_kind(SpanKind::Client)
        .start(&tracer);
    let cx = Context::current_with_span(span);
    let output = call.with_context(cx.clone()).await;
    cx.span().end();
    output
}
