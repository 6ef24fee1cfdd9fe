//! Reads [Zipkin's JSON](https://zipkin.io/zipkin-api/#/default/get_trace__traceId_) of version 2, and version 1 by way of it. Times are in microseconds. In its
//! model the two sides of a call may share a span id; [`crate::shared`] gives each an id of its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::common::KeyValue;
use crate::proto::common::any_value::Value;
use crate::proto::trace::span::{Event, SpanKind};
use crate::proto::trace::{ResourceSpans, ScopeSpans, Span};

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

/// The most late parts of one span that are joined to it. Tracers send a few, and each side of a call looks through all of them.
const LATE_PARTS: usize = 100;

/// Joins what was sent late of a span to the span: an entry with the same id that has neither a kind nor a duration, and only adds
/// tags and annotations, as [Zipkin](https://github.com/openzipkin/zipkin/blob/master/zipkin/src/main/java/zipkin2/internal/Trace.java)
/// does. Its service is that of the span, or absent.
pub fn join_fragments(resource_spans: &mut [ResourceSpans]) {
    let is_fragment = |span: &Span| span.kind == 0 && span.end_time_unix_nano == 0;
    let services: Vec<Option<KeyValue>> = resource_spans
        .iter()
        .map(|it| it.resource.as_ref().and_then(|it| it.attributes.first().cloned()))
        .collect();
    /// The ids of the trace and of the span.
    type Ids = (Vec<u8>, Vec<u8>);
    let mut fragments: BTreeMap<Ids, Vec<(usize, Span)>> = BTreeMap::new();
    for (index, scope) in scopes(resource_spans) {
        for span in scope.spans.extract_if(.., |span| is_fragment(span)) {
            let id = (span.trace_id.clone(), span.span_id.clone());
            // Most ids have one, and a list begins with room for four.
            let own = fragments.entry(id).or_insert_with(|| Vec::with_capacity(1));
            own.push((index, span));
        }
    }
    if fragments.is_empty() {
        return;
    }
    let calls = |kind: i32| kind == SpanKind::Client as i32 || kind == SpanKind::Producer as i32;
    // One without a service belongs to the caller's side if that is here.
    for callers_only in [true, false] {
        for (index, scope) in scopes(resource_spans) {
            for span in scope.spans.iter_mut().filter(|span| span.kind != 0) {
                let id = (span.trace_id.clone(), span.span_id.clone());
                let Some(own) = fragments.get_mut(&id).filter(|own| own.len() <= LATE_PARTS) else {
                    continue;
                };
                let belongs = |of: usize| match &services[of] {
                    None => calls(span.kind) || !callers_only,
                    service => *service == services[index],
                };
                for (_, fragment) in own.extract_if(.., |(of, _)| belongs(*of)).collect::<Vec<_>>()
                {
                    let keys: BTreeSet<String> =
                        span.attributes.iter().map(|it| it.key.clone()).collect();
                    let new = fragment.attributes.into_iter();
                    span.attributes.extend(new.filter(|it| !keys.contains(&it.key)));
                    span.events.extend(fragment.events);
                }
            }
        }
    }
    let mut left: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
    for (index, span) in fragments.into_values().flatten() {
        left.entry(index).or_default().push(span);
    }
    for (index, scope) in scopes(resource_spans) {
        scope.spans.extend(left.remove(&index).unwrap_or_default());
    }
}

/// The only scope of each resource, with its index.
fn scopes(resource_spans: &mut [ResourceSpans]) -> impl Iterator<Item = (usize, &mut ScopeSpans)> {
    let scopes = resource_spans.iter_mut().map(|it| it.scope_spans.first_mut());
    scopes.enumerate().filter_map(|(index, scope)| Some((index, scope?)))
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
/// have a `traceId` and an `id` too, but not both in hexadecimal digits. With an endpoint, they may be words, as in examples.
pub fn is_span(json: &Json) -> bool {
    let is_id = |name: &str, digits: usize| {
        let id = json.get(name).text();
        (1..=digits).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let is_word = |name: &str| !json.get(name).text().is_empty();
    is_id("traceid", 32) && is_id("id", 16)
        || is_word("traceid") && is_word("id") && json.get("localendpoint").has("servicename")
}

/// The core annotations of version 1, each with the kind of the side that has it, and whether it begins or ends that side's span.
const CORE: [(&str, &str, bool); 6] = [
    ("cs", "CLIENT", true),
    ("cr", "CLIENT", false),
    ("sr", "SERVER", true),
    ("ss", "SERVER", false),
    ("ms", "PRODUCER", true),
    ("mr", "CONSUMER", true),
];

/// Whether a value is a span of [version 1](https://zipkin.io/zipkin-api/#/), whose services stand in its annotations.
pub fn is_version_1(json: &Json) -> bool {
    let lists = [json.get("annotations"), json.get("binaryannotations")];
    let endpoint = lists.iter().any(|it| it.items().iter().any(|it| it.has("endpoint")));
    is_span(json)
        && !json.has("kind")
        && !json.has("localendpoint")
        && (json.has("binaryannotations") || endpoint)
}

/// Reads one span of version 1. It may hold both sides of a call, which become two spans.
pub fn version_1(json: &Json, document: &mut Document) {
    let annotations = json.get("annotations").items();
    let sides = ["CLIENT", "SERVER", "PRODUCER", "CONSUMER"].into_iter().filter(|kind| {
        let values = annotations.iter().map(|it| it.get("value").text());
        values.into_iter().any(|it| CORE.iter().any(|(core, of, _)| *core == it && of == kind))
    });
    let sides: Vec<&str> = sides.collect();
    match sides[..] {
        [] => span(&side(json, "", true), document),
        _ => {
            for (index, kind) in sides.iter().enumerate() {
                span(&side(json, kind, index == 0), document);
            }
        }
    }
}

/// One side of a span of version 1, as version 2 has it. The first side gets what belongs to none.
fn side<'a>(json: &Json<'a>, kind: &'static str, first: bool) -> Json<'a> {
    let annotations = json.get("annotations").items();
    let pairs = json.get("binaryannotations").items();
    let core = |annotation: &Json| {
        let value = annotation.get("value").text();
        CORE.into_iter().find(|(core, ..)| *core == value)
    };
    let own = |begins: bool| {
        annotations.iter().find(|it| core(it).is_some_and(|(_, of, at)| of == kind && at == begins))
    };
    let endpoint = match own(true).or_else(|| own(false)) {
        Some(annotation) => annotation.get("endpoint"),
        None => {
            let mut all = annotations.iter().chain(pairs).map(|it| it.get("endpoint"));
            all.find(|it| it.has("servicename")).unwrap_or(&Json::Null)
        }
    };
    let service = endpoint.get("servicename").text();
    let belongs = |it: &&Json| {
        let of = it.get("endpoint").get("servicename").text();
        of == service || first && of.is_empty()
    };
    // The span's own times are those of its first side.
    let time = |it: &Json| microseconds(it.get("timestamp")).unwrap_or_default() / 1000;
    let (start, end) = (own(true).map(time), own(false).map(time));
    let number = |it: u64| i64::try_from(it).map_or(Json::Null, Json::Int);
    let between = || Some(number(end?.checked_sub(start?)?));
    let field = |name: &str| json.get(name).clone();
    let timestamp = start.map_or_else(|| field("timestamp"), number);
    let duration = match field("duration") {
        Json::Null => between().unwrap_or(Json::Null),
        own if first => own,
        _ => between().unwrap_or(Json::Null),
    };
    let is_address = |it: &&Json| ["ca", "sa", "ma"].contains(&it.get("key").text());
    let tags = pairs.iter().filter(belongs).filter(|it| !is_address(it));
    let tags = tags.map(|it| (it.get("key").text().to_owned().into(), it.get("value").clone()));
    let events = annotations.iter().filter(belongs).filter(|it| core(it).is_none()).cloned();
    let remote = pairs.iter().find(is_address).filter(|_| first).map(|it| it.get("endpoint"));
    let fields = [
        ("traceId", field("traceid")),
        ("id", field("id")),
        ("parentId", field("parentid")),
        ("name", field("name")),
        ("kind", Json::Text(kind.into())),
        ("timestamp", timestamp),
        ("duration", duration),
        ("localEndpoint", endpoint.clone()),
        ("remoteEndpoint", remote.cloned().unwrap_or(Json::Null)),
        ("annotations", Json::Array(events.collect())),
        ("tags", Json::Object(tags.collect())),
    ];
    Json::Object(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}
