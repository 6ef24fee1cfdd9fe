//! A WebSocket: one span for each message, linked to the span of the upgrade.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use opentelemetry::trace::{
    FutureExt as _, Link, SpanContext, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, global};
use production::telemetry::{record_error, tracer};
use serde::Deserialize;
use serde_json::json;

/// The longest message in bytes.
const MESSAGE_LIMIT: usize = 64 * 1024;

/// A message of a client. Its `context` has the fields that a request has in its
/// headers.
#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    context: HashMap<String, String>,
    question: String,
}

/// Answers 101. The SERVER span ends with that answer, so only its ids are kept.
pub async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    let opened_by = Context::current().span().span_context().clone();
    upgrade
        .max_message_size(MESSAGE_LIMIT)
        .on_upgrade(|socket| converse(socket, opened_by))
}

/// Answers until the client leaves.
async fn converse(mut socket: WebSocket, opened_by: SpanContext) {
    while let Some(Ok(message)) = socket.recv().await {
        // Pings are answered by the library.
        let (Message::Text(_) | Message::Binary(_)) = &message else {
            continue;
        };
        let answer = receive(message.into_data(), &opened_by).await;
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}

/// Answers one message in a span of its own.
async fn receive(message: Bytes, opened_by: &SpanContext) -> String {
    let question = serde_json::from_slice::<Question>(&message);
    let parent = question.as_ref().map(parent).unwrap_or_default();
    let tracer = tracer();
    let span = tracer
        .span_builder("answer question")
        .with_kind(SpanKind::Server)
        .with_links(vec![Link::new(opened_by.clone(), Vec::new(), 0)])
        .start_with_context(&tracer, &parent);
    let cx = parent.with_span(span);
    let answer = match question {
        Ok(asked) => answer(asked.question).with_context(cx.clone()).await,
        Err(_) => {
            record_error(&cx.span(), "invalid_message", String::new());
            json!({ "error": "send {\"question\": \"…\"}" }).to_string()
        }
    };
    cx.span().end();
    answer
}

/// The client's context, or an empty one.
fn parent(question: &Question) -> Context {
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &question.context)
    })
}

async fn answer(question: String) -> String {
    tracer().in_span("look up", |_cx| json!({ "answer": question }).to_string())
}
