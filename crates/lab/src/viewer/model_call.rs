//! A model call in the detail of a span: its facts, and its messages as a conversation.

use maud::{Markup, html};

use crate::log::LogRecord;
use crate::proto::trace::Span as Proto;
use crate::tree::label;
use crate::viewer::span::value;
use traces::model_call::messages::{Conversation, Message, Part, Said, Side};
use traces::model_call::{Kind, ModelCall};

/// Renders the call of a model, a tool or an agent, if the span is one.
pub fn section(proto: &Proto, records: &[&LogRecord]) -> Markup {
    let Some(call) = ModelCall::read(proto) else { return html! {} };
    let records = records.iter().filter(|record| record.event_name().starts_with("gen_ai."));
    let records: Vec<_> = records.map(|record| record.proto()).collect();
    let sent = records.iter().map(|record| Said {
        name: &record.event_name,
        attributes: &record.attributes,
        body: record.body.as_ref(),
    });
    let conversation = Conversation::read(&call, proto, sent);
    let title = match call.kind {
        Kind::Model => "Model call",
        Kind::Tool => "Tool call",
        Kind::Agent => "Agent",
    };
    html! {
        h3 { (title) }
        (facts(&call))
        @if conversation.messages.is_empty() {
            @if call.kind == Kind::Model { p.facts { "The service recorded no messages." } }
        } @else {
            ol.conversation aria-label="Messages" { @for message in &conversation.messages { (said(message)) } }
        }
        @if conversation.is_cut { p.facts { "There is more: the attributes, events and log records below have all of it." } }
    }
}

fn facts(call: &ModelCall) -> Markup {
    let ModelCall {
        operation,
        provider,
        requested,
        answered_by,
        finish_reasons,
        tool,
        tool_call_id,
        ..
    } = call;
    let asked =
        requested.as_deref().filter(|it| answered_by.as_deref().is_some_and(|by| by != *it));
    html! {
        dl {
            @if let Some(operation) = operation { dt { "operation" } dd { bdi { (operation) } } }
            @if let Some(model) = call.model() {
                dt { "model" }
                dd { bdi { (model) } @if let Some(asked) = asked { ", asked for as " bdi { (asked) } } @if let Some(provider) = provider { ", of " bdi { (provider) } } }
            }
            @if let Some(tool) = tool { dt { "tool" } dd { bdi { (tool) } @if let Some(id) = tool_call_id { ", call " code { bdi { (id) } } } } }
            @if call.input_tokens.is_some() || call.output_tokens.is_some() {
                dt { "tokens" }
                dd { (tokens(call.input_tokens)) " in, " (tokens(call.output_tokens)) " out" }
            }
            @if !finish_reasons.is_empty() {
                dt { "ended with" }
                dd { @for (index, reason) in finish_reasons.iter().enumerate() { @if index > 0 { ", " } bdi { (reason) } } }
            }
        }
    }
}

fn tokens(count: Option<u64>) -> String {
    count.map_or("not counted".to_owned(), |count| count.to_string())
}

fn said(message: &Message) -> Markup {
    let side = match message.side {
        Side::Input => "input",
        Side::Output => "output",
    };
    html! {
        li class=(side) {
            b { bdi { (label(&message.role)) } }
            @for part in &message.parts { div.part { (this_part(part)) } }
        }
    }
}

fn this_part(part: &Part) -> Markup {
    html! {
        @match part {
            Part::Text { text } => (value(text)),
            Part::Reasoning { text } => { small { "thinks" } " " (value(text)) },
            Part::ToolCall { id, name, arguments } => {
                small { "calls the tool " } code { bdi { (label(name)) } } (of_call(id)) " "
                @if !arguments.is_empty() { div { (value(arguments)) } }
            },
            Part::ToolResult { id, text } => { small { "the tool's result" } (of_call(id)) " " div { (value(text)) } },
            Part::Other { kind } => small { "not text: " bdi { (kind) } },
        }
    }
}

fn of_call(id: &str) -> Markup {
    html! { @if !id.is_empty() { small { ", call " code { bdi { (id) } } } } }
}
