//! Reads what the console exporters of Go and Python print.

use crate::proto::common::any_value::Value;
use crate::proto::common::{InstrumentationScope, KeyValue};
use crate::proto::trace::Span;
use crate::proto::trace::span::{Event, Link};

use super::Document;
use super::json::Json;
use super::value::{
    Losses, count, double, id, int, kind, parent_id, plain, plain_map, status, timestamp,
};

/// Reads a span of Go's
/// [`stdouttrace`](https://pkg.go.dev/go.opentelemetry.io/otel/exporters/stdout/stdouttrace), which prints the fields of its
/// `SpanStub`.
pub fn go(json: &Json, document: &mut Document) {
    let losses = &mut document.losses;
    losses.leave();
    let resource = go_attributes(json.get("resource"), losses);
    let scope = json.any(&["instrumentationscope", "instrumentationlibrary"]);
    let scope = InstrumentationScope {
        name: scope.get("name").text().to_owned(),
        version: scope.get("version").text().to_owned(),
        attributes: go_attributes(scope.get("attributes"), losses),
        ..InstrumentationScope::default()
    };
    let name = json.get("name").text();
    losses.enter(name);
    let (context, own) = (json.get("spancontext"), json.get("status"));
    let events = json.any(&["events", "messageevents"]).items().iter();
    let events = events.map(|event| Event {
        time_unix_nano: time(event, "Time", losses),
        name: event.get("name").text().to_owned(),
        attributes: go_attributes(event.get("attributes"), losses),
        dropped_attributes_count: dropped(event, "DroppedAttributeCount", losses),
    });
    let events = events.collect();
    let links = json.get("links").items().iter().map(|link| {
        let context = link.get("spancontext");
        Link {
            trace_id: id::<16>(context.get("traceid")),
            span_id: id::<8>(context.get("spanid")),
            trace_state: context.get("tracestate").text().to_owned(),
            attributes: go_attributes(link.get("attributes"), losses),
            dropped_attributes_count: dropped(link, "DroppedAttributeCount", losses),
            ..Link::default()
        }
    });
    let links = links.collect();
    // Older releases have these fields instead.
    let parent = match json.get("parent") {
        Json::Null => json.get("parentspanid"),
        parent => parent.get("spanid"),
    };
    let (code, message) = match own {
        Json::Null => (json.get("statuscode"), json.get("statusmessage")),
        status => (status.get("code"), status.get("description")),
    };
    let span = Span {
        trace_id: id::<16>(context.get("traceid")),
        span_id: id::<8>(context.get("spanid")),
        trace_state: context.get("tracestate").text().to_owned(),
        parent_span_id: parent_id(parent),
        name: name.to_owned(),
        kind: kind(json.get("spankind")).into(),
        start_time_unix_nano: time(json, "StartTime", losses),
        end_time_unix_nano: time(json, "EndTime", losses),
        attributes: go_attributes(json.get("attributes"), losses),
        dropped_attributes_count: dropped(json, "DroppedAttributes", losses),
        events,
        dropped_events_count: dropped(json, "DroppedEvents", losses),
        links,
        dropped_links_count: dropped(json, "DroppedLinks", losses),
        status: status(code, message.text()),
        ..Span::default()
    };
    document.add(resource, scope, span);
}

/// Reads a list of `{"Key": "k", "Value": {"Type": "INT64", "Value": 1}}`.
fn go_attributes(json: &Json, losses: &mut Losses) -> Vec<KeyValue> {
    let pairs = json.items().iter();
    pairs
        .filter_map(|pair| {
            let (key, typed) = (pair.get("key").text(), pair.get("value"));
            let value = typed.get("value");
            let read = match typed.get("type").text() {
                "INT64" => int(value).map(Value::IntValue).map(Some),
                "FLOAT64" => double(value).map(Value::DoubleValue).map(Some),
                _ => Ok(plain(value)),
            };
            losses.attribute(key, value, read)
        })
        .collect()
}

/// Reads a span of Python's
/// [`ConsoleSpanExporter`](https://opentelemetry-python.readthedocs.io/en/latest/sdk/trace.export.html), which prints
/// `ReadableSpan.to_json`.
pub fn python(json: &Json, document: &mut Document) {
    let losses = &mut document.losses;
    let resource = json.get("resource");
    // Before 1.0 the resource was the map of its attributes.
    let resource =
        plain_map(if resource.has("attributes") { resource.get("attributes") } else { resource });
    let name = json.get("name").text();
    losses.enter(name);
    let (context, own) = (json.get("context"), json.get("status"));
    let events = json.get("events").items().iter().map(|event| Event {
        time_unix_nano: time(event, "timestamp", losses),
        name: event.get("name").text().to_owned(),
        attributes: plain_map(event.get("attributes")),
        ..Event::default()
    });
    let events = events.collect();
    let links = json.get("links").items().iter().map(|link| Link {
        trace_id: id::<16>(link.get("context").get("traceid")),
        span_id: id::<8>(link.get("context").get("spanid")),
        attributes: plain_map(link.get("attributes")),
        ..Link::default()
    });
    let span = Span {
        trace_id: id::<16>(context.get("traceid")),
        span_id: id::<8>(context.get("spanid")),
        parent_span_id: parent_id(json.get("parentid")),
        name: name.to_owned(),
        kind: kind(json.get("kind")).into(),
        links: links.collect(),
        start_time_unix_nano: time(json, "start_time", losses),
        end_time_unix_nano: time(json, "end_time", losses),
        attributes: plain_map(json.get("attributes")),
        events,
        status: status(own.any(&["statuscode", "canonicalcode"]), own.get("description").text()),
        ..Span::default()
    };
    document.add(resource, InstrumentationScope::default(), span);
}

fn time(json: &Json, field: &str, losses: &mut Losses) -> u64 {
    let value = json.get(&key(field));
    losses.field(field, value, timestamp(value))
}

fn dropped(json: &Json, field: &str, losses: &mut Losses) -> u32 {
    let value = json.get(&key(field));
    losses.field(field, value, count(value))
}

/// The field as [`Json::get`] wants it.
fn key(field: &str) -> String {
    field.replace('_', "").to_ascii_lowercase()
}
