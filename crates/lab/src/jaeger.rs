//! Serves the traces in the format of Jaeger's query API, so that tools made for Jaeger can read them from the lab.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::proto::common::KeyValue;
use crate::proto::common::any_value::Value as Any;
use crate::proto::trace::Span as Proto;
use crate::proto::trace::span::Event as ProtoEvent;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::analysis::calls;
use crate::list::{InvalidFilter, duration};
use crate::span::{
    Span, SpanId, SpanKind, Status, TraceId, any_text, json as value_json, trace_id,
};
use crate::store::Store;

/// The number of traces that a search returns when the request has no `limit`.
const DEFAULT_LIMIT: usize = 20;

/// Serves `/api/services`, `/api/services/{service}/operations`, `/api/operations`, `/api/traces`, `/api/traces/{id}` and
/// `/api/dependencies`.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations))
        .route("/api/operations", get(operations_by_kind))
        .route("/api/traces", get(search))
        .route("/api/traces/{id}", get(trace))
        .route("/api/dependencies", get(dependencies))
        .route("/api/{*path}", any(unknown))
        .with_state(store)
}

async fn unknown() -> Response {
    failure(StatusCode::NOT_FOUND, "this part of Jaeger's API is not here")
}

async fn services(State(store): State<Store>) -> Json<Value> {
    let names = distinct(&store, |span| Some(span.service().to_owned()));
    success(names.into_iter().map(Value::from).collect())
}

async fn operations(State(store): State<Store>, Path(service): Path<String>) -> Json<Value> {
    let names =
        distinct(&store, |span| (span.service() == service).then(|| span.name().to_owned()));
    success(names.into_iter().map(Value::from).collect())
}

#[derive(Deserialize)]
struct OperationsQuery {
    service: String,
    #[serde(rename = "spanKind", default)]
    kind: String,
}

/// Serves `/api/operations`, whose answer has the kind of the spans too.
async fn operations_by_kind(
    State(store): State<Store>,
    query: Result<Query<OperationsQuery>, QueryRejection>,
) -> Response {
    let Query(OperationsQuery { service, kind }) = match query {
        Ok(query) => query,
        Err(rejection) => return failure(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let operations = distinct(&store, |span| {
        let has_kind = kind.is_empty() || span.kind().as_str().eq_ignore_ascii_case(&kind);
        (span.service() == service && has_kind)
            .then(|| (span.name().to_owned(), span.kind().as_str().to_ascii_lowercase()))
    });
    let operations = operations.into_iter();
    let operations = operations.map(|(name, kind)| json!({ "name": name, "spanKind": kind }));
    success(operations.collect()).into_response()
}

/// Returns the distinct values that `pick` returns, sorted.
fn distinct<T: Ord>(store: &Store, pick: impl Fn(&Span) -> Option<T>) -> BTreeSet<T> {
    let traces = store.traces();
    traces.iter().flatten().filter_map(|span| pick(span)).collect()
}

/// Returns the calls between services within `lookback` before `endTs`, both in milliseconds. Without these parameters,
/// returns all calls.
async fn dependencies(
    State(store): State<Store>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let number = |key: &str| -> Result<Option<u64>, InvalidQuery> {
        let found = pairs.iter().find(|(name, value)| name == key && !value.is_empty());
        found.map(|(_, value)| whole_number(key, value)).transpose()
    };
    let (end, lookback) = match (number("endTs"), number("lookback")) {
        (Ok(end), Ok(lookback)) => (end.unwrap_or(u64::MAX), lookback.unwrap_or(u64::MAX)),
        (Err(problem), _) | (_, Err(problem)) => {
            return bad_request(&problem);
        }
    };
    let within = end.saturating_sub(lookback)..=end;
    let mut trees = store.trees();
    trees.retain(|tree| within.contains(&(tree.start / 1_000_000)));
    let calls = calls(&trees).into_iter().map(|((parent, child), calls)| {
        json!({ "parent": parent, "child": child, "callCount": calls.count })
    });
    success(calls.collect()).into_response()
}

/// The reasons why the parameters of a request are invalid.
#[derive(Debug, thiserror::Error)]
enum InvalidQuery {
    #[error("{key}={value:?} is not a whole number")]
    Number { key: String, value: String },
    #[error("tag={0:?}: write tag=KEY:VALUE")]
    Tag(String),
    #[error("tags={value:?} is not a JSON object: {source}")]
    Tags { value: String, source: serde_json::Error },
    #[error(transparent)]
    Duration(#[from] InvalidFilter),
    #[error("{0:?} is not a trace id of 32 hexadecimal digits")]
    TraceId(String),
}

fn whole_number(key: &str, value: &str) -> Result<u64, InvalidQuery> {
    value.parse().map_err(|_| InvalidQuery::Number { key: key.to_owned(), value: value.to_owned() })
}

/// The parameters of a search. A trace is found when one of its spans matches all of them.
#[derive(Default)]
struct Search {
    service: Option<String>,
    operation: Option<String>,
    tags: Vec<(String, String)>,
    /// The shortest and longest duration, in nanoseconds.
    min: Option<u128>,
    max: Option<u128>,
    /// The earliest and latest start, in nanoseconds since 1970.
    start: Option<u64>,
    end: Option<u64>,
    limit: Option<usize>,
    traces: Vec<TraceId>,
}

impl Search {
    /// Reads the parameters of Jaeger's query service. Ignores unknown ones, such as `lookback`, which only Jaeger's own pages
    /// use.
    ///
    /// # Errors
    /// Fails when a known parameter has an invalid value.
    fn read(pairs: Vec<(String, String)>) -> Result<Search, InvalidQuery> {
        let mut search = Search::default();
        for (key, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            let number = || whole_number(&key, &value);
            match key.as_str() {
                "service" => search.service = Some(value),
                // Jaeger's own pages send this value when no operation is selected.
                "operation" if value == "all" => {}
                "operation" => search.operation = Some(value),
                "tag" => {
                    let (key, value) =
                        value.split_once(':').ok_or_else(|| InvalidQuery::Tag(value.clone()))?;
                    search.tags.push((key.to_owned(), value.to_owned()));
                }
                "tags" => {
                    let tags: BTreeMap<String, Value> = serde_json::from_str(&value)
                        .map_err(|source| InvalidQuery::Tags { value, source })?;
                    let text = |value: Value| match value {
                        Value::String(text) => text,
                        other => other.to_string(),
                    };
                    search.tags.extend(tags.into_iter().map(|(key, value)| (key, text(value))));
                }
                "minDuration" => search.min = Some(duration(&value)?.as_nanos()),
                "maxDuration" => search.max = Some(duration(&value)?.as_nanos()),
                "start" => search.start = Some(number()?.saturating_mul(1000)),
                "end" => search.end = Some(number()?.saturating_mul(1000)),
                "limit" => search.limit = usize::try_from(number()?).ok(),
                "traceID" => search.traces.push(checked_id(&value)?),
                _ => {}
            }
        }
        Ok(search)
    }

    fn matches(&self, span: &Span) -> bool {
        let same = |wanted: &Option<String>, has: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == has)
        };
        let duration = u128::from(span.duration());
        same(&self.service, span.service())
            && same(&self.operation, span.name())
            && self.min.is_none_or(|min| min <= duration)
            && self.max.is_none_or(|max| duration <= max)
            && self.start.is_none_or(|start| start <= span.start())
            && self.end.is_none_or(|end| span.start() <= end)
            && (self.tags.is_empty() || self.has_tags(span))
    }

    /// Returns whether every tag is among the tags of the span, the tags of its process or the fields of its logs.
    fn has_tags(&self, span: &Span) -> bool {
        let proto = span.proto();
        let mut all = span_tags(span, &proto);
        all.extend(tags(&span.source.resource.attributes));
        all.extend(proto.events.iter().flat_map(event_fields));
        self.tags.iter().all(|(key, value)| {
            all.iter().any(|tag| {
                let has = &tag["value"];
                let text = has.as_str().map_or_else(|| has.to_string(), str::to_owned);
                tag["key"] == key.as_str() && text == *value
            })
        })
    }
}

async fn search(
    State(store): State<Store>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let search = match Search::read(pairs) {
        Ok(search) => search,
        Err(problem) => return bad_request(&problem),
    };
    let traces = match search.traces.is_empty() {
        true => store.traces(),
        false => search.traces.iter().filter_map(|id| store.trace(*id)).collect(),
    };
    let found = traces.iter().filter(|spans| spans.iter().any(|span| search.matches(span)));
    let found = found.take(search.limit.unwrap_or(DEFAULT_LIMIT));
    success(found.map(|spans| trace_json(spans)).collect()).into_response()
}

fn checked_id(text: &str) -> Result<TraceId, InvalidQuery> {
    trace_id(text).ok_or_else(|| InvalidQuery::TraceId(text.to_owned()))
}

async fn trace(State(store): State<Store>, Path(id): Path<String>) -> Response {
    let id = match checked_id(&id) {
        Ok(id) => id,
        Err(problem) => return bad_request(&problem),
    };
    match store.trace(id) {
        Some(spans) => success(vec![trace_json(&spans)]).into_response(),
        None => failure(StatusCode::NOT_FOUND, "trace not found"),
    }
}

fn success(data: Vec<Value>) -> Json<Value> {
    Json(json!({ "total": data.len(), "data": data, "limit": 0, "offset": 0, "errors": null }))
}

fn bad_request(problem: &InvalidQuery) -> Response {
    failure(StatusCode::BAD_REQUEST, &problem.to_string())
}

fn failure(status: StatusCode, message: &str) -> Response {
    let errors = json!([{ "code": status.as_u16(), "msg": message }]);
    (status, Json(json!({ "data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors })))
        .into_response()
}

/// Converts one trace. Each distinct resource becomes a process `p1`, `p2`, …
fn trace_json(spans: &[Arc<Span>]) -> Value {
    let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut processes = serde_json::Map::new();
    let mut list = Vec::with_capacity(spans.len());
    for span in spans {
        let resource = &span.source.resource;
        let next = known.len() + 1;
        let number = *known.entry(resource.encode_to_vec()).or_insert(next);
        if number == next {
            let process =
                json!({ "serviceName": span.service(), "tags": tags(&resource.attributes) });
            processes.insert(format!("p{number}"), process);
        }
        list.push(span_json(span, &format!("p{number}")));
    }
    let trace_id = spans.first().map(|span| span.trace_id.to_string());
    json!({ "traceID": trace_id, "spans": list, "processes": processes, "warnings": null })
}

/// Converts one span. Jaeger's times are in microseconds.
fn span_json(span: &Span, process: &str) -> Value {
    let proto = span.proto();
    let reference = |kind: &str, trace: TraceId, span: SpanId| json!({ "refType": kind, "traceID": trace.to_string(), "spanID": span.to_string() });
    let parent = span.parent.iter();
    let mut references: Vec<Value> =
        parent.map(|parent| reference("CHILD_OF", span.trace_id, *parent)).collect();
    let links = span.links.iter();
    references.extend(links.map(|(trace, id)| reference("FOLLOWS_FROM", *trace, *id)));
    let logs = proto.events.iter().map(
        |event| json!({ "timestamp": event.time_unix_nano / 1000, "fields": event_fields(event) }),
    );
    json!({
        "traceID": span.trace_id.to_string(),
        "spanID": span.id.to_string(),
        "flags": 1,
        "operationName": span.name(),
        "references": references,
        "startTime": span.start() / 1000,
        "duration": span.duration() / 1000,
        "tags": span_tags(span, &proto),
        "logs": logs.collect::<Vec<_>>(),
        "processID": process,
        "warnings": null,
    })
}

/// Converts the attributes to tags. Kind, status, scope and tracestate become tags too, as in Jaeger's own OTLP receiver.
fn span_tags(span: &Span, proto: &Proto) -> Vec<Value> {
    let mut tags = tags(&proto.attributes);
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            tags.push(tag(key, "string", value.into()));
        }
    };
    if span.kind() != SpanKind::Unspecified {
        add("span.kind", &span.kind().as_str().to_ascii_lowercase());
    }
    match span.status() {
        Status::Unset => {}
        status @ (Status::Ok | Status::Error) => add("otel.status_code", status.as_str()),
    }
    let message = proto.status.as_ref().map_or("", |status| &status.message);
    add("otel.status_description", message);
    add("otel.scope.name", &span.source.scope.name);
    add("otel.scope.version", &span.source.scope.version);
    add("w3c.tracestate", &proto.trace_state);
    if span.is_error() {
        tags.push(tag("error", "bool", true.into()));
    }
    tags
}

fn event_fields(event: &ProtoEvent) -> Vec<Value> {
    let mut fields = vec![tag("event", "string", event.name.as_str().into())];
    fields.extend(tags(&event.attributes));
    fields
}

fn tags(attributes: &[KeyValue]) -> Vec<Value> {
    let tags = attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().and_then(|any| any.value.as_ref());
        match value {
            Some(Any::BoolValue(_)) => tag(&attribute.key, "bool", value_json(value)),
            Some(Any::IntValue(_)) => tag(&attribute.key, "int64", value_json(value)),
            Some(Any::DoubleValue(_)) => tag(&attribute.key, "float64", value_json(value)),
            _ => tag(&attribute.key, "string", any_text(&attribute.value).into()),
        }
    });
    tags.collect()
}

fn tag(key: &str, kind: &str, value: Value) -> Value {
    json!({ "key": key, "type": kind, "value": value })
}
