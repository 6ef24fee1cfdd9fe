//! A lab without a process of its own: a store, behind the receiver and the pages on one free port.

use std::net::SocketAddr;

use lab::store::{Limits, Store};
use lab::wire::Wire;
use lab::{jaeger, receiver, viewer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
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
        let (store, wire) = (Store::new(limits), Wire::default());
        let routes = receiver::routes(store.clone());
        let routes = routes
            .merge(viewer::routes(store.clone(), wire.clone()))
            .merge(jaeger::routes(store.clone()));
        Lab { address: serve(routes).await, store, wire }
    }

    /// Sends an export request; returns the status and the body.
    pub async fn export(
        &self,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> (u16, Vec<u8>) {
        let mut request =
            client().post(format!("http://{}/v1/traces", self.address)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.bytes().await.expect("a body").to_vec())
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
        let (status, _) = self.export(&[("content-type", PROTOBUF)], protobuf(spans)).await;
        assert_eq!(status, 200);
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
        assert_eq!(self.export(&[("content-type", PROTOBUF)], body).await.0, 200);
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response =
            client().get(format!("http://{}{path}", self.address)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    }

    pub async fn get_json(&self, path: &str) -> serde_json::Value {
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

pub fn trace_path(trace: u8) -> String {
    format!("/traces/{}", format!("{trace:02x}").repeat(16))
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
