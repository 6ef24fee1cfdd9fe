//! One request through the three services with a fault set on one hop: what the fault lab of the book shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use maud::{Markup, html};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as Proto, Status};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::case::Case;
use crate::diagnose::answered_by;
use crate::list::List;
use crate::report::{self, Links};
use crate::request;
use crate::span::{Source, Span, TraceId};
use crate::store::Store;
use crate::waterfall::{count, picture};
use crate::wire::{Fault, Hop, Wire, now, random_traceparent};

/// How long the spans of a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who the client says it is.
const SERVICE: &str = "fault-lab";

/// What the client sends besides its `traceparent`.
const TRACESTATE: &str = "client=fault-lab";
const BAGGAGE: &str = "session.id=42";

/// A fault on a hop; no fault to see what is right.
#[derive(Debug, Clone, Copy)]
pub struct Experiment {
    pub hop: Hop,
    pub fault: Option<Fault>,
}

impl Experiment {
    /// Sends one request to `gateway`, as a client that is traced itself: its CLIENT span is added to `store`. The
    /// faults that are set do not count meanwhile. Returns the id of the client's trace.
    ///
    /// # Errors
    /// When no request can be made.
    pub async fn send(
        self,
        gateway: SocketAddr,
        wire: &Wire,
        store: &Store,
    ) -> anyhow::Result<TraceId> {
        let traceparent = random_traceparent();
        let url = format!("http://{gateway}/api/query");
        let client = reqwest::Client::builder().no_proxy().build()?;
        let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
        let request = client
            .post(&url)
            .json(&query)
            .header("traceparent", traceparent.to_string());
        let request = request
            .header("tracestate", TRACESTATE)
            .header("baggage", BAGGAGE);

        let set = wire.only(self.hop, self.fault).await;
        let start = now();
        let answer = request.send().await;
        let end = now();
        drop(set);

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
            Status {
                code: StatusCode::Error.into(),
                message,
            }
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
        let resource = Resource {
            attributes: vec![text("service.name", SERVICE)],
            ..Resource::default()
        };
        let scope = InstrumentationScope {
            name: "lab".to_owned(),
            ..InstrumentationScope::default()
        };
        let span = Span::new(span, Arc::new(Source { resource, scope }));
        let span = span.context("the client's span is refused")?;
        store.add(vec![span]);
        Ok(traceparent.trace_id)
    }

    /// Waits until the spans of the request are there, and returns its case.
    ///
    /// # Errors
    /// When it has gone from the store already.
    pub async fn settled(id: TraceId, list: &List, wire: &Wire) -> anyhow::Result<Case> {
        let mut changes = list.store.changes();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let case = request::case(list, wire, id).context("its trace is not here any more")?;
            let complete = case.wire.iter().all(|exchange| {
                let asked = exchange.delivered.is_some() && exchange.status.is_some();
                let recorded = exchange.received().is_none_or(|it| it.sampled);
                !asked || !recorded || answered_by(exchange, &case.trees).is_some()
            });
            if complete || timeout_at(deadline, changes.changed()).await.is_err() {
                return Ok(case);
            }
        }
    }

    /// What happened, as the page of the book shows it: the sentence, the traces, the headers, the findings.
    pub fn figure(self, case: &Case, links: &Links) -> Markup {
        let status = case
            .wire
            .iter()
            .find(|it| it.hop == "client-gateway")
            .and_then(|it| it.status);
        let answer = status.map_or_else(
            || "no answer".to_owned(),
            |status| format!("status {status}"),
        );
        let traces = count(case.trees.len(), "trace");
        html! {
            p.outcome data-traces=(case.trees.len()) { b { (traces) ", " (answer) "." } " " @match self.fault {
                Some(fault) => (fault.happens(self.hop)),
                None => "Every hop passes the headers on as they came.",
            } }
            @for tree in &case.trees { (picture(tree)) }
            (report::wire(&case.wire, false))
            p { "What " code { "diagnose" } " says:" }
            (report::findings(&case.findings(), links))
        }
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
