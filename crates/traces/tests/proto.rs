//! The messages in `traces::proto` have the bytes and the JSON that `opentelemetry-proto` gives the same messages.

use std::fs;
use std::path::{Path, PathBuf};

use opentelemetry_proto::tonic::collector::logs::v1 as their_logs;
use opentelemetry_proto::tonic::collector::trace::v1 as theirs;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use traces::otlp;
use traces::proto::collector::ExportTraceServiceRequest;
use traces::proto::common::InstrumentationScope;
use traces::proto::common::any_value::Value;
use traces::proto::common::{AnyValue, ArrayValue, EntityRef, KeyValue, KeyValueList};
use traces::proto::logs::{LogRecord, ResourceLogs, ScopeLogs};
use traces::proto::logs_collector::ExportLogsServiceRequest;
use traces::proto::resource::Resource;
use traces::proto::trace::span::{Event, Link};
use traces::proto::trace::{ResourceSpans, ScopeSpans, Span, Status};
use traces::read;

fn same(ours: &ExportTraceServiceRequest, name: &str) {
    both::<_, theirs::ExportTraceServiceRequest>(ours, name);
}

/// Fails unless the message `Theirs` has the same bytes and the same JSON.
fn both<Ours, Theirs>(ours: &Ours, name: &str)
where
    Ours: Message + Default + Serialize + DeserializeOwned,
    Theirs: Message + Default + Serialize + DeserializeOwned,
{
    let bytes = ours.encode_to_vec();
    let theirs = Theirs::decode(&bytes[..]).expect("a request");
    assert!(theirs.encode_to_vec() == bytes, "{name}: bytes");
    let json = serde_json::to_string(ours).expect("JSON");
    assert_eq!(json, serde_json::to_string(&theirs).expect("JSON"), "{name}");
    let read: Ours = serde_json::from_str(&json).expect("a request");
    let read_by_theirs: Theirs = serde_json::from_str(&json).expect("a request");
    assert!(read.encode_to_vec() == read_by_theirs.encode_to_vec(), "{name}: read from JSON");
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("it").path());
    let files = entries.flat_map(|it| if it.is_dir() { files(&it) } else { vec![it] });
    files.collect()
}

#[test]
fn every_recorded_trace_has_the_json_of_opentelemetry_proto() {
    let root = support::root();
    let folders = ["src/recordings", "crates/traces/tests/cases"];
    let files = folders.iter().flat_map(|folder| files(&root.join(folder)));
    let mut compared = 0;
    for file in files {
        let Ok(contents) = read::read(&fs::read(&file).expect("bytes")) else { continue };
        same(&otlp::to_request(&contents.spans), &file.display().to_string());
        compared += 1;
    }
    assert!(compared >= 40, "only {compared} files have traces");
}

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

/// A request in which every field has a value, and an attribute of every type.
fn full() -> ExportTraceServiceRequest {
    let values = vec![AnyValue { value: None }, AnyValue { value: Some(Value::IntValue(-1)) }];
    let pair =
        KeyValue { key: "k".to_owned(), value: any(Value::BoolValue(true)), key_strindex: 0 };
    let values = [
        any(Value::StringValue("\"é\n".to_owned())),
        any(Value::BoolValue(false)),
        any(Value::IntValue(i64::MIN)),
        any(Value::DoubleValue(0.1)),
        any(Value::DoubleValue(1e300)),
        any(Value::ArrayValue(ArrayValue { values })),
        any(Value::KvlistValue(KeyValueList { values: vec![pair] })),
        any(Value::BytesValue(vec![0, 255, 62])),
        Some(AnyValue { value: None }),
        None,
    ];
    let attributes = values.map(|value| KeyValue { key: "key".to_owned(), value, key_strindex: 3 });
    let attributes = attributes.to_vec();
    let (trace_id, span_id) = (vec![0x0a; 16], vec![0xf0; 8]);
    let event = Event {
        time_unix_nano: u64::MAX,
        name: "event".to_owned(),
        attributes: attributes.clone(),
        dropped_attributes_count: 1,
    };
    let link = Link {
        trace_id: trace_id.clone(),
        span_id: span_id.clone(),
        trace_state: "a=1".to_owned(),
        attributes: attributes.clone(),
        dropped_attributes_count: 2,
        flags: 0x101,
    };
    let span = Span {
        trace_id,
        span_id,
        trace_state: "a=1".to_owned(),
        parent_span_id: Vec::new(),
        flags: 0x301,
        name: "GET /".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_795_618_957_123_456_789,
        end_time_unix_nano: 1_795_618_957_223_456_789,
        attributes: attributes.clone(),
        dropped_attributes_count: 3,
        events: vec![event],
        dropped_events_count: 4,
        links: vec![link],
        dropped_links_count: 5,
        status: Some(Status { message: "no".to_owned(), code: 2 }),
    };
    let scope = InstrumentationScope {
        name: "scope".to_owned(),
        version: "1".to_owned(),
        attributes: attributes.clone(),
        dropped_attributes_count: 6,
    };
    let texts = |text: &str| vec![text.to_owned()];
    let entity = EntityRef {
        schema_url: "https://a.example".to_owned(),
        r#type: "service".to_owned(),
        id_keys: texts("key"),
        description_keys: texts("other"),
    };
    let resource = Resource { attributes, dropped_attributes_count: 7, entity_refs: vec![entity] };
    let schema_url = "https://b.example".to_owned();
    let bare = ScopeSpans { spans: vec![Span::default()], ..ScopeSpans::default() };
    let scope =
        ScopeSpans { scope: Some(scope), spans: vec![span], schema_url: schema_url.clone() };
    let scope_spans = vec![scope, bare];
    let full = ResourceSpans { resource: Some(resource), scope_spans, schema_url };
    ExportTraceServiceRequest { resource_spans: vec![full, ResourceSpans::default()] }
}

#[test]
fn every_field_has_the_json_of_opentelemetry_proto() {
    same(&full(), "a request with every field");
}

#[test]
fn every_field_of_a_log_record_has_the_json_of_opentelemetry_proto() {
    let ResourceSpans { resource, scope_spans, schema_url } = full().resource_spans.remove(0);
    let attributes = scope_spans[0].spans[0].attributes.clone();
    let record = |body| LogRecord {
        time_unix_nano: 1_795_618_957_123_456_789,
        observed_time_unix_nano: 1_795_618_957_223_456_789,
        severity_number: 18,
        severity_text: "error".to_owned(),
        body,
        attributes: attributes.clone(),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![0x0a; 16],
        span_id: vec![0xf0; 8],
        event_name: "exception".to_owned(),
    };
    let bodies = attributes.iter().map(|attribute| record(attribute.value.clone()));
    let log_records = bodies.chain([LogRecord::default()]).collect();
    let scope = scope_spans[0].scope.clone();
    let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: schema_url.clone() }];
    let full = ResourceLogs { resource, scope_logs, schema_url };
    let request = ExportLogsServiceRequest { resource_logs: vec![full, ResourceLogs::default()] };
    both::<_, their_logs::ExportLogsServiceRequest>(&request, "log records with every field");
}

/// Every document with one value replaced by another: both crates read the same from it, or neither reads it.
#[test]
fn json_is_read_and_refused_as_opentelemetry_proto_does() {
    let json = serde_json::to_string(&full()).expect("JSON");
    let others = ["null", "7", "-7", "1.5", "\"7\"", "\"0g\"", "\"abc\"", "18446744073709551615"];
    let others = others.iter().chain(&["\"Kys=\"", "[]", "{}", "true", "{\"intValue\":null}"]);
    let values: Vec<(usize, usize)> = places(&json);
    let (mut read, mut refused) = (0, 0);
    for other in others {
        for (start, end) in &values {
            let json = format!("{}{other}{}", &json[..*start], &json[*end..]);
            let ours = serde_json::from_str::<ExportTraceServiceRequest>(&json);
            let theirs = serde_json::from_str::<theirs::ExportTraceServiceRequest>(&json);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    assert!(ours.encode_to_vec() == theirs.encode_to_vec(), "{json}");
                    read += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                (ours, theirs) => panic!("{ours:?}\n{theirs:?}\n{json}"),
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

/// The places of the values of a document that are neither lists nor objects.
fn places(json: &str) -> Vec<(usize, usize)> {
    let starts = json.match_indices(':').map(|(at, _)| at + 1);
    let places = starts.filter_map(|start| {
        let mut values =
            serde_json::Deserializer::from_str(&json[start..]).into_iter::<serde_json::Value>();
        let value = values.next()?.ok()?;
        let end = start + values.byte_offset();
        (!value.is_array() && !value.is_object()).then_some((start, end))
    });
    places.collect()
}
