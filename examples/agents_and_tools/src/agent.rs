//! The loop of an agent: ask the model, call the tools it asks for, ask again.

use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use production::error::{CallError, ErrorType as _, description};
use production::telemetry::{record_error, tracer};
use rmcp::model::{CallToolResult, Tool};

use crate::client::Tools;
use crate::model::{Message, Model};

/// The most often that the model may ask for tools before it answers.
const TURNS: usize = 5;

/// An agent.
pub struct Agent {
    pub model: Model,
    pub tools: Tools,
    /// The tools that the model is offered.
    pub offered: Vec<Tool>,
}

impl Agent {
    /// Answers `question`, under a span for the agent's work.
    ///
    /// # Errors
    /// When a tool server fails. A tool that fails is the model's problem.
    pub async fn answer(&self, question: String) -> Result<String, CallError> {
        let tracer = tracer();
        let span = tracer
            .span_builder("invoke_agent weather")
            .with_attributes([
                KeyValue::new("gen_ai.operation.name", "invoke_agent"),
                KeyValue::new("gen_ai.agent.name", "weather"),
            ])
            .start(&tracer);
        let cx = Context::current_with_span(span);
        let answer = self.converse(question).with_context(cx.clone()).await;
        if let Err(error) = &answer {
            record_error(&cx.span(), error.error_type(), description(error));
        }
        cx.span().end();
        answer
    }

    async fn converse(&self, question: String) -> Result<String, CallError> {
        let mut messages = vec![Message::User(question)];
        for _ in 0..TURNS {
            let call = match self.model.chat(&messages, &self.offered) {
                Message::ToolCall(call) => call,
                Message::Assistant(text) => return Ok(text),
                _ => return Err(CallError::InvalidAnswer),
            };
            messages.push(Message::ToolCall(call.clone()));
            let tool = self.offered.iter().find(|tool| tool.name == call.name);
            let text = match tool {
                Some(tool) => text_of(&self.tools.call(tool, call.arguments).await?),
                None => "There is no such tool.".to_owned(),
            };
            messages.push(Message::ToolResult { id: call.id, text });
        }
        Err(CallError::InvalidAnswer)
    }
}

/// The parts of a result that are text. They may say why the tool failed.
fn text_of(result: &CallToolResult) -> String {
    let parts = result.content.iter().filter_map(|part| part.as_text());
    parts.map(|part| part.text.as_str()).collect()
}
