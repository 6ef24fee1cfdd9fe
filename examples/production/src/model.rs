//! The language model: offline and deterministic by default, or any server that
//! speaks OpenAI's protocol.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_semantic_conventions::attribute::{SERVER_ADDRESS, SERVER_PORT};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::json;

use crate::error::{CallError, ErrorType as _, description};
use crate::outgoing::read_json;
use crate::settings;
use crate::telemetry::{MESSAGE_LIMIT, VALUE_LIMIT, cut, record_error, tracer};

/// How long a remote model may take, unless `LLM_TIMEOUT_MS` says otherwise.
const DEADLINE: Duration = Duration::from_secs(8);

/// A model to chat with, and whether its prompts and answers may be recorded on
/// spans.
pub struct Model {
    backend: Backend,
    name: String,
    record_content: bool,
}

enum Backend {
    /// Answers in this process, always the same, and needs no account.
    Offline,
    /// Calls `{base}/chat/completions`.
    Remote {
        client: Client,
        url: Url,
        /// `Bearer KEY`.
        authorization: Option<HeaderValue>,
    },
}

/// A model's answer. The other fields are for the span, so each of them may be
/// missing.
struct Completion {
    answer: String,
    model: Option<String>,
    finish_reason: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
}

impl Model {
    /// Offline, unless `LLM_BASE_URL` names a server; then `LLM_MODEL` and
    /// `LLM_API_KEY` apply too. Prompts and answers are recorded only where
    /// `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`.
    ///
    /// # Errors
    /// When one of the variables cannot be used.
    pub fn from_env() -> anyhow::Result<Self> {
        let record_content =
            settings::flag("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT");
        let base: String = settings::read("LLM_BASE_URL", "")?;
        if base.is_empty() {
            return Ok(Model {
                record_content,
                ..Model::offline()
            });
        }
        let mut url = settings::server_url("LLM_BASE_URL", "")?;
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/chat/completions"));
        let name = settings::optional("LLM_MODEL")
            .context("LLM_BASE_URL needs LLM_MODEL too")?;
        let client = Client::builder()
            .timeout(settings::deadline("LLM_TIMEOUT_MS", DEADLINE)?)
            .redirect(Policy::none())
            .build()?;
        let backend = Backend::Remote {
            client,
            url,
            authorization: settings::bearer("LLM_API_KEY")?,
        };
        Ok(Model {
            backend,
            name,
            record_content,
        })
    }

    /// The offline model, which records neither prompts nor answers.
    pub fn offline() -> Self {
        Model {
            backend: Backend::Offline,
            name: "offline".to_owned(),
            record_content: false,
        }
    }

    /// Answers `prompt` under a span that follows OpenTelemetry's conventions for
    /// generative AI.
    ///
    /// # Errors
    /// When a remote model does not answer; the offline one always does.
    pub async fn chat(&self, prompt: &str) -> Result<String, CallError> {
        let cx = Context::current_with_span(self.span());
        let result = self.complete(prompt).with_context(cx.clone()).await;
        let span = cx.span();
        match &result {
            Ok(completion) => span.set_attributes(completion.attributes()),
            Err(error) => {
                record_error(&span, error.error_type(), description(error))
            }
        }
        if self.record_content {
            span.set_attribute(message("gen_ai.input.messages", "user", prompt));
            if let Ok(completion) = &result {
                span.set_attribute(message(
                    "gen_ai.output.messages",
                    "assistant",
                    &completion.answer,
                ));
            }
        }
        span.end();
        result.map(|completion| completion.answer)
    }

    /// CLIENT where the model is a server of its own, INTERNAL where it runs in this
    /// process.
    fn span(&self) -> BoxedSpan {
        let mut attributes = vec![
            KeyValue::new("honeyhive_event_type", "model"),
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.request.model", self.name.clone()),
        ];
        let kind = match &self.backend {
            Backend::Offline => {
                attributes.push(KeyValue::new("gen_ai.provider.name", "offline"));
                SpanKind::Internal
            }
            Backend::Remote { url, .. } => {
                let host = url.host_str().unwrap_or_default().to_owned();
                let port =
                    i64::from(url.port_or_known_default().unwrap_or_default());
                attributes.push(KeyValue::new("gen_ai.provider.name", "openai"));
                attributes.push(KeyValue::new(SERVER_ADDRESS, host));
                attributes.push(KeyValue::new(SERVER_PORT, port));
                SpanKind::Client
            }
        };
        let tracer = tracer();
        tracer
            .span_builder(format!("chat {}", self.name))
            .with_kind(kind)
            .with_attributes(attributes)
            .start(&tracer)
    }

    async fn complete(&self, prompt: &str) -> Result<Completion, CallError> {
        let Backend::Remote {
            client,
            url,
            authorization,
        } = &self.backend
        else {
            return Ok(Completion::offline(prompt));
        };
        // No context is injected: our baggage is not for the model's provider.
        let mut request = client.post(url.clone()).json(&json!({
            "model": self.name,
            "messages": [{ "role": "user", "content": prompt }],
        }));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(CallError::Status(response.status()));
        }
        read_json::<ChatResponse>(response).await?.try_into()
    }
}

impl Completion {
    /// The same answer for the same prompt. Words stand in for tokens.
    fn offline(prompt: &str) -> Self {
        let answer = format!("This is the offline model. You asked: {prompt}");
        Completion {
            input_tokens: Some(word_count(prompt)),
            output_tokens: Some(word_count(&answer)),
            answer,
            model: Some("offline".to_owned()),
            finish_reason: Some("stop".to_owned()),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let reason = self.finish_reason.as_deref().unwrap_or("unknown");
        let reason = StringValue::from(cut(reason, VALUE_LIMIT));
        let reasons = Value::Array(Array::String(vec![reason]));
        let mut attributes = Vec::new();
        if let Some(model) = &self.model {
            let model = cut(model, VALUE_LIMIT);
            attributes.push(KeyValue::new("gen_ai.response.model", model));
        }
        attributes.push(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        for (key, tokens) in [
            ("gen_ai.usage.input_tokens", self.input_tokens),
            ("gen_ai.usage.output_tokens", self.output_tokens),
        ] {
            attributes.extend(tokens.map(|tokens| KeyValue::new(key, tokens)));
        }
        attributes
    }
}

fn word_count(text: &str) -> i64 {
    text.split_whitespace().count() as i64
}

/// One message in the JSON form of the conventions, cut to [`MESSAGE_LIMIT`].
fn message(key: &'static str, role: &str, content: &str) -> KeyValue {
    let content = cut(content, MESSAGE_LIMIT);
    let messages =
        json!([{ "role": role, "parts": [{ "type": "text", "content": content }] }]);
    KeyValue::new(key, messages.to_string())
}

/// The part of OpenAI's answer that we use. The fields that only the span needs may
/// have any shape: an odd token count must not fail the call.
#[derive(Deserialize)]
struct ChatResponse {
    choices: Vec<Choice>,
    #[serde(default)]
    model: serde_json::Value,
    #[serde(default)]
    usage: serde_json::Value,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: serde_json::Value,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

impl TryFrom<ChatResponse> for Completion {
    type Error = CallError;

    fn try_from(response: ChatResponse) -> Result<Self, CallError> {
        let choice = response
            .choices
            .into_iter()
            .next()
            .ok_or(CallError::InvalidAnswer)?;
        Ok(Completion {
            answer: choice.message.content,
            model: response.model.as_str().map(str::to_owned),
            finish_reason: choice.finish_reason.as_str().map(str::to_owned),
            input_tokens: response.usage["prompt_tokens"].as_i64(),
            output_tokens: response.usage["completion_tokens"].as_i64(),
        })
    }
}
