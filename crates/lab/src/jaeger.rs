//! Serves the traces in the format of Jaeger's query API, so that tools made for Jaeger can read them from the lab.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::{iter, vec};

use crate::proto::common::KeyValue;
use crate::proto::common::any_value::Value as Any;
use crate::proto::trace::Span as Proto;
use crate::proto::trace::span::Event as ProtoEvent;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRef, Path, Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::list::{InvalidFilter, duration};
use crate::render::{Renderers, in_turn};
use crate::service_map::ServiceMap;
use crate::span::{
    Source, Span, SpanId, SpanKind, Status, TraceId, any_text, json as value_json, trace_id,
};
use crate::store::Store;

/// The number of traces that a search returns when the request has no `limit`.
const DEFAULT_LIMIT: usize = 20;

/// The largest size in bytes of all names in a list of services or operations.
pub const NAMES_LIMIT: usize = 4 * 1024 * 1024;

/// Serves `/api/services`, `/api/services/{service}/operations`, `/api/operations`, `/api/traces`, `/api/traces/{id}` and
/// `/api/dependencies`.
pub fn routes(store: Store) -> Router {
    let renderers = Renderers::default();
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations))
        .route("/api/operations", get(operations_by_kind))
        .route("/api/traces", get(search))
        .route("/api/traces/{id}", get(trace))
        .route("/api/dependencies", get(dependencies))
        .route("/api/{*path}", any(unknown))
        .layer(from_fn_with_state(renderers.clone(), in_turn))
        .with_state(Api { store, renderers })
}

/// The state of the handlers.
#[derive(Clone)]
struct Api {
    store: Store,
    renderers: Renderers,
}

impl FromRef<Api> for Store {
    fn from_ref(api: &Api) -> Store {
        api.store.clone()
    }
}

async fn unknown() -> Response {
    failure(StatusCode::NOT_FOUND, "this part of Jaeger's API is not here")
}

async fn services(State(store): State<Store>) -> Json<Value> {
    distinct(&store, |span| Some((span.service().to_owned(), ""))).to_json(|name, _| name.into())
}

async fn operations(State(store): State<Store>, Path(service): Path<String>) -> Json<Value> {
    let names =
        distinct(&store, |span| (span.service() == service).then(|| (span.name().to_owned(), "")));
    names.to_json(|name, _| name.into())
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
            .then(|| (span.name().to_owned(), span.kind().as_str()))
    });
    operations
        .to_json(|name, kind| json!({ "name": name, "spanKind": kind.to_ascii_lowercase() }))
        .into_response()
}

/// Names, sorted. Those of spans may come with their kind.
struct Names {
    found: BTreeSet<(String, &'static str)>,
    /// Whether there are more, which [`NAMES_LIMIT`] leaves out.
    is_cut: bool,
}

/// Returns the distinct names that `pick` returns.
fn distinct(store: &Store, pick: impl Fn(&Span) -> Option<(String, &'static str)>) -> Names {
    let (mut found, mut bytes) = (BTreeSet::new(), 0);
    for name in store.walk().rev().flatten().filter_map(|span| pick(&span)) {
        let size = name.0.len();
        if bytes + size > NAMES_LIMIT && !found.contains(&name) {
            return Names { found, is_cut: true };
        }
        bytes += if found.insert(name) { size } else { 0 };
    }
    Names { found, is_cut: false }
}

impl Names {
    fn to_json(&self, name: impl Fn(&str, &str) -> Value) -> Json<Value> {
        let names: Vec<Value> = self.found.iter().map(|(text, kind)| name(text, kind)).collect();
        let message =
            format!("only the first {} names: the answer has no room for more", names.len());
        let errors = self.is_cut.then(|| json!([{ "code": 0, "msg": message }]));
        Json(
            json!({ "total": names.len(), "data": names, "limit": 0, "offset": 0, "errors": errors }),
        )
    }
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
    let map = ServiceMap::new(&store, |tree| within.contains(&(tree.start / 1_000_000)));
    let calls = map.calls.into_iter().map(|((parent, child), calls)| {
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
    traces: BTreeSet<TraceId>,
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
                "traceID" => {
                    search.traces.insert(checked_id(&value)?);
                }
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
    State(Api { store, renderers }): State<Api>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let search = match Search::read(pairs) {
        Ok(search) => search,
        Err(problem) => return bad_request(&problem),
    };
    let traces: Box<dyn Iterator<Item = Vec<Arc<Span>>> + Send> = match search.traces.is_empty() {
        true => Box::new(store.walk().rev()),
        false => {
            let ids = search.traces.clone().into_iter();
            Box::new(ids.filter_map(move |id| store.trace(id)))
        }
    };
    let mut left = search.limit.unwrap_or(DEFAULT_LIMIT);
    let looked_at = traces.map_while(move |spans| {
        (left > 0).then(|| {
            let is_found = spans.iter().any(|span| search.matches(span));
            left -= usize::from(is_found);
            is_found.then_some(spans)
        })
    });
    renderers.stream_json(Answer::with(looked_at))
}

fn checked_id(text: &str) -> Result<TraceId, InvalidQuery> {
    trace_id(text).ok_or_else(|| InvalidQuery::TraceId(text.to_owned()))
}

async fn trace(State(Api { store, renderers }): State<Api>, Path(id): Path<String>) -> Response {
    let id = match checked_id(&id) {
        Ok(id) => id,
        Err(problem) => return bad_request(&problem),
    };
    match store.trace(id) {
        Some(spans) => renderers.stream_json(Answer::with(iter::once(Some(spans)))),
        None => failure(StatusCode::NOT_FOUND, "trace not found"),
    }
}

/// The pieces of an answer with traces. The traces come in one after the other, and `None` stands for one that isn't found, so
/// that a search doesn't look at many traces for one piece.
struct Answer<I> {
    traces: iter::Fuse<I>,
    /// The trace that is being written.
    trace: Option<TraceJson>,
    total: usize,
    has_ended: bool,
}

impl<I: Iterator<Item = Option<Vec<Arc<Span>>>>> Answer<I> {
    fn with(traces: I) -> impl Iterator<Item = Vec<u8>> {
        let traces = traces.fuse();
        let answer = Answer { traces, trace: None, total: 0, has_ended: false };
        iter::once(b"{\"data\":[".to_vec()).chain(answer)
    }
}

impl<I: Iterator<Item = Option<Vec<Arc<Span>>>>> Iterator for Answer<I> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(piece) = self.trace.as_mut().and_then(Iterator::next) {
            return Some(piece);
        }
        match self.traces.next() {
            Some(None) => Some(Vec::new()),
            Some(Some(spans)) => {
                self.trace = Some(TraceJson::new(spans));
                self.total += 1;
                Some(if self.total == 1 { Vec::new() } else { b",".to_vec() })
            }
            None if std::mem::replace(&mut self.has_ended, true) => None,
            None => {
                let total = self.total;
                let end = format!("],\"total\":{total},\"limit\":0,\"offset\":0,\"errors\":null}}");
                Some(end.into_bytes())
            }
        }
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

/// The pieces of one trace: its spans, and then its processes. Each distinct resource becomes a process `p1`, `p2`, …
struct TraceJson {
    spans: vec::IntoIter<Arc<Span>>,
    /// The number of the process of each source, by the source's address.
    processes: HashMap<usize, usize>,
    /// The same by the hash of the resource, which may stand for several.
    by_resource: HashMap<u64, Vec<usize>>,
    /// A source of each process, in order.
    sources: Vec<Arc<Source>>,
    part: Part,
}

/// The next part that [`TraceJson`] writes.
enum Part {
    Start { trace_id: Option<TraceId> },
    Spans { is_first: bool },
    Processes { written: usize },
    End,
}

impl TraceJson {
    fn new(spans: Vec<Arc<Span>>) -> Self {
        let trace_id = spans.first().map(|span| span.trace_id);
        TraceJson {
            spans: spans.into_iter(),
            processes: HashMap::new(),
            by_resource: HashMap::new(),
            sources: Vec::new(),
            part: Part::Start { trace_id },
        }
    }

    fn process(&mut self, source: &Arc<Source>) -> usize {
        let address = Arc::as_ptr(source) as usize;
        if let Some(number) = self.processes.get(&address) {
            return *number;
        }
        let mut hasher = DefaultHasher::new();
        source.resource.encode_to_vec().hash(&mut hasher);
        let alike = self.by_resource.entry(hasher.finish()).or_default();
        let is_equal = |number: &usize| self.sources[number - 1].resource == source.resource;
        let number = alike.iter().copied().find(is_equal).unwrap_or_else(|| {
            self.sources.push(Arc::clone(source));
            alike.push(self.sources.len());
            self.sources.len()
        });
        self.processes.insert(address, number);
        number
    }
}

impl Iterator for TraceJson {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let comma = |is_first: bool| if is_first { "" } else { "," };
        let piece = match self.part {
            Part::Start { trace_id } => {
                self.part = Part::Spans { is_first: true };
                let id = json!(trace_id.map(|id| id.to_string()));
                format!("{{\"traceID\":{id},\"warnings\":null,\"spans\":[")
            }
            Part::Spans { is_first } => match self.spans.next() {
                Some(span) => {
                    self.part = Part::Spans { is_first: false };
                    let process = self.process(&span.source);
                    format!("{}{}", comma(is_first), span_json(&span, &format!("p{process}")))
                }
                None => {
                    self.part = Part::Processes { written: 0 };
                    "],\"processes\":{".to_owned()
                }
            },
            Part::Processes { written } => match self.sources.get(written) {
                Some(source) => {
                    let number = written + 1;
                    self.part = Part::Processes { written: number };
                    let mut process = json!({ "serviceName": source.service(), "tags": tags(&source.resource.attributes) });
                    if let Some(tags) = process["tags"].as_array_mut() {
                        tags.retain(|tag| tag["key"] != "service.name");
                    }
                    format!("{}\"p{number}\":{process}", comma(written == 0))
                }
                None => {
                    self.part = Part::End;
                    "}}".to_owned()
                }
            },
            Part::End => return None,
        };
        Some(piece.into_bytes())
    }
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
