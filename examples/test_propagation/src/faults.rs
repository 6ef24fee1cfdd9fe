//! Services that break the contract, each in one way: whoever trusts a test has
//! seen it fail.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderName};
use axum::routing::post;
use distributed_tracing::outgoing::inject_context_into_carrier;
use distributed_tracing::server;
use distributed_tracing::telemetry::tracer;
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use reqwest::{Client, Url};

const DEADLINE: Duration = Duration::from_secs(5);

/// What is wrong with a service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The line that injects was deleted.
    NothingInjected,
    /// The middleware that extracts is missing.
    NothingExtracted,
    /// Injected before the CLIENT span is the current one.
    InjectedTooEarly,
    /// Added to headers that have one already, as a second library may.
    AppendedTwice,
    /// The caller's headers are copied, as a proxy does.
    Copied,
}

impl Fault {
    pub const ALL: [(&str, Fault); 5] = [
        ("nothing-injected", Fault::NothingInjected),
        ("nothing-extracted", Fault::NothingExtracted),
        ("injected-too-early", Fault::InjectedTooEarly),
        ("appended-twice", Fault::AppendedTwice),
        ("copied", Fault::Copied),
    ];
}

/// A service with `fault` that calls the one at `neighbor`.
pub fn service(fault: Fault, neighbor: Url) -> Router {
    let answer =
        async move |came: HeaderMap| match call(fault, &neighbor, &came).await {
            Ok(()) => "answered",
            Err(_) => "the neighbor did not answer",
        };
    let routes = Router::new().route("/process", post(answer));
    match fault {
        Fault::NothingExtracted => routes,
        _ => server::traced(routes, DEADLINE),
    }
}

async fn call(
    fault: Fault,
    neighbor: &Url,
    came: &HeaderMap,
) -> reqwest::Result<()> {
    let mut early = HeaderMap::new();
    inject_context_into_carrier(&mut early);
    let tracer = tracer();
    let span = tracer.span_builder("POST").with_kind(SpanKind::Client);
    let cx = Context::current_with_span(span.start(&tracer));
    let send = async {
        let mut headers = HeaderMap::new();
        inject_context_into_carrier(&mut headers);
        match fault {
            Fault::NothingInjected => headers.clear(),
            Fault::NothingExtracted => {}
            Fault::InjectedTooEarly => headers = early,
            Fault::AppendedTwice => {
                let name = HeaderName::from_static("traceparent");
                if let Some(value) = headers.get(&name).cloned() {
                    headers.append(name, value);
                }
            }
            Fault::Copied => {
                headers.clear();
                let of_trace = ["traceparent", "tracestate", "baggage"];
                for name in of_trace.map(HeaderName::from_static) {
                    headers.extend(came.get(&name).map(|it| (name, it.clone())));
                }
            }
        }
        Client::new()
            .post(neighbor.clone())
            .headers(headers)
            .send()
            .await
    };
    let result = send.with_context(cx.clone()).await;
    cx.span().end();
    result.map(drop)
}
