//! The fault lab of the book: sends one request through the three services with a fault on one hop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use lab::proto::common::any_value::Value;
use lab::proto::common::{AnyValue, InstrumentationScope, KeyValue};
use lab::proto::resource::Resource;
use lab::proto::trace::span::SpanKind;
use lab::proto::trace::status::StatusCode as SpanStatus;
use lab::proto::trace::{Span as Proto, Status};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use lab::case::Case;
use lab::diagnose::answered_by;
use lab::list::List;
use lab::report::{self, Links};
use lab::span::{Source, Span, TraceId};
use lab::store::Store;
use lab::waterfall::{count, picture};
use lab::wire::{Fault, UnknownHop, Wire, now, random_traceparent};
use lab::{request, viewer};

use crate::hops::{self, HOPS, Hop};

/// How long the spans of a request may take to arrive.
const SPAN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the answer to a request may take. Other experiments wait until then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The `service.name` of the client.
const SERVICE: &str = "fault-lab";

/// The headers that the client sends in addition to `traceparent`.
const TRACESTATE: &str = "client=fault-lab";
const BAGGAGE: &str = "session.id=42";

/// The error message of a course without services.
const NO_SERVICES: &str = "this lab runs no services to break: in a clone of the book, `cargo run` without `view` starts three";

/// A request with a fault on one hop. `None` sends a control request without a fault.
#[derive(Debug, Clone, Copy)]
pub struct Experiment {
    pub hop: Hop,
    pub fault: Option<Fault>,
}

impl Experiment {
    /// Sends one request to `gateway` and adds a CLIENT span for it to `store`, as a traced client would. Until the answer
    /// arrives, this experiment's fault replaces all faults that are set. Returns the id of the client's trace.
    ///
    /// # Errors
    /// Fails when the HTTP client or the span can't be created. A request that fails is an error on the span.
    pub async fn send(
        self,
        gateway: SocketAddr,
        wire: &Wire,
        store: &Store,
    ) -> anyhow::Result<TraceId> {
        let traceparent = random_traceparent();
        let url = format!("http://{gateway}/api/query");
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build()?;
        let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
        let request = client.post(&url).json(&query).header("traceparent", traceparent.to_string());
        let request = request.header("tracestate", TRACESTATE).header("baggage", BAGGAGE);

        let guard = wire.begin_experiment(self.hop.name, self.fault).await;
        let start = now();
        let answer = request.send().await;
        let end = now();
        drop(guard);

        let mut attributes = vec![
            text("http.request.method", "POST"),
            text("url.full", &url),
            text("server.address", &gateway.ip().to_string()),
            number("server.port", gateway.port().into()),
        ];
        let error = match answer.map(|answer| answer.status().as_u16()) {
            Ok(status) => {
                attributes.push(number("http.response.status_code", status.into()));
                (status >= 400).then(|| (status.to_string(), String::new()))
            }
            Err(_) => Some(("connection".to_owned(), "no answer came".to_owned())),
        };
        let status = error.map(|(error_type, message)| {
            attributes.push(text("error.type", &error_type));
            Status { code: SpanStatus::Error.into(), message }
        });
        let span = Proto {
            trace_id: traceparent.trace_id.0.to_vec(),
            span_id: traceparent.parent_id.0.to_vec(),
            trace_state: TRACESTATE.to_owned(),
            name: "POST /api/query".to_owned(),
            kind: SpanKind::Client.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes,
            status,
            ..Proto::default()
        };
        let resource =
            Resource { attributes: vec![text("service.name", SERVICE)], ..Resource::default() };
        let scope =
            InstrumentationScope { name: "lab".to_owned(), ..InstrumentationScope::default() };
        let source = Source { resource, scope, ..Source::default() };
        let span = Span::new(span, Arc::new(source));
        let span = span.context("the client's span is refused")?;
        store.add(vec![span]);
        Ok(traceparent.trace_id)
    }

    /// Waits at most five seconds for the spans of the request. Returns its case.
    ///
    /// # Errors
    /// Fails when the store has already dropped the trace.
    pub async fn wait_for_case(id: TraceId, list: &List, wire: &Wire) -> anyhow::Result<Case> {
        let mut changes = list.store.changes();
        let deadline = Instant::now() + SPAN_TIMEOUT;
        loop {
            let (list, wire) = (list.clone(), wire.clone());
            let case = spawn_blocking(move || request::case(&list, &wire, id)).await?;
            let case = case.context("its trace is not here any more")?;
            let complete = case.wire.iter().all(|exchange| {
                let was_answered = exchange.delivered.is_some() && exchange.status.is_some();
                let is_sampled = exchange.received().is_none_or(|it| it.sampled);
                !was_answered || !is_sampled || answered_by(exchange, &case.trees).is_some()
            });
            if complete || timeout_at(deadline, changes.changed()).await.is_err() {
                return Ok(case);
            }
        }
    }

    /// Renders the outcome as the book shows it: a sentence, the traces, the headers and the findings.
    pub fn figure(self, case: &Case, links: &Links) -> Markup {
        let status = case.wire.iter().find(|it| it.hop == HOPS[0].name).and_then(|it| it.status);
        let answer =
            status.map_or_else(|| "no answer".to_owned(), |status| format!("status {status}"));
        let traces = count(case.trees.len(), "trace");
        html! {
            p.outcome data-traces=(case.trees.len()) { b { (traces) ", " (answer) "." } " " @match self.fault {
                Some(fault) => (hops::outcome(fault, self.hop)),
                None => "Every hop passes the headers on as they came.",
            } }
            @for tree in &case.trees { (picture(tree)) }
            (report::wire(&case.wire, false))
            p { "What " code { "diagnose" } " says:" }
            (report::findings(case, links))
        }
    }
}

/// Serves `POST /wire/try`, which sends one request with a fault and returns its figure as HTML.
pub fn routes(store: Store, wire: Wire) -> Router {
    Router::new().route("/wire/try", post(answer)).with_state((List::new(store), wire))
}

/// The body of `POST /wire/try`: the names of a hop and a fault.
#[derive(Deserialize)]
struct ExperimentForm {
    hop: String,
    #[serde(default)]
    fault: Option<String>,
}

async fn answer(
    State((list, wire)): State<(List, Wire)>,
    Json(form): Json<ExperimentForm>,
) -> Response {
    let refused = |status: StatusCode, problem: String| (status, problem + "\n").into_response();
    let Some(gateway) = wire.address(HOPS[0].name) else {
        return refused(StatusCode::CONFLICT, NO_SERVICES.to_owned());
    };
    let Some(hop) = HOPS.into_iter().find(|hop| hop.name == form.hop) else {
        let known = HOPS.map(|hop| hop.name.to_owned()).to_vec();
        let unknown = UnknownHop { name: form.hop, known };
        return refused(StatusCode::NOT_FOUND, unknown.to_string());
    };
    let fault = form.fault.filter(|name| !name.is_empty());
    let fault = match fault.map(|name| Fault::named(&name)).transpose() {
        Ok(fault) => fault,
        Err(unknown) => return refused(StatusCode::NOT_FOUND, unknown.to_string()),
    };
    let experiment = Experiment { hop, fault };
    let outcome = async {
        let id = experiment.send(gateway, &wire, &list.store).await?;
        Experiment::wait_for_case(id, &list, &wire).await
    };
    match outcome.await {
        Ok(case) => {
            let span = |place| Some(viewer::span_address(place));
            let links = Links { book: Some("/"), span: &span };
            Html(experiment.figure(&case, &links).into_string()).into_response()
        }
        Err(error) => refused(StatusCode::BAD_GATEWAY, format!("{error:#}")),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
