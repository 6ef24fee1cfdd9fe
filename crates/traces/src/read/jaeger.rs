//! Reads Jaeger's JSON: what its page downloads, what `/api/traces` answers, and the spans of its storage. The form is that of
//! [`model/json`](https://github.com/jaegertracing/jaeger/blob/main/internal/uimodel/model.go); times are in microseconds.

use std::collections::HashMap;

use crate::proto::common::any_value::Value;
use crate::proto::common::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use crate::proto::trace::Span;
use crate::proto::trace::span::{Event, Link};

use super::Document;
use super::json::Json;
use super::value::{
    Flaw, Losses, attribute, base64, boolean, double, id, int, kind, microseconds, parent_id,
    plain, status, text_attribute, timestamp, unsigned,
};

/// Reads one trace, with its `spans` and `processes`.
pub fn trace(json: &Json, document: &mut Document) {
    // Many spans share a process, which may be large.
    let processes = json.get("processes").fields().iter();
    let mut processes: HashMap<&str, (&Json, Option<usize>)> =
        processes.rev().map(|(id, process)| (&**id, (process, None))).collect();
    for span in json.get("spans").items() {
        let own = span.get("process");
        let resource = match processes.get_mut(span.get("processid").text()) {
            Some((process, number)) if own.is_null() => {
                *number.get_or_insert_with(|| self::resource(process, document))
            }
            _ => self::resource(own, document),
        };
        span_of(span, resource, document);
    }
}

/// Reads one span.
pub fn span(json: &Json, process: &Json, document: &mut Document) {
    let resource = resource(process, document);
    span_of(json, resource, document);
}

/// Reads a process. Returns the number of its resource.
fn resource(process: &Json, document: &mut Document) -> usize {
    let losses = &mut document.losses;
    losses.leave();
    let mut resource = vec![text_attribute("service.name", process.get("servicename").text())];
    resource.extend(tags(process.get("tags"), losses));
    document.resource(resource)
}

fn span_of(json: &Json, resource: usize, document: &mut Document) {
    let losses = &mut document.losses;
    let name = json.get("operationname").text();
    losses.enter(name);
    let trace_id = id::<16>(json.get("traceid"));
    let (start, duration) = (json.get("starttime"), json.get("duration"));
    // Go's own JSON of Jaeger's model has a text, and a duration in nanoseconds.
    let by_go = start.text().contains('T') && duration.text().is_empty();
    let start = losses.field("startTime", start, time(start));
    let read = if by_go { unsigned(duration) } else { time(duration) };
    let duration = losses.field("duration", duration, read);
    let mut span = Span {
        span_id: id::<8>(json.get("spanid")),
        parent_span_id: parent_id(json.get("parentspanid")),
        name: name.to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(duration),
        attributes: tags(json.get("tags"), losses),
        events: json.get("logs").items().iter().map(|log| event(log, losses)).collect(),
        ..Span::default()
    };
    references(&mut span, &trace_id, json.get("references"));
    span.trace_id = trace_id;
    let warnings = json.get("warnings").items();
    if !warnings.is_empty() {
        let values = warnings.iter().map(|warning| AnyValue { value: plain(warning) });
        let warnings = Value::ArrayValue(ArrayValue { values: values.collect() });
        span.attributes.push(attribute("jaeger.warnings", Some(warnings)));
    }
    let scope = from_tags(&mut span);
    document.add_of(resource, scope, span);
}

/// Reads microseconds, or what protobuf's JSON has: a time of RFC 3339, or a duration such as `0.1s` or `5000ns`.
fn time(json: &Json) -> Result<u64, Flaw> {
    let text = json.text();
    if text.contains('T') {
        return timestamp(json);
    }
    let units = [("ns", 1.0), ("µs", 1e3), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    let split = |(unit, factor): &(&str, f64)| Some((text.strip_suffix(unit)?, *factor));
    match units.iter().find_map(split) {
        Some((number, factor)) => {
            let nanoseconds = number.parse::<f64>().map_err(|_| Flaw::Time)? * factor;
            // The cast ends at the largest number.
            Ok(nanoseconds.round() as u64)
        }
        None => microseconds(json),
    }
}

/// Takes the parent and the links from the references. As in Jaeger's `ParentSpanID`, the parent is the first span of the same
/// trace that this one is a child of, or else that it follows.
fn references(span: &mut Span, trace_id: &[u8], references: &Json) {
    let of_trace = |json: &&Json| id::<16>(json.get("traceid")) == trace_id;
    let follows = |json: &&Json| json.get("reftype").text() == "FOLLOWS_FROM";
    let references = references.items();
    let same = || references.iter().filter(of_trace);
    let parent = same().find(|json| !follows(json)).or_else(|| same().next());
    if let Some(parent) = parent.filter(|_| span.parent_span_id.is_empty()) {
        span.parent_span_id = parent_id(parent.get("spanid"));
    }
    let links = references.iter().filter(|json| !parent.is_some_and(|it| std::ptr::eq(it, *json)));
    let links = links.map(|json| Link {
        trace_id: id::<16>(json.get("traceid")),
        span_id: id::<8>(json.get("spanid")),
        ..Link::default()
    });
    span.links.extend(links);
}

/// Moves the tags that Jaeger's
/// [translation from OTLP](https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/jaeger/) makes back to their fields.
/// Returns the scope.
pub(super) fn from_tags(span: &mut Span) -> InstrumentationScope {
    let mut take = |keys: &[&str]| {
        let at = span.attributes.iter().position(|it| keys.contains(&&*it.key))?;
        Some(match span.attributes.remove(at).value?.value? {
            Value::StringValue(text) => text,
            Value::BoolValue(value) => value.to_string(),
            _ => String::new(),
        })
    };
    let scope = InstrumentationScope {
        name: take(&["otel.scope.name", "otel.library.name"]).unwrap_or_default(),
        version: take(&["otel.scope.version", "otel.library.version"]).unwrap_or_default(),
        ..InstrumentationScope::default()
    };
    let state = take(&["w3c.tracestate"]).unwrap_or_default();
    let kind = take(&["span.kind"]);
    let code = take(&["otel.status_code"]);
    let message = take(&["otel.status_description"]).unwrap_or_default();
    // Some tracers put the message itself into this tag.
    let is_error = |it: &KeyValue| {
        let value = it.value.as_ref().and_then(|it| it.value.as_ref());
        match value {
            Some(Value::BoolValue(value)) => *value,
            Some(Value::StringValue(text)) => !["false", "0", ""].contains(&&**text),
            _ => false,
        }
    };
    let failed = span.attributes.iter().any(|it| it.key == "error" && is_error(it));
    let is_flag = |it: &KeyValue| {
        let value = it.value.as_ref().and_then(|it| it.value.as_ref());
        match value {
            Some(Value::BoolValue(_)) => true,
            Some(Value::StringValue(text)) => text == "true" || text == "false",
            _ => false,
        }
    };
    span.attributes.retain(|it| it.key != "error" || !is_flag(it));
    let code = code.unwrap_or_else(|| if failed { "error" } else { "" }.to_owned());
    span.trace_state = state;
    let text = |text: String| Json::Text(text.into());
    span.kind = self::kind(&text(kind.unwrap_or_default())).into();
    span.status = status(&text(code), &message);
    scope
}

fn event(json: &Json, losses: &mut Losses) -> Event {
    let time = json.get("timestamp");
    let time_unix_nano = losses.field("timestamp", time, self::time(time));
    let mut attributes = tags(json.get("fields"), losses);
    let name = |key: &str| attributes.iter().position(|it| it.key == key);
    let name = name("event").or_else(|| name("message"));
    let name = name.and_then(|at| attributes.remove(at).value?.value);
    let name = match name {
        Some(Value::StringValue(name)) => name,
        _ => String::new(),
    };
    Event { time_unix_nano, name, attributes, ..Event::default() }
}

fn tags(json: &Json, losses: &mut Losses) -> Vec<KeyValue> {
    let tags = json.items().iter();
    tags.filter_map(|tag| {
        let (key, kind) = (tag.get("key").text(), tag.any(&["type", "vtype"]).text());
        let kind = kind.to_ascii_lowercase();
        // Protobuf's JSON has a field for each type and leaves out zero.
        let own = ["vstr", "vbool", "vint64", "vfloat64", "vbinary"];
        let value = if tag.has("value") { tag.get("value") } else { tag.any(&own) };
        let read = match &*kind {
            "bool" => boolean(value).map(Value::BoolValue).map(Some),
            "int64" => int(value).map(Value::IntValue).map(Some),
            "float64" => double(value).map(Value::DoubleValue).map(Some),
            "binary" => {
                let bytes = base64(value.text()).ok_or(Flaw::Base64);
                bytes.map(Value::BytesValue).map(Some)
            }
            _ => Ok(plain(value)),
        };
        losses.attribute(key, value, read)
    })
    .collect()
}

/// Whether a value is a span of this form.
pub fn is_span(json: &Json) -> bool {
    json.has("operationname")
        // A number in SkyWalking and in Jaeger's thrift.
        && matches!(json.get("spanid"), Json::Text(_))
        && unsigned(json.get("starttimeunixnano")) == Ok(0)
}
