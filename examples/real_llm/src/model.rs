//! Asks any server that speaks OpenAI's protocol to answer piece by piece.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use opentelemetry::trace::FutureExt as _;
use production::error::CallError;
use production::outgoing::inject_context_into_carrier;
use production::settings;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use serde_json::json;

use crate::answer::Answer;
use crate::error::ModelError;
use crate::span::ChatSpan;

/// The longest silence of a model, unless `LLM_TIMEOUT_MS` says otherwise: until its
/// first word, and between any two. How long it speaks has no limit here.
const SILENCE: Duration = Duration::from_secs(30);

/// A model to chat with, and what its server and our spans may know.
pub struct Model {
    client: Client,
    url: Url,
    name: String,
    authorization: Option<HeaderValue>,
    /// Whether the server is ours, and may know our trace.
    is_ours: bool,
    /// Whether our spans may know prompts and answers.
    record_content: bool,
}

impl Model {
    /// Reads the variables of the tutorial's model; `LLM_BASE_URL` is llama.cpp on
    /// this machine unless set. `LLM_IS_OURS=true` is for a server of our own that
    /// is traced too.
    ///
    /// # Errors
    /// When one of the variables is missing, or cannot be used.
    pub fn from_env() -> anyhow::Result<Self> {
        let mut url =
            settings::server_url("LLM_BASE_URL", "http://127.0.0.1:8080/v1")?;
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/chat/completions"));
        let client = Client::builder()
            .read_timeout(settings::deadline("LLM_TIMEOUT_MS", SILENCE)?)
            .redirect(Policy::none())
            .build()?;
        Ok(Model {
            client,
            url,
            name: settings::optional("LLM_MODEL").context("LLM_MODEL is not set")?,
            authorization: settings::bearer("LLM_API_KEY")?,
            is_ours: settings::read("LLM_IS_OURS", false)?,
            record_content: settings::flag(
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            ),
        })
    }

    /// Sends `prompt`, and waits until the server begins to answer.
    ///
    /// # Errors
    /// When it does not, or refuses.
    pub async fn ask(&self, prompt: &str) -> Result<Answer, ModelError> {
        let content = self.record_content.then_some(prompt);
        let span = ChatSpan::start(&self.name, &self.url, content);
        match self.send(prompt).with_context(span.context()).await {
            Ok(response) => Ok(Answer::new(response, span)),
            Err(error) => {
                span.fail(&error);
                Err(error)
            }
        }
    }

    async fn send(&self, prompt: &str) -> Result<Response, ModelError> {
        let mut headers = HeaderMap::new();
        if self.is_ours {
            inject_context_into_carrier(&mut headers);
        }
        let request = self.client.post(self.url.clone()).headers(headers);
        let mut request = request.json(&json!({
            "model": self.name,
            "messages": [{ "role": "user", "content": prompt }],
            "stream": true,
            // Without it, no server counts the tokens of a stream.
            "stream_options": { "include_usage": true },
        }));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(CallError::from)?;
        match response.status() {
            StatusCode::OK if is_stream(&response) => Ok(response),
            StatusCode::OK => Err(CallError::InvalidAnswer.into()),
            StatusCode::TOO_MANY_REQUESTS => {
                Err(ModelError::Busy(retry_after(&response)))
            }
            status => Err(CallError::Status(status).into()),
        }
    }
}

/// A server that knows no streams answers with the whole, as JSON.
fn is_stream(response: &Response) -> bool {
    header(response, CONTENT_TYPE.as_str())
        .is_some_and(|value| value.starts_with("text/event-stream"))
}

/// `Retry-After` in seconds; the date that it may be instead is not read.
fn retry_after(response: &Response) -> Option<u32> {
    header(response, RETRY_AFTER.as_str())?.parse().ok()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}
