//! The span of a streamed chat, after OpenTelemetry's conventions for generative AI.

use std::time::Instant;

use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_semantic_conventions::attribute::{SERVER_ADDRESS, SERVER_PORT};
use production::telemetry::{MESSAGE_LIMIT, VALUE_LIMIT, cut, record_error, tracer};
use reqwest::Url;
use serde_json::json;

use crate::error::ModelError;
use crate::protocol::{Chunk, Usage};

/// A CLIENT span. It ends when it is dropped, with all that was heard by then.
pub struct ChatSpan {
    cx: Context,
    asked: Instant,
    heard: Heard,
    /// At most [`MESSAGE_LIMIT`] characters of each side, if they may be recorded.
    content: Option<Content>,
}

#[derive(Default)]
struct Heard {
    any_chunk: bool,
    any_text: bool,
    finish_reason: Option<String>,
    usage: Option<Usage>,
}

struct Content {
    prompt: String,
    answer: String,
}

impl ChatSpan {
    /// Begins now, below the current span. `prompt` where it may be recorded.
    pub fn start(model: &str, url: &Url, prompt: Option<&str>) -> Self {
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = i64::from(url.port_or_known_default().unwrap_or_default());
        let tracer = tracer();
        let span = tracer
            .span_builder(format!("chat {model}"))
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("honeyhive_event_type", "model"),
                KeyValue::new("gen_ai.operation.name", "chat"),
                KeyValue::new("gen_ai.provider.name", "openai"),
                KeyValue::new("gen_ai.request.model", model.to_owned()),
                KeyValue::new("gen_ai.request.stream", true),
                KeyValue::new(SERVER_ADDRESS, host),
                KeyValue::new(SERVER_PORT, port),
            ])
            .start(&tracer);
        ChatSpan {
            cx: Context::current_with_span(span),
            asked: Instant::now(),
            heard: Heard::default(),
            content: prompt.map(|prompt| Content {
                prompt: cut(prompt, MESSAGE_LIMIT),
                answer: String::new(),
            }),
        }
    }

    /// With this span as the current one.
    pub fn context(&self) -> Context {
        self.cx.clone()
    }

    /// Notes what a chunk says of the call, and when the first text came.
    pub fn hear(&mut self, chunk: &Chunk) {
        if !self.heard.any_chunk {
            self.heard.any_chunk = true;
            let seconds = self.asked.elapsed().as_secs_f64();
            self.set("gen_ai.response.time_to_first_chunk", seconds);
            for (key, value) in [
                ("gen_ai.response.id", &chunk.id),
                ("gen_ai.response.model", &chunk.model),
            ] {
                if let Some(value) = value {
                    self.set(key, cut(value, VALUE_LIMIT));
                }
            }
        }
        if let Some(text) = chunk.text() {
            if !self.heard.any_text {
                self.heard.any_text = true;
                self.cx.span().add_event("first_token", Vec::new());
            }
            if let Some(content) = &mut self.content {
                let left = MESSAGE_LIMIT - content.answer.chars().count();
                content.answer.push_str(&cut(text, left));
            }
        }
        if let Some(reason) = chunk.finish_reason() {
            self.heard.finish_reason = Some(cut(reason, VALUE_LIMIT));
        }
        self.heard.usage = chunk.usage.or(self.heard.usage);
    }

    /// Marks the call as failed.
    pub fn fail(&self, error: &ModelError) {
        record_error(&self.cx.span(), error.error_type(), error.description());
    }

    fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.cx.span().set_attribute(KeyValue::new(key, value));
    }
}

impl Drop for ChatSpan {
    fn drop(&mut self) {
        // What the conventions say of an answer that did not come to its end.
        let reason = self.heard.finish_reason.as_deref().unwrap_or("error");
        if self.heard.any_chunk {
            let reasons = Array::String(vec![reason.to_owned().into()]);
            self.set("gen_ai.response.finish_reasons", Value::Array(reasons));
        }
        if let Some(usage) = self.heard.usage {
            self.set("gen_ai.usage.input_tokens", usage.prompt_tokens);
            self.set("gen_ai.usage.output_tokens", usage.completion_tokens);
        }
        if let Some(Content { prompt, answer }) = &self.content {
            let parts = |text| json!([{ "type": "text", "content": text }]);
            let prompt = json!([{ "role": "user", "parts": parts(prompt) }]);
            let answer = json!([{
                "role": "assistant",
                "parts": parts(answer),
                "finish_reason": reason,
            }]);
            self.set("gen_ai.input.messages", prompt.to_string());
            self.set("gen_ai.output.messages", answer.to_string());
        }
        self.cx.span().end();
    }
}
