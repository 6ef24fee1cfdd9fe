//! Formats one span with everything that arrived of it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::parts::Span;
use crate::tree::{padded, plain, took, visible};

/// The width of the column of names.
const NAMES: usize = 12;

/// Formats a span, a line for each fact.
pub fn span(span: &Span) -> String {
    let mut text = format!("Span {} of trace {}\n\n", span.span_id, span.trace_id);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{}  {}", padded(name, NAMES), visible(value));
        }
    };
    let ids = |ids: &[crate::span::SpanId]| {
        let named = ids.iter().take(CHILDREN).map(ToString::to_string);
        let more = ids.len().saturating_sub(CHILDREN);
        let more = (more > 0).then(|| format!("and {more} more"));
        named.chain(more).collect::<Vec<_>>().join(" ")
    };
    line("name", &plain(&span.name));
    line("service", &plain(&span.service));
    line("kind", span.kind);
    line("status", span.status);
    line("message", &span.message);
    line("duration", &took(span.duration_nano));
    line("critical", &took(span.critical_nano));
    line("parent", &span.parent_span_id.map(|id| id.to_string()).unwrap_or_default());
    line("right below", &ids(&span.child_span_ids));
    line("code", &span.code.as_ref().map(ToString::to_string).unwrap_or_default());
    line("remarks", &span.remarks);
    line("library", format!("{} {}", span.scope.name, span.scope.version).trim());
    line("tracestate", &span.trace_state);
    line("page", span.page.as_deref().unwrap_or_default());
    attributes(&mut text, "Attributes", &span.attributes);
    for event in &span.events {
        attributes(&mut text, &format!("Event {}", plain(&event.name)), &event.attributes);
    }
    for record in &span.logs {
        let body = text_of(&record.body);
        let title = format!("Log record {}  {}", record.severity, visible(&body));
        attributes(&mut text, title.trim_end(), &record.attributes);
    }
    for link in &span.links {
        let title = format!("Link to span {} of trace {}", link.span_id, link.trace_id);
        attributes(&mut text, &title, &link.attributes);
    }
    attributes(&mut text, "Resource", &span.resource);
    text
}

/// The largest number of spans right below that are named.
const CHILDREN: usize = 20;

fn attributes(text: &mut String, title: &str, attributes: &Map<String, Value>) {
    let _ = writeln!(text, "\n{title}");
    for (key, value) in attributes {
        let _ = writeln!(text, "  {}  {}", plain(key), visible(&text_of(value)));
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(value) => value.clone(),
        other => other.to_string(),
    }
}
