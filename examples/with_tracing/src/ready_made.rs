//! Both halves of propagation, from the layers of `tower-otel`, and what the layers
//! leave to us.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};
use production::error::CallError;
use production::incoming::extract_context_from_carrier;
use production::outgoing::{inject_context_into_carrier, read_json};
use reqwest::{Client, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_otel::trace::HttpLayer;
use tracing::{Level, Span};

/// `routes` with a SERVER span around every request.
pub fn traced(routes: Router) -> Router {
    routes
        .layer(from_fn(name_the_error))
        .layer(HttpLayer::server(Level::INFO))
        .layer(from_fn(in_the_callers_context))
        .layer(from_fn(hide_secrets))
}

/// The layer sets the caller's context only as the parent of its span. If a filter
/// removes that span, outgoing calls need the context from here.
async fn in_the_callers_context(request: Request, next: Next) -> Response {
    let caller = extract_context_from_carrier(request.headers());
    next.run(request).with_context(caller).await
}

/// The layer records every header that isn't marked as sensitive.
async fn hide_secrets(mut request: Request, next: Next) -> Response {
    hide(request.headers_mut());
    next.run(request).await
}

fn hide(headers: &mut HeaderMap) {
    for name in ["authorization", "cookie", "x-api-key"] {
        if let Some(value) = headers.get_mut(name) {
            HeaderValue::set_sensitive(value, true);
        }
    }
}

/// The layer sets the span's status and leaves `error.type` to us.
async fn name_the_error(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status().is_server_error() {
        Span::current().record("error.type", response.status().as_str());
    }
    response
}

/// A service that this one calls.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    send: BoxCloneSyncService<reqwest::Request, reqwest::Response, reqwest::Error>,
    base: Url,
}

impl Upstream {
    /// A client for the service at `base`, with a CLIENT span around every request.
    pub fn new(client: Client, base: Url) -> Self {
        let send = ServiceBuilder::new()
            .map_request(|mut request: reqwest::Request| {
                hide(request.headers_mut());
                request
            })
            .layer(HttpLayer::client(Level::INFO))
            // Inside the layer its span is current and has started, so recording
            // `otel.name` has no effect. Our paths hold no ids.
            .map_request(|mut request: reqwest::Request| {
                // If a filter removed the span, the layer has written no headers.
                inject_context_into_carrier(request.headers_mut());
                let name = format!("{} {}", request.method(), request.url().path());
                Context::map_current(|cx| cx.span().update_name(name));
                request
            })
            .map_response(|response: reqwest::Response| {
                let status = response.status();
                if status.is_client_error() || status.is_server_error() {
                    Span::current().record("error.type", status.as_str());
                }
                response
            })
            .map_err(|error: reqwest::Error| {
                let kind = if error.is_timeout() {
                    "timeout"
                } else {
                    "unreachable"
                };
                Span::current().record("error.type", kind);
                // The layer records the message, which must not show the URL.
                error.without_url()
            })
            .service(client.clone());
        Upstream {
            client,
            send: BoxCloneSyncService::new(send),
            base,
        }
    }

    /// POSTs `body` as JSON to `path`.
    ///
    /// # Errors
    /// When the service doesn't answer, or answers anything but a 2xx with JSON.
    pub async fn post<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, CallError> {
        let mut url = self.base.clone();
        url.set_path(path);
        let request = self.client.post(url).json(body).build()?;
        let response = self.send.clone().oneshot(request).await?;
        match response.status() {
            StatusCode::OK => read_json(response).await,
            status => Err(CallError::Status(status)),
        }
    }
}
