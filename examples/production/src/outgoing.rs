//! The outgoing half of propagation: the current context becomes the headers of a
//! request.

use std::time::Duration;

use axum::http::HeaderMap;
pub use distributed_tracing::client::read_json;
use distributed_tracing::server::HEAD_DEADLINE;
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderInjector;
use opentelemetry_semantic_conventions::attribute::{
    HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, SERVER_ADDRESS, SERVER_PORT,
    URL_FULL,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CallError, ErrorType as _, description};
use crate::settings;
use crate::telemetry::{record_error, tracer};

/// Writes the current context into `headers`: `traceparent`, `tracestate` and
/// `baggage`.
pub fn inject_context_into_carrier(headers: &mut HeaderMap) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), &mut HeaderInjector(headers));
    });
}

/// A service that this one calls: where it is, and how long it may take to answer.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    base: Url,
}

impl Upstream {
    /// Reads `{name}_URL` and `{name}_TIMEOUT_MS`; the arguments are the defaults.
    ///
    /// # Errors
    /// When one of the two variables cannot be used.
    pub fn from_env(
        name: &str,
        url: &str,
        deadline: Duration,
    ) -> anyhow::Result<Self> {
        let base = settings::server_url(&format!("{name}_URL"), url)?;
        let deadline = settings::deadline(&format!("{name}_TIMEOUT_MS"), deadline)?;
        Ok(Upstream::new(base, deadline)?)
    }

    /// A client for the service at `base`. `deadline` covers the whole call, from
    /// connecting to the last byte.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(base: Url, deadline: Duration) -> reqwest::Result<Self> {
        let client = Client::builder()
            .timeout(deadline)
            // Sooner than the other side closes the connection.
            .pool_idle_timeout(HEAD_DEADLINE / 2)
            .redirect(Policy::none())
            .build()?;
        Ok(Upstream { client, base })
    }

    /// POSTs `body` as JSON to `path` under a CLIENT span of its own. Returns the
    /// JSON answer.
    ///
    /// # Errors
    /// When the deadline passes, the service cannot be reached, or its answer is
    /// anything but 2xx and JSON, or is too long.
    pub async fn post<Answer>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, CallError>
    where
        Answer: DeserializeOwned,
    {
        let url = self.url(path);
        let cx = Context::current_with_span(client_span(path, &url));
        let result = self.send(url, body).with_context(cx.clone()).await;
        if let Err(error) = &result {
            record_error(&cx.span(), error.error_type(), description(error));
        }
        cx.span().end();
        result
    }

    /// Runs in the context of the CLIENT span: that span is what the headers carry.
    async fn send<Answer>(
        &self,
        url: Url,
        body: &impl Serialize,
    ) -> Result<Answer, CallError>
    where
        Answer: DeserializeOwned,
    {
        let mut headers = HeaderMap::new();
        inject_context_into_carrier(&mut headers);
        let response = self
            .client
            .post(url)
            .headers(headers)
            .json(body)
            .send()
            .await?;

        let status = response.status();
        let code = i64::from(status.as_u16());
        Context::map_current(|cx| {
            cx.span()
                .set_attribute(KeyValue::new(HTTP_RESPONSE_STATUS_CODE, code))
        });
        if !status.is_success() {
            return Err(CallError::Status(status));
        }
        read_json(response).await
    }

    /// `path` below the base URL, which may have a path of its own.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(None);
        url
    }
}

fn client_span(path: &str, url: &Url) -> BoxedSpan {
    let tracer = tracer();
    tracer
        .span_builder(format!("POST {path}"))
        .with_kind(SpanKind::Client)
        .with_attributes([
            KeyValue::new(HTTP_REQUEST_METHOD, "POST"),
            KeyValue::new(URL_FULL, url.to_string()),
            KeyValue::new(
                SERVER_ADDRESS,
                url.host_str().unwrap_or_default().to_owned(),
            ),
            KeyValue::new(
                SERVER_PORT,
                i64::from(url.port_or_known_default().unwrap_or_default()),
            ),
        ])
        .start(&tracer)
}
