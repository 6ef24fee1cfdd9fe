//! Both halves of propagation from the layers of `tower-otel`, and what they leave
//! open.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use distributed_tracing::error::CallError;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
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
        .layer(from_fn(hide_secrets))
}

/// The layer records every header, unless it is marked as one that must not be
/// shown.
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

/// The layer sets the status of the span, and leaves `error.type` to us.
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
            // From here on, the layer's span is the current one. It has begun, so a
            // new `otel.name` would not be seen. Our paths hold no ids.
            .map_request(|request: reqwest::Request| {
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
                // The layer records the message: let it be one without the URL.
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
    /// When there is no answer, or anything but 2xx and JSON.
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
            StatusCode::OK => Ok(response.json().await?),
            status => Err(CallError::Status(status)),
        }
    }
}
