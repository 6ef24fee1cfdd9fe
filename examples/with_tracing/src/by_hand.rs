//! Both halves of propagation with spans of `tracing`.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use distributed_tracing::error::CallError;
use distributed_tracing::incoming::extract_context_from_carrier;
use distributed_tracing::outgoing::inject_context_into_carrier;
use reqwest::{Client, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span, error, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Middleware: one SERVER span around every request, as a child of the caller's
/// span.
pub async fn continue_trace(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let method = known_method(request.method());
    // A field that is filled later must be named here.
    let span = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = request.uri().path(),
        url.scheme = "http",
    );
    // Before the span is entered: see symptoms.md.
    if let Err(error) =
        span.set_parent(extract_context_from_carrier(request.headers()))
    {
        error!(%error, "the caller's trace is not continued");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    async {
        let response = next.run(request).await;
        record_status(response.status(), response.status().is_server_error());
        response
    }
    .instrument(span)
    .await
}

/// A stranger must not choose our names.
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
    /// When there is no answer, or anything but 2xx and JSON.
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
        // The current span of `tracing` is the current one of OpenTelemetry too.
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
        Ok(response.json().await?)
    }
}

/// On the current span. A number of OpenTelemetry is an `i64`: any other type
/// becomes text.
fn record_status(status: StatusCode, failed: bool) {
    let span = Span::current();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if failed {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
}
