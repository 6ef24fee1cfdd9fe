//! The CLIENT span of a call, and the headers that carry its context.

use opentelemetry::global;
use opentelemetry::trace::Status;
use opentelemetry_http::HeaderInjector;
use reqwest::{RequestBuilder, Response};
use tracing::{Instrument as _, error_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Sends a request of any method, with any body.
pub async fn send(request: RequestBuilder) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let mut request = request?;
    let method = request.method().to_string();
    let span = error_span!(
        target: "request",
        "call",
        otel.name = method,
        otel.kind = "client",
    );
    let url = request.url();
    span.set_attribute("url.full", url.origin().ascii_serialization() + url.path());
    span.set_attribute("http.request.method", method);
    let mut headers = HeaderInjector(request.headers_mut());
    let context = span.context();
    global::get_text_map_propagator(|it| it.inject_context(&context, &mut headers));
    let result = client.execute(request).instrument(span.clone()).await;
    // The text of its errors has the whole URL.
    let result = result.map_err(reqwest::Error::without_url);
    let error_type = match &result {
        Ok(response) => {
            let status = response.status();
            span.set_attribute(
                "http.response.status_code",
                i64::from(status.as_u16()),
            );
            let failed = status.is_client_error() || status.is_server_error();
            failed.then(|| status.as_str().to_owned())
        }
        Err(error) if error.is_timeout() => Some("timeout".to_owned()),
        Err(error) if error.is_connect() => Some("connect".to_owned()),
        Err(_) => Some("_OTHER".to_owned()),
    };
    if let Some(error_type) = error_type {
        span.set_attribute("error.type", error_type);
        span.set_status(Status::error(""));
    }
    result
}
