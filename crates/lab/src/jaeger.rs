//! The store as JSON, in the form of Jaeger's query API, so that tools that read Jaeger can read the lab.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Value, json};

use crate::span::{Span, TraceId, any_text};
use crate::store::Store;

/// How many traces a search returns where the caller does not say.
const DEFAULT_LIMIT: usize = 20;

/// `/api/services`, `/api/services/{service}/operations`, `/api/traces` and `/api/traces/{id}`.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations))
        .route("/api/traces", get(search))
        .route("/api/traces/{id}", get(trace))
        .with_state(store)
}

async fn services(State(store): State<Store>) -> Json<Value> {
    answer(names(&store, |span| Some(span.service().to_owned())))
}

async fn operations(State(store): State<Store>, Path(service): Path<String>) -> Json<Value> {
    answer(names(&store, |span| {
        (span.service() == service).then(|| span.name().to_owned())
    }))
}

/// Every different name that `pick` gives, sorted.
fn names(store: &Store, pick: impl Fn(&Span) -> Option<String>) -> Vec<Value> {
    let traces = store.traces();
    let mut names: Vec<String> = traces
        .iter()
        .flatten()
        .filter_map(|span| pick(span))
        .collect();
    names.sort();
    names.dedup();
    names.into_iter().map(Value::from).collect()
}

#[derive(serde::Deserialize)]
struct Search {
    service: Option<String>,
    operation: Option<String>,
    limit: Option<usize>,
}

impl Search {
    fn wants(&self, span: &Span) -> bool {
        self.service
            .as_deref()
            .is_none_or(|service| service == span.service())
            && self
                .operation
                .as_deref()
                .is_none_or(|operation| operation == span.name())
    }
}

async fn search(State(store): State<Store>, Query(search): Query<Search>) -> Json<Value> {
    let traces = store.traces();
    let found = traces
        .iter()
        .filter(|spans| spans.iter().any(|span| search.wants(span)));
    answer(
        found
            .take(search.limit.unwrap_or(DEFAULT_LIMIT))
            .map(|spans| trace_json(spans))
            .collect(),
    )
}

async fn trace(State(store): State<Store>, Path(id): Path<String>) -> Response {
    let Some(id) = TraceId::parse(&id) else {
        return failure(
            StatusCode::BAD_REQUEST,
            "a trace id is 32 hexadecimal digits",
        );
    };
    match store.trace(id) {
        Some(spans) => answer(vec![trace_json(&spans)]).into_response(),
        None => failure(StatusCode::NOT_FOUND, "trace not found"),
    }
}

fn answer(data: Vec<Value>) -> Json<Value> {
    Json(json!({ "total": data.len(), "data": data, "limit": 0, "offset": 0, "errors": null }))
}

fn failure(status: StatusCode, message: &str) -> Response {
    let errors = json!([{ "code": status.as_u16(), "msg": message }]);
    (
        status,
        Json(json!({ "data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors })),
    )
        .into_response()
}

/// One trace; each different resource becomes a process `p1`, `p2`, …
fn trace_json(spans: &[Arc<Span>]) -> Value {
    let mut resources: Vec<&Arc<Resource>> = Vec::new();
    let mut processes = serde_json::Map::new();
    let mut list = Vec::with_capacity(spans.len());
    for span in spans {
        let known = resources
            .iter()
            .position(|resource| *resource == &span.resource);
        let index = known.unwrap_or_else(|| {
            resources.push(&span.resource);
            let process =
                json!({ "serviceName": span.service(), "tags": tags(&span.resource.attributes) });
            processes.insert(format!("p{}", resources.len()), process);
            resources.len() - 1
        });
        list.push(span_json(span, &format!("p{}", index + 1)));
    }
    let trace_id = spans.first().map(|span| span.trace_id.to_string());
    json!({ "traceID": trace_id, "spans": list, "processes": processes, "warnings": null })
}

/// Times are microseconds, as Jaeger has them; kind and status become tags, as Jaeger's own OTLP receiver does.
fn span_json(span: &Span, process: &str) -> Value {
    let mut tags = tags(&span.proto.attributes);
    if span.has_kind() {
        tags.push(tag(
            "span.kind",
            "string",
            span.kind().to_ascii_lowercase().into(),
        ));
    }
    if span.is_error() {
        tags.push(tag("otel.status_code", "string", "ERROR".into()));
        tags.push(tag("error", "bool", true.into()));
        if !span.status_message().is_empty() {
            tags.push(tag(
                "otel.status_description",
                "string",
                span.status_message().into(),
            ));
        }
    }
    tags.push(tag("otel.scope.name", "string", span.scope.as_ref().into()));
    let references: Vec<Value> = span
        .parent
        .iter()
        .map(|parent| {
            let (trace_id, span_id) = (span.trace_id.to_string(), parent.to_string());
            json!({ "refType": "CHILD_OF", "traceID": trace_id, "spanID": span_id })
        })
        .collect();
    let logs: Vec<Value> = span
        .proto
        .events
        .iter()
        .map(|event| {
            let mut fields = vec![tag("event", "string", event.name.as_str().into())];
            fields.extend(self::tags(&event.attributes));
            json!({ "timestamp": event.time_unix_nano / 1000, "fields": fields })
        })
        .collect();
    json!({
        "traceID": span.trace_id.to_string(),
        "spanID": span.id.to_string(),
        "operationName": span.name(),
        "references": references,
        "startTime": span.start() / 1000,
        "duration": span.duration() / 1000,
        "tags": tags,
        "logs": logs,
        "processID": process,
        "warnings": null,
    })
}

fn tags(attributes: &[KeyValue]) -> Vec<Value> {
    attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.as_ref().and_then(|any| any.value.as_ref());
            match value {
                Some(Any::BoolValue(flag)) => tag(&attribute.key, "bool", (*flag).into()),
                Some(Any::IntValue(number)) => tag(&attribute.key, "int64", (*number).into()),
                Some(Any::DoubleValue(number)) => tag(&attribute.key, "float64", (*number).into()),
                _ => tag(&attribute.key, "string", any_text(&attribute.value).into()),
            }
        })
        .collect()
}

fn tag(key: &str, kind: &str, value: Value) -> Value {
    json!({ "key": key, "type": kind, "value": value })
}
