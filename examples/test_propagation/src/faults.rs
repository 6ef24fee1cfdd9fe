//! Services that break the contract, each in one way. Trust a test only after you
//! have seen it fail.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::map_request;
use axum::routing::post;
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use production::outgoing::inject_context_into_carrier;
use production::server;
use production::telemetry::tracer;
use reqwest::{Client, Url};

const DEADLINE: Duration = Duration::from_secs(5);

/// A way to break the contract.
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
    /// The second of two calls goes out without headers.
    SecondCallBare,
    /// The call is made in a task that was spawned without the context.
    SpawnedBare,
    /// A service that calls nobody starts a trace of its own.
    LeafNotExtracted,
}

impl Fault {
    pub const ALL: [(&str, Fault); 8] = [
        ("nothing-injected", Fault::NothingInjected),
        ("nothing-extracted", Fault::NothingExtracted),
        ("injected-too-early", Fault::InjectedTooEarly),
        ("appended-twice", Fault::AppendedTwice),
        ("copied", Fault::Copied),
        ("second-call-bare", Fault::SecondCallBare),
        ("spawned-bare", Fault::SpawnedBare),
        ("leaf-not-extracted", Fault::LeafNotExtracted),
    ];

    /// How many calls a request causes.
    pub fn calls(self) -> usize {
        match self {
            Fault::SecondCallBare => 2,
            Fault::LeafNotExtracted => 0,
            _ => 1,
        }
    }
}

/// A service with `fault` that calls the one at `neighbor`.
pub fn service(fault: Fault, neighbor: Url) -> Router {
    let answer =
        async move |came: HeaderMap| match answer(fault, neighbor, came).await {
            Ok(()) => "answered",
            Err(_) => "the neighbor did not answer",
        };
    let routes = Router::new().route("/process", post(answer));
    match fault {
        Fault::NothingExtracted => routes,
        Fault::LeafNotExtracted => {
            let forget = map_request(async |mut request: Request| {
                request.headers_mut().remove("traceparent");
                request
            });
            server::traced(routes, DEADLINE).layer(forget)
        }
        _ => server::traced(routes, DEADLINE),
    }
}

async fn answer(
    fault: Fault,
    neighbor: Url,
    came: HeaderMap,
) -> reqwest::Result<()> {
    match fault {
        Fault::LeafNotExtracted => Ok(()),
        Fault::SpawnedBare => {
            tokio::spawn(async move { call(fault, &neighbor, &came).await });
            Ok(())
        }
        Fault::SecondCallBare => {
            call(fault, &neighbor, &came).await?;
            Client::new().post(neighbor).send().await.map(drop)
        }
        _ => call(fault, &neighbor, &came).await,
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
            _ => {}
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
