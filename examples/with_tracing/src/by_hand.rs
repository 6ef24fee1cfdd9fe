//! Both halves of propagation, with spans of `tracing`.

use std::sync::Once;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};
use production::error::{CallError, ErrorType as _};
use production::incoming::extract_context_from_carrier;
use production::outgoing::{inject_context_into_carrier, read_json};
use production::telemetry::{VALUE_LIMIT, cut};
use reqwest::{Client, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span, info_span, instrument, warn};

/// Middleware: one SERVER span around every request, as a child of the caller's
/// span.
///
/// The caller's context is current during the request. So even if a filter removes
/// our own span, outgoing calls continue the caller's trace.
pub async fn continue_trace(request: Request, next: Next) -> Response {
    let caller = extract_context_from_carrier(request.headers());
    in_server_span(request, next).with_context(caller).await
}

async fn in_server_span(request: Request, next: Next) -> Response {
    // A new span gets its parent from the current context, here the caller's.
    let span = server_span(&request);
    async {
        warn_if_not_recorded();
        let response = next.run(request).await;
        record_status(response.status(), response.status().is_server_error());
        response
    }
    .instrument(span)
    .await
}

fn server_span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let method = known_method(request.method());
    // A field that is filled in later must be named here.
    info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = cut(request.uri().path(), VALUE_LIMIT),
        url.scheme = "http",
    )
}

/// Without a span of our own, the current span is the caller's or none. One warning
/// is enough, because every request is affected.
fn warn_if_not_recorded() {
    static WARNED: Once = Once::new();
    let recorded = Context::map_current(|cx| {
        let span = cx.span().span_context().clone();
        span.is_valid() && !span.is_remote()
    });
    if !recorded {
        WARNED.call_once(|| {
            warn!(
                "requests have no span here: is it filtered out, or no layer set?"
            );
        });
    }
}

/// Clients can send any method, and must not choose our span names.
fn known_method(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => method.as_str(),
        _ => "_OTHER",
    }
}

/// A service that this one calls.
#[derive(Clone)]
pub struct Upstream {
    pub client: Client,
    pub base: Url,
}

impl Upstream {
    /// POSTs `body` as JSON to `path` under a CLIENT span of its own.
    ///
    /// # Errors
    /// When the service doesn't answer, or answers anything but a 2xx with JSON.
    #[instrument(
        skip_all,
        fields(
            otel.name = format!("POST {path}"),
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            http.request.method = "POST",
            http.response.status_code = Empty,
            url.full = format!("{}{path}", self.base.as_str().trim_end_matches('/')),
            server.address = self.base.host_str(),
        )
    )]
    pub async fn post<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, CallError> {
        let result = self.send(path, body).await;
        if let Err(error) = &result {
            let span = Span::current();
            span.record("error.type", display(error.error_type()));
            span.record("otel.status_code", "ERROR");
        }
        result
    }

    async fn send<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, CallError> {
        let mut headers = HeaderMap::new();
        // The bridge makes the current span of `tracing` OpenTelemetry's too.
        inject_context_into_carrier(&mut headers);
        let mut url = self.base.clone();
        url.set_path(path);
        let request = self.client.post(url).headers(headers).json(body);
        let response = request.send().await?;
        if !response.status().is_success() {
            record_status(response.status(), true);
            return Err(CallError::Status(response.status()));
        }
        record_status(response.status(), false);
        read_json(response).await
    }
}

/// On the current span. OpenTelemetry's numbers are `i64`: the bridge would turn a
/// `u64` into text.
fn record_status(status: StatusCode, failed: bool) {
    let span = Span::current();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if failed {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
}
