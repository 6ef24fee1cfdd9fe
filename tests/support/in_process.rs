//! A lab without a process of its own: a store, behind the receiver and the pages on one free port.

use std::fmt::Display;
use std::net::SocketAddr;

use lab::otlp;
use lab::proto::collector::ExportTraceServiceRequest;
use lab::proto::common::any_value::Value;
use lab::proto::common::{AnyValue, KeyValue};
use lab::proto::logs_collector::ExportLogsServiceRequest;
use lab::proto::resource::Resource;
use lab::proto::trace::span::SpanKind;
use lab::proto::trace::{ResourceSpans, ScopeSpans, Span};
use lab::store::{Limits, Store};
use lab::wire::Wire;
use lab::{receiver, server};
use opentelemetry_proto::tonic::collector::trace::v1 as by_sdk;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource as SdkResource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use reqwest::Method;
use serde_json::json;

use super::{client, serve};

pub const PROTOBUF: &str = "application/x-protobuf";
pub const JSON: &str = "application/json";

/// A store, behind the receiver and the pages on one free port.
pub struct Lab {
    pub store: Store,
    pub wire: Wire,
    pub address: SocketAddr,
}

impl Lab {
    pub async fn start() -> Lab {
        Lab::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Lab {
        Lab::around(Store::new(limits), Wire::default()).await
    }

    /// A lab that shows what is in a store and on a wire.
    pub async fn around(store: Store, wire: Wire) -> Lab {
        let pages = server::protected(server::pages(store.clone(), wire.clone()));
        let routes = receiver::routes(store.clone()).merge(pages);
        Lab { address: serve(routes).await, store, wire }
    }

    /// A lab that has received the spans of a [`table`].
    pub async fn of(table: &str) -> Lab {
        let lab = Lab::start().await;
        lab.store.add(spans(table));
        lab
    }

    /// POSTs to `path`, without the headers whose value is empty; returns the status and the body.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> (u16, String) {
        let request = client().post(format!("http://{}{path}", self.address)).body(body.into());
        let given = headers.iter().filter(|(_, value)| !value.is_empty());
        let request = given.fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a body").to_vec();
        (status, String::from_utf8(body).expect("UTF-8"))
    }

    /// Sends an export request; returns the status and the body.
    pub async fn export(
        &self,
        media_type: &str,
        encoding: &str,
        body: impl Into<Vec<u8>>,
    ) -> (u16, String) {
        let headers = [("content-type", media_type), ("content-encoding", encoding)];
        self.post("/v1/traces", &headers, body).await
    }

    /// Sends an OTLP request to `path` from a page at `origin`; returns the status and the origin that may read it.
    pub async fn page_sends(
        &self,
        method: Method,
        path: &str,
        origin: &str,
    ) -> (u16, Option<String>) {
        let url = format!("http://{}{path}", self.address);
        let request = client().request(method, url).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let answer =
            request.header("content-type", JSON).body("{}").send().await.expect("an answer");
        let allowed = answer.headers().get("access-control-allow-origin");
        let allowed = allowed.map(|origin| origin.to_str().expect("text").to_owned());
        (answer.status().as_u16(), allowed)
    }

    pub async fn export_spans(&self, spans: Vec<Span>) {
        assert_eq!(self.export(PROTOBUF, "", protobuf(spans)).await.0, 200);
    }

    /// The same for spans of a service.
    pub async fn export_of(&self, service: &str, spans: Vec<Span>) {
        let resource = Resource {
            attributes: vec![attribute("service.name", service)],
            ..Resource::default()
        };
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans {
            resource: Some(resource),
            scope_spans,
            ..ResourceSpans::default()
        }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        assert_eq!(self.export(PROTOBUF, "", body).await.0, 200);
    }

    pub async fn get(&self, path: impl Display) -> (u16, String) {
        let response =
            client().get(format!("http://{}{path}", self.address)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    }

    /// A page that is there.
    pub async fn page(&self, path: impl Display) -> String {
        let (status, page) = self.get(&path).await;
        assert_eq!(status, 200, "{path}: {page}");
        page
    }

    pub async fn get_json(&self, path: impl Display) -> serde_json::Value {
        serde_json::from_str(&self.get(path).await.1).expect("JSON")
    }

    pub fn spans(&self) -> usize {
        self.store.usage().spans
    }

    /// The traces, the spans, and the traces that made room.
    pub fn counts(&self) -> [usize; 3] {
        let usage = self.store.usage();
        [usage.traces, usage.spans, usage.evicted]
    }
}

/// 2026-01-01 in milliseconds since 1970.
pub const NEW_YEAR: u64 = 1_767_225_600_000;

/// An export request in OTLP JSON with the spans of a table, separated by line ends or `;`. A row is
/// `TRACE SERVICE ID<PARENT KIND START..END NAME KEY=VALUE {JSON}`. Times are milliseconds since [`NEW_YEAR`]. `error=MESSAGE`
/// sets the status, any other `KEY=VALUE` is an attribute, and the JSON has further fields of the span.
pub fn table(text: &str) -> serde_json::Value {
    let rows = text.split(['\n', ';']).map(str::trim).filter(|row| !row.is_empty());
    json!({ "resourceSpans": rows.map(resource_spans).collect::<Vec<_>>() })
}

fn resource_spans(row: &str) -> serde_json::Value {
    let (columns, fields) = row.split_once(" {").unwrap_or((row, "}"));
    let fields: serde_json::Value = serde_json::from_str(&format!("{{{fields}")).expect(row);
    let mut words = columns.split_whitespace();
    let [trace, service, ids, kind, times] = std::array::from_fn(|_| words.next().expect(row));
    let (pairs, name): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('='));
    let number = |digits: &str| digits.parse::<u64>().expect(row);
    let hexadecimal = |digits| format!("{:016x}", number(digits));
    let (id, parent) = ids.split_once('<').map_or((ids, None), |(id, parent)| (id, Some(parent)));
    let (start, end) = times.split_once("..").expect(row);
    let nanoseconds = |digits| ((NEW_YEAR + number(digits)) * 1_000_000).to_string();
    let attribute =
        |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let mut span = json!({
        "traceId": format!("{:02x}", number(trace)).repeat(16), "spanId": hexadecimal(id),
        "parentSpanId": parent.map(hexadecimal).unwrap_or_default(), "name": name.join(" "),
        "kind": SpanKind::from_str_name(&format!("SPAN_KIND_{kind}")).expect(row) as i32,
        "startTimeUnixNano": nanoseconds(start), "endTimeUnixNano": nanoseconds(end), "attributes": [],
    });
    for (key, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
        match key {
            "error" => span["status"] = json!({ "code": 2, "message": value }),
            _ => span["attributes"].as_array_mut().expect("a list").push(attribute(key, value)),
        }
    }
    span.as_object_mut().expect("a span").extend(fields.as_object().expect(row).clone());
    json!({
        "resource": { "attributes": [attribute("service.name", service)] },
        "scopeSpans": [{ "scope": { "name": "test" }, "spans": [span] }],
    })
}

/// The spans of a [`table`], as the lab has read them.
pub fn spans(text: &str) -> Vec<lab::span::Span> {
    otlp::from_json(table(text).to_string().as_bytes()).expect("spans").items
}

/// An export request in OTLP JSON with log records, separated by line ends or `;`. A row is
/// `TRACE SERVICE SPAN SEVERITY TIME BODY KEY=VALUE {JSON}`, where the trace 0 and the span 0 are none, and the severity is
/// OpenTelemetry's number. The rest is as in a [`table`].
pub fn log_table(text: &str) -> serde_json::Value {
    let rows = text.split(['\n', ';']).map(str::trim).filter(|row| !row.is_empty());
    json!({ "resourceLogs": rows.map(resource_logs).collect::<Vec<_>>() })
}

fn resource_logs(row: &str) -> serde_json::Value {
    let (columns, fields) = row.split_once(" {").unwrap_or((row, "}"));
    let fields: serde_json::Value = serde_json::from_str(&format!("{{{fields}")).expect(row);
    let mut words = columns.split_whitespace();
    let [trace, service, span, severity, time] = std::array::from_fn(|_| words.next().expect(row));
    let (pairs, body): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('='));
    let number = |digits: &str| digits.parse::<u64>().expect(row);
    let id = |digits: &str, hexadecimal: String| match digits {
        "0" => String::new(),
        _ => hexadecimal,
    };
    let attribute =
        |(key, value): (&str, &str)| json!({ "key": key, "value": { "stringValue": value } });
    let attributes = pairs.iter().filter_map(|pair| pair.split_once('=')).map(attribute);
    let mut record = json!({
        "traceId": id(trace, format!("{:02x}", number(trace)).repeat(16)),
        "spanId": id(span, format!("{:016x}", number(span))),
        "severityNumber": number(severity), "body": { "stringValue": body.join(" ") },
        "timeUnixNano": ((NEW_YEAR + number(time)) * 1_000_000).to_string(),
        "attributes": attributes.collect::<Vec<_>>(),
    });
    record.as_object_mut().expect("a record").extend(fields.as_object().expect(row).clone());
    json!({
        "resource": { "attributes": [attribute(("service.name", service))] },
        "scopeLogs": [{ "scope": { "name": "test" }, "logRecords": [record] }],
    })
}

/// The log records of a [`log_table`] that belong to a trace, as the lab has read them.
pub fn logs(text: &str) -> Vec<lab::log::LogRecord> {
    otlp::logs_from_json(log_table(text).to_string().as_bytes()).expect("log records").items
}

/// The export request of a [`log_table`] in protobuf.
pub fn logs_in_protobuf(text: &str) -> Vec<u8> {
    let request: ExportLogsServiceRequest =
        serde_json::from_value(log_table(text)).expect("log records");
    request.encode_to_vec()
}

/// A span of trace number `trace`; `parent` 0 makes it a root.
pub fn span(trace: u8, id: u64, parent: u64, name: &str) -> Span {
    let parent = if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() };
    Span {
        trace_id: vec![trace; 16],
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: name.to_owned(),
        start_time_unix_nano: 1_000_000 * id,
        end_time_unix_nano: 1_000_000 * id + 500_000,
        ..Span::default()
    }
}

/// An attribute whose value is a text.
pub fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Value::StringValue(value.to_owned());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub fn protobuf(spans: Vec<Span>) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// The request that the SDK's exporter would send for these spans. Its messages are those of another crate, so they are converted
/// as an exporter and a receiver do: through their bytes.
pub fn request_by_sdk(spans: Vec<SpanData>, resource: &SdkResource) -> ExportTraceServiceRequest {
    let resource_spans = group_spans_by_resource_and_scope(spans, &resource.into());
    let sent = by_sdk::ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    ExportTraceServiceRequest::decode(&sent[..]).expect("a request")
}

pub fn trace_id(trace: u8) -> String {
    format!("{trace:02x}").repeat(16)
}

pub fn trace_path(trace: u8) -> String {
    format!("/traces/{}", trace_id(trace))
}

/// A request as some Python exporters send it: enums by name, `null` for no parent, numbers as numbers.
pub fn json_body() -> serde_json::Value {
    let span = json!({
        "traceId": "0a".repeat(16), "spanId": "0b".repeat(8), "parentSpanId": null, "name": "from json",
        "kind": "SPAN_KIND_SERVER", "startTimeUnixNano": "1000000", "endTimeUnixNano": 3_500_000,
        "status": { "code": "STATUS_CODE_ERROR", "message": "no" },
        "attributes": [
            { "key": "http.response.status_code", "value": { "intValue": "500" } },
            { "key": "odd", "value": { "futureValue": 1 } },
        ],
        "fieldOfTheFuture": { "a": [1] },
    });
    let resource =
        json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "python" } }] });
    json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span] }] }] })
}
