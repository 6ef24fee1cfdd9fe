//! Reads [Zipkin's JSON, version 2](https://zipkin.io/zipkin-api/#/default/get_trace__traceId_). Times are in microseconds. In its
//! model the two sides of a call may share a span id; [`crate::shared`] gives each an id of its own.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;

use super::Document;
use super::jaeger::from_tags;
use super::json::Json;
use super::value::{
    attribute, id, kind, microseconds, parent_id, plain_map, status, text_attribute,
};

/// Reads one span.
pub fn span(json: &Json, document: &mut Document) {
    let losses = &mut document.losses;
    let name = json.get("name").text();
    losses.enter(name);
    let (start, duration) = (json.get("timestamp"), json.get("duration"));
    let ends = duration.is_null();
    let start = losses.field("timestamp", start, microseconds(start));
    let duration = losses.field("duration", duration, microseconds(duration));
    let events = json.get("annotations").items().iter();
    let events = events.map(|json| {
        let time = json.get("timestamp");
        Event {
            time_unix_nano: losses.field("timestamp", time, microseconds(time)),
            name: json.get("value").text().to_owned(),
            ..Event::default()
        }
    });
    let mut span = Span {
        trace_id: id::<16>(json.get("traceid")),
        span_id: id::<8>(json.get("id")),
        parent_span_id: parent_id(json.get("parentid")),
        name: name.to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: if ends { 0 } else { start.saturating_add(duration) },
        events: events.collect(),
        attributes: plain_map(json.get("tags")),
        ..Span::default()
    };
    let scope = from_tags(&mut span);
    span.kind = kind(json.get("kind")).into();
    // Zipkin's rule: a span with this tag failed, whatever its value is.
    if let Some(at) = span.attributes.iter().position(|it| it.key == "error") {
        let message = match span.attributes[at].value.as_ref().and_then(|it| it.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            _ => String::new(),
        };
        span.status = status(&Json::Text("error".into()), &message);
    }
    let (local, remote) = (json.get("localendpoint"), json.get("remoteendpoint"));
    endpoint(&mut span, local, "network.local");
    endpoint(&mut span, remote, "network.peer");
    let peer = remote.get("servicename").text();
    if !peer.is_empty() {
        span.attributes.push(text_attribute("peer.service", peer));
    }
    let resource = match local.get("servicename").text() {
        "" => Vec::new(),
        name => vec![text_attribute("service.name", name)],
    };
    document.add(resource, scope, span);
}

/// Adds an address and a port, under the names of
/// [the conventions](https://opentelemetry.io/docs/specs/semconv/registry/attributes/network/).
fn endpoint(span: &mut Span, json: &Json, prefix: &str) {
    let address = json.any(&["ipv4", "ipv6"]).text();
    if !address.is_empty() {
        span.attributes.push(text_attribute(&format!("{prefix}.address"), address));
    }
    if let Json::Int(port) = json.get("port") {
        span.attributes.push(attribute(&format!("{prefix}.port"), Some(Value::IntValue(*port))));
    }
}

/// Whether a value is a span of this form. Its ids alone say so, because all other fields may be absent; records of other programs
/// have a `traceId` and an `id` too, but not both in hexadecimal digits.
pub fn is_span(json: &Json) -> bool {
    let is_id = |name: &str, digits: usize| {
        let id = json.get(name).text();
        (1..=digits).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    is_id("traceid", 32) && is_id("id", 16)
}
