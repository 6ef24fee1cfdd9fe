//! Reads OTLP in JSON as tools really write it. [The specification](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding)
//! asks for hexadecimal ids, enums as numbers and names in lowerCamelCase. Tools that use protobuf's own JSON write base64 ids,
//! enums by name, and names in snake_case; others leave out what is empty or write `null`.

use crate::proto::common::any_value::Value;
use crate::proto::common::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use crate::proto::logs::{LogRecord, ResourceLogs, ScopeLogs};
use crate::proto::resource::Resource;
use crate::proto::trace::span::{Event, Link};
use crate::proto::trace::{ResourceSpans, ScopeSpans, Span};

use super::json::{Json, same};
use super::value::{
    Flaw, Losses, base64, boolean, count, double, id, int, kind, parent_id, plain, plain_map,
    severity, status, unsigned,
};

/// Reads one `ResourceSpans`.
pub fn resource_spans(json: &Json, losses: &mut Losses) -> ResourceSpans {
    // Before 1.0 the scope was called an instrumentation library. Some files have both, with the same spans.
    let scopes = match json.get("scopespans").items() {
        [] => json.get("instrumentationlibraryspans").items(),
        scopes => scopes,
    };
    ResourceSpans {
        resource: Some(resource(json.get("resource"), losses)),
        scope_spans: scopes.iter().map(|scope| scope_spans(scope, losses)).collect(),
        schema_url: json.get("schemaurl").text().to_owned(),
    }
}

/// Reads one `ResourceLogs`.
pub fn resource_logs(json: &Json, losses: &mut Losses) -> ResourceLogs {
    let scopes = json.any(&["scopelogs", "instrumentationlibrarylogs"]).items().iter();
    ResourceLogs {
        resource: Some(resource(json.get("resource"), losses)),
        scope_logs: scopes.map(|scope| scope_logs(scope, losses)).collect(),
        schema_url: json.get("schemaurl").text().to_owned(),
    }
}

fn scope_logs(json: &Json, losses: &mut Losses) -> ScopeLogs {
    let records = json.any(&["logrecords", "logs"]).items().iter();
    ScopeLogs {
        scope: Some(scope(json.any(&["scope", "instrumentationlibrary"]), losses)),
        log_records: records.map(|json| log_record(json, losses)).collect(),
        schema_url: json.get("schemaurl").text().to_owned(),
    }
}

/// Reads one log record.
pub fn log_record(json: &Json, losses: &mut Losses) -> LogRecord {
    losses.leave();
    let mut time = |field: &str, key: &str| {
        let value = json.get(key);
        losses.field(field, value, unsigned(value))
    };
    let time_unix_nano = time("timeUnixNano", "timeunixnano");
    let observed_time_unix_nano = time("observedTimeUnixNano", "observedtimeunixnano");
    let (flags, dropped) = (json.get("flags"), json.get("droppedattributescount"));
    let body = json.get("body");
    let body = losses.attribute("body", inner(body), any_value(body));
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano,
        severity_number: severity(json.get("severitynumber")),
        severity_text: json.get("severitytext").text().to_owned(),
        body: body.and_then(|body| body.value).filter(|body| body.value.is_some()),
        attributes: attributes(json.get("attributes"), losses),
        dropped_attributes_count: losses.field("droppedAttributesCount", dropped, count(dropped)),
        flags: losses.field("flags", flags, count(flags)),
        trace_id: id::<16>(json.get("traceid")),
        span_id: id::<8>(json.get("spanid")),
        event_name: json.any(&["eventname", "name"]).text().to_owned(),
    }
}

/// Reads a resource.
pub fn resource(json: &Json, losses: &mut Losses) -> Resource {
    losses.leave();
    let dropped = json.get("droppedattributescount");
    Resource {
        attributes: attributes(json.get("attributes"), losses),
        dropped_attributes_count: losses.field("droppedAttributesCount", dropped, count(dropped)),
        entity_refs: json.get("entityrefs").items().iter().map(entity_ref).collect(),
    }
}

fn entity_ref(json: &Json) -> EntityRef {
    let texts = |name| json.get(name).items().iter().map(|key| key.text().to_owned()).collect();
    EntityRef {
        schema_url: json.get("schemaurl").text().to_owned(),
        r#type: json.get("type").text().to_owned(),
        id_keys: texts("idkeys"),
        description_keys: texts("descriptionkeys"),
    }
}

/// Reads a scope.
pub fn scope(json: &Json, losses: &mut Losses) -> InstrumentationScope {
    losses.leave();
    let dropped = json.get("droppedattributescount");
    InstrumentationScope {
        name: json.get("name").text().to_owned(),
        version: json.get("version").text().to_owned(),
        attributes: attributes(json.get("attributes"), losses),
        dropped_attributes_count: losses.field("droppedAttributesCount", dropped, count(dropped)),
    }
}

fn scope_spans(json: &Json, losses: &mut Losses) -> ScopeSpans {
    ScopeSpans {
        scope: Some(scope(json.any(&["scope", "instrumentationlibrary"]), losses)),
        spans: json.get("spans").items().iter().map(|json| span(json, losses)).collect(),
        schema_url: json.get("schemaurl").text().to_owned(),
    }
}

/// Reads one span.
pub fn span(json: &Json, losses: &mut Losses) -> Span {
    let name = json.get("name").text();
    losses.enter(name);
    let mut time = |json: &Json, field: &str, key: &str| {
        let value = json.get(key);
        losses.field(field, value, unsigned(value))
    };
    let start = time(json, "startTimeUnixNano", "starttimeunixnano");
    let end = time(json, "endTimeUnixNano", "endtimeunixnano");
    let mut dropped = |json: &Json, field: &str, key: &str| {
        let value = json.get(key);
        losses.field(field, value, count(value))
    };
    let flags = dropped(json, "flags", "flags");
    let dropped_attributes_count =
        dropped(json, "droppedAttributesCount", "droppedattributescount");
    let dropped_events_count = dropped(json, "droppedEventsCount", "droppedeventscount");
    let dropped_links_count = dropped(json, "droppedLinksCount", "droppedlinkscount");
    let own = json.get("status");
    Span {
        trace_id: id::<16>(json.get("traceid")),
        span_id: id::<8>(json.get("spanid")),
        trace_state: json.get("tracestate").text().to_owned(),
        parent_span_id: parent_id(json.get("parentspanid")),
        flags,
        name: name.to_owned(),
        kind: kind(json.get("kind")).into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(json.get("attributes"), losses),
        dropped_attributes_count,
        events: json.get("events").items().iter().map(|json| event(json, losses)).collect(),
        dropped_events_count,
        links: json.get("links").items().iter().map(|json| link(json, losses)).collect(),
        dropped_links_count,
        status: status(own.get("code"), own.get("message").text()),
    }
}

fn event(json: &Json, losses: &mut Losses) -> Event {
    let (time, dropped) = (json.get("timeunixnano"), json.get("droppedattributescount"));
    Event {
        time_unix_nano: losses.field("timeUnixNano", time, unsigned(time)),
        name: json.get("name").text().to_owned(),
        attributes: attributes(json.get("attributes"), losses),
        dropped_attributes_count: losses.field("droppedAttributesCount", dropped, count(dropped)),
    }
}

fn link(json: &Json, losses: &mut Losses) -> Link {
    let (flags, dropped) = (json.get("flags"), json.get("droppedattributescount"));
    Link {
        trace_id: id::<16>(json.get("traceid")),
        span_id: id::<8>(json.get("spanid")),
        trace_state: json.get("tracestate").text().to_owned(),
        attributes: attributes(json.get("attributes"), losses),
        dropped_attributes_count: losses.field("droppedAttributesCount", dropped, count(dropped)),
        flags: losses.field("flags", flags, count(flags)),
    }
}

/// Reads attributes: a list of keys and values, or a map as some tools simplify it.
fn attributes(json: &Json, losses: &mut Losses) -> Vec<KeyValue> {
    if let Json::Object(_) = json {
        return plain_map(json);
    }
    let mut attributes = Vec::with_capacity(json.items().len());
    attributes.extend(json.items().iter().filter_map(|pair| {
        let (key, value) = (pair.get("key").text(), pair.get("value"));
        losses.attribute(key, inner(value), any_value(value))
    }));
    attributes
}

/// Returns the only field of a value such as `{"intValue": 1}`.
fn inner<'j, 'a>(json: &'j Json<'a>) -> &'j Json<'a> {
    match json.fields() {
        [(_, value)] => value,
        _ => json,
    }
}

/// Reads an `AnyValue`. `{}` and `null` are one without a value.
fn any_value(json: &Json) -> Result<Option<Value>, Flaw> {
    // Go's own encoder, which knows nothing of protobuf, puts a field around the choice.
    let json = if json.has("value") { json.get("value") } else { json };
    let Json::Object(fields) = json else {
        return Ok(plain(json));
    };
    let Some((key, value)) = fields.iter().find(|(_, value)| !value.is_null()) else {
        return Ok(None);
    };
    let is = |name| same(key, name);
    let value = match value {
        Json::Text(text) if is("stringvalue") => Value::StringValue(text.as_ref().to_owned()),
        other if is("stringvalue") => Value::StringValue(other.to_string()),
        _ if is("intvalue") => Value::IntValue(int(value)?),
        _ if is("doublevalue") => Value::DoubleValue(double(value)?),
        _ if is("boolvalue") => Value::BoolValue(boolean(value)?),
        _ if is("bytesvalue") => Value::BytesValue(base64(value.text()).ok_or(Flaw::Base64)?),
        _ if is("arrayvalue") => {
            let values = value.get("values").items().iter();
            let values = values.map(|item| any_value(item).map(|value| AnyValue { value }));
            Value::ArrayValue(ArrayValue { values: values.collect::<Result<_, Flaw>>()? })
        }
        _ if is("kvlistvalue") => {
            let pairs = value.get("values").items().iter();
            let pairs = pairs.map(|pair| {
                let value = AnyValue { value: any_value(pair.get("value"))? };
                let key = pair.get("key").text().to_owned();
                Ok(KeyValue { key, value: Some(value), ..KeyValue::default() })
            });
            Value::KvlistValue(KeyValueList { values: pairs.collect::<Result<_, Flaw>>()? })
        }
        // A kind of value that this version of OTLP doesn't have.
        _ => return Ok(None),
    };
    Ok(Some(value))
}
