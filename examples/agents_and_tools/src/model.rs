//! A model for the example: it asks for the first tool it is offered, and repeats
//! what the tool says.

use opentelemetry::trace::{Span as _, Tracer as _};
use opentelemetry::{Array, KeyValue, Value};
use production::settings;
use production::telemetry::{MESSAGE_LIMIT, cut, tracer};
use rmcp::model::{JsonObject, Tool};
use serde_json::json;

/// One message of a conversation.
pub enum Message {
    User(String),
    ToolCall(ToolCall),
    ToolResult { id: String, text: String },
    Assistant(String),
}

/// The model asks for a tool.
#[derive(Clone)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub arguments: JsonObject,
}

/// A model, and whether what is said may be recorded on spans.
pub struct Model {
    record_content: bool,
}

impl Model {
    /// Records what is said where
    /// `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`.
    pub fn from_env() -> Self {
        let record_content =
            settings::flag("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT");
        Model { record_content }
    }

    /// Continues a conversation, under a span of its own.
    pub fn chat(&self, messages: &[Message], tools: &[Tool]) -> Message {
        let tracer = tracer();
        let mut span = tracer
            .span_builder("chat offline")
            .with_attributes([
                KeyValue::new("gen_ai.operation.name", "chat"),
                KeyValue::new("gen_ai.provider.name", "offline"),
                KeyValue::new("gen_ai.request.model", "offline"),
            ])
            .start(&tracer);
        let (answer, reason) = answer(messages, tools);
        let reasons = Value::Array(Array::String(vec![reason.into()]));
        span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        if self.record_content {
            let input: Vec<_> = messages.iter().map(Message::to_json).collect();
            let mut output = answer.to_json();
            output["finish_reason"] = reason.into();
            for (key, messages) in [
                ("gen_ai.input.messages", json!(input)),
                ("gen_ai.output.messages", json!([output])),
            ] {
                span.set_attribute(KeyValue::new(key, messages.to_string()));
            }
        }
        span.end();
        answer
    }
}

/// The next message, and why it ends there.
fn answer(messages: &[Message], tools: &[Tool]) -> (Message, &'static str) {
    match (messages.last(), tools.first()) {
        (Some(Message::User(question)), Some(tool)) => {
            let question = question.trim_end_matches('?');
            let city = question.split_whitespace().last();
            let city = city.map(|city| ("city".to_owned(), city.into()));
            let call = ToolCall {
                id: format!("call_{}", messages.len()),
                name: tool.name.to_string(),
                arguments: city.into_iter().collect(),
            };
            (Message::ToolCall(call), "tool_calls")
        }
        (Some(Message::ToolResult { text, .. }), _) => {
            (Message::Assistant(format!("The tool says: {text}")), "stop")
        }
        _ => (Message::Assistant("I have no tool.".to_owned()), "stop"),
    }
}

impl Message {
    /// In the form of the conventions.
    fn to_json(&self) -> serde_json::Value {
        let (role, part) = match self {
            Message::User(text) => ("user", content(text)),
            Message::Assistant(text) => ("assistant", content(text)),
            Message::ToolCall(call) => {
                let (id, name) = (&call.id, &call.name);
                let arguments = &call.arguments;
                let part = json!({ "id": id, "name": name, "arguments": arguments });
                ("assistant", typed("tool_call", part))
            }
            Message::ToolResult { id, text } => {
                let part = json!({ "id": id, "response": cut(text, MESSAGE_LIMIT) });
                ("tool", typed("tool_call_response", part))
            }
        };
        json!({ "role": role, "parts": [part] })
    }
}

fn content(text: &str) -> serde_json::Value {
    typed("text", json!({ "content": cut(text, MESSAGE_LIMIT) }))
}

fn typed(kind: &str, mut part: serde_json::Value) -> serde_json::Value {
    part["type"] = kind.into();
    part
}
