//! Reads what the console exporters of Go, Python, PHP and JavaScript print.

use crate::proto::common::any_value::Value;
use crate::proto::common::{InstrumentationScope, KeyValue};
use crate::proto::trace::Span;
use crate::proto::trace::span::{Event, Link};

use super::Document;
use super::json::Json;
use super::value::{
    Flaw, Losses, count, double, id, int, kind, microseconds, parent_id, plain, plain_map, status,
    timestamp, unsigned,
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

/// The names of the fields in which the exporters of two languages differ, and how they write a time.
struct Dialect {
    parent: &'static str,
    start: &'static str,
    end: &'static str,
    code: [&'static str; 2],
    read_time: fn(&Json) -> Result<u64, Flaw>,
}

/// Reads a span of Python's
/// [`ConsoleSpanExporter`](https://opentelemetry-python.readthedocs.io/en/latest/sdk/trace.export.html), which prints
/// `ReadableSpan.to_json`.
pub fn python(json: &Json, document: &mut Document) {
    let dialect = Dialect {
        parent: "parentid",
        start: "start_time",
        end: "end_time",
        code: ["statuscode", "canonicalcode"],
        read_time: timestamp,
    };
    let resource = resource(json, document);
    with_context(json, resource, InstrumentationScope::default(), &dialect, document);
}

/// Reads the resource of a span or of a document. Returns its number.
fn resource(json: &Json, document: &mut Document) -> usize {
    let resource = json.get("resource");
    // In PHP, and in Python before 1.0, the resource is the map of its attributes.
    let map = if resource.has("attributes") { resource.get("attributes") } else { resource };
    document.resource(plain_map(map))
}

/// Whether a value is a span of PHP's exporter and not of Python's.
pub fn is_php(json: &Json) -> bool {
    json.has("parentspanid") && json.has("start")
}

/// Reads a span of PHP's
/// [`ConsoleSpanExporter`](https://github.com/open-telemetry/opentelemetry-php/blob/01652a170241eb0f2e6ddd2b90cc110ed11a58c5/src/SDK/Trace/SpanExporter/FriendlySpanConverter.php),
/// whose times are in nanoseconds.
pub fn php(json: &Json, document: &mut Document) {
    let resource = resource(json, document);
    php_span(json, resource, InstrumentationScope::default(), document);
}

fn php_span(json: &Json, resource: usize, scope: InstrumentationScope, document: &mut Document) {
    let dialect = Dialect {
        parent: "parentspanid",
        start: "start",
        end: "end",
        code: ["code", "code"],
        read_time: |json| unsigned(json).map_err(|_| Flaw::Time),
    };
    with_context(json, resource, scope, &dialect, document);
}

/// Reads spans that stand together in their scope, as PHP's console exporters have log records and metrics:
/// `{"resource": {…}, "scope": {"name": …, "spans": […]}}`, or a list of `scopes`. Returns whether there are any.
pub fn php_scopes(json: &Json, document: &mut Document) -> bool {
    // All spans share it, and it may be large.
    let mut shared = None;
    let mut known = false;
    for scope in scopes(json) {
        let spans = scope.get("spans").items().iter();
        for span in spans.filter(|it| it.get("context").has("traceid")) {
            let scope = InstrumentationScope {
                name: scope.get("name").text().to_owned(),
                version: scope.get("version").text().to_owned(),
                attributes: plain_map(scope.get("attributes")),
                ..InstrumentationScope::default()
            };
            let resource = match span.has("resource") {
                true => resource(span, document),
                false => *shared.get_or_insert_with(|| resource(json, document)),
            };
            php_span(span, resource, scope, document);
            known = true;
        }
    }
    known
}

/// The scopes of a document of PHP's console exporters, which have records in them.
pub fn scopes<'j, 'a>(json: &'j Json<'a>) -> impl Iterator<Item = &'j Json<'a>> {
    json.get("scopes").items().iter().chain([json.get("scope")])
}

fn with_context(
    json: &Json,
    resource: usize,
    scope: InstrumentationScope,
    dialect: &Dialect,
    document: &mut Document,
) {
    let losses = &mut document.losses;
    let name = json.get("name").text();
    losses.enter(name);
    let mut time = |json: &Json, field: &str| {
        let value = json.get(&key(field));
        losses.field(field, value, (dialect.read_time)(value))
    };
    let (context, own) = (json.get("context"), json.get("status"));
    let events = json.get("events").items().iter().map(|event| Event {
        time_unix_nano: time(event, "timestamp"),
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
    // Arize Phoenix has the status in fields of the span.
    let flat = || status(json.get("statuscode"), json.get("statusmessage").text());
    let span = Span {
        trace_id: id::<16>(context.get("traceid")),
        span_id: id::<8>(context.get("spanid")),
        parent_span_id: parent_id(json.get(dialect.parent)),
        name: name.to_owned(),
        kind: kind(json.get("kind")).into(),
        links: links.collect(),
        start_time_unix_nano: time(json, dialect.start),
        end_time_unix_nano: time(json, dialect.end),
        attributes: plain_map(json.get("attributes")),
        events,
        status: status(own.any(&dialect.code), own.get("description").text()).or_else(flat),
        ..Span::default()
    };
    document.add_of(resource, scope, span);
}

/// Whether a value is a span of JavaScript's SDK as `JSON.stringify` writes it: a `ReadableSpan`, or what its console exporter
/// prints.
pub fn is_javascript(json: &Json) -> bool {
    let has_ids = json.has("traceid") || json.get("spancontext").has("traceid");
    let is_readable = matches!(json.get("starttime"), Json::Array(_));
    let is_printed = ["id", "timestamp", "resource"].iter().all(|name| json.has(name));
    let has_map = matches!(json.get("attributes"), Json::Object(_));
    json.has("name") && has_ids && has_map && (is_readable || is_printed)
}

/// Reads a span of JavaScript's SDK.
pub fn javascript(json: &Json, document: &mut Document) {
    let losses = &mut document.losses;
    let resource = plain_map(json.get("resource").get("attributes"));
    let scope = json.any(&["instrumentationscope", "instrumentationlibrary"]);
    let scope = InstrumentationScope {
        name: scope.get("name").text().to_owned(),
        version: scope.get("version").text().to_owned(),
        ..InstrumentationScope::default()
    };
    let name = json.get("name").text();
    losses.enter(name);
    let mut field = |json: &Json, name: &str, read: fn(&Json) -> Result<u64, Flaw>| {
        let value = json.get(&key(name));
        losses.field(name, value, read(value))
    };
    let context = if json.has("spancontext") { json.get("spancontext") } else { json };
    let parent = match json.get("parentspancontext") {
        Json::Null => json.any(&["parentspanid", "parentid"]),
        context => context.get("spanid"),
    };
    let (start, end) = if json.has("starttime") {
        (field(json, "startTime", timestamp), field(json, "endTime", timestamp))
    } else {
        let start = field(json, "timestamp", microseconds);
        (start, start.saturating_add(field(json, "duration", microseconds)))
    };
    // The numbers of its API, which begin with INTERNAL.
    let kind = match json.get("kind") {
        Json::Int(number) => kind(&Json::Int(number.saturating_add(1))),
        name => kind(name),
    };
    let events = json.get("events").items().iter().map(|event| Event {
        time_unix_nano: field(event, "time", timestamp),
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
    let own = json.get("status");
    let span = Span {
        trace_id: id::<16>(context.get("traceid")),
        span_id: id::<8>(context.any(&["spanid", "id"])),
        parent_span_id: parent_id(parent),
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: plain_map(json.get("attributes")),
        events,
        links: links.collect(),
        status: status(own.get("code"), own.get("message").text()),
        ..Span::default()
    };
    document.add(resource, scope, span);
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
