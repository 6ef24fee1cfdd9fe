//! The sources of spans for `expect`: a running lab, and a backend with Jaeger's query API. The crate `trace_expect` has a
//! third one, its own receiver.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use trace_expect::Source;
use traces::exchange::Exchange;
use traces::expect::Arrived;
use traces::log::LogRecord;
use traces::traceparent::Traceparent;

use crate::client::{self, Lab};
use crate::http::{self, Answer, Url};
use crate::list::Fields;
use crate::read::{self, Unreadable};
use crate::shared;
use crate::span::{Span, TraceId};

/// How often a lab is asked.
const LAB_INTERVAL: Duration = Duration::from_millis(100);

/// How often a backend is asked.
const JAEGER_INTERVAL: Duration = Duration::from_millis(250);

/// How long a backend may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The path that only the query API has.
const SERVICES: &str = "/api/services";

/// The most traces of one service that a backend is asked for.
const SEARCH_LIMIT: usize = 200;

/// The most other traces that are read from a lab.
const OTHERS_LIMIT: usize = 200;

/// A running lab as a source for one request.
pub struct RunningLab {
    lab: Lab,
    /// The traces that were there before.
    known: HashSet<TraceId>,
}

impl RunningLab {
    /// Connects to a lab.
    ///
    /// # Errors
    /// None answers.
    pub async fn new(lab: Lab) -> Result<Self, client::Error> {
        let known = lab.traces(&Fields::default()).await?;
        Ok(RunningLab { known: known.iter().map(|it| it.trace_id).collect(), lab })
    }

    /// Adds the span of the caller, which nobody else exports: without it, the lab would report a parent that never arrived.
    ///
    /// # Errors
    /// The lab doesn't answer any more.
    pub async fn add_caller(&self, caller: &Caller) -> Result<(), client::Error> {
        self.lab.import(caller.to_otlp().to_string()).await
    }
}

/// The caller of a request, as a span of the service `lab expect`.
#[derive(Debug)]
pub struct Caller {
    /// The trace, and the id of the span.
    pub sent: Traceparent,
    pub name: String,
    /// The URL of the request. A command has none, because it may send several requests.
    pub url: Option<Url>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// When the request was sent and when its answer had come, in nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
}

impl Caller {
    /// Writes the span by the conventions for HTTP clients.
    fn to_otlp(&self) -> Value {
        const INTERNAL: u8 = 1;
        const CLIENT: u8 = 3;
        const ERROR: u8 = 2;
        let Caller { sent, name, url, status, start, end } = self;
        let text = |key: &str, text: &str| json!({ "key": key, "value": { "stringValue": text } });
        let number =
            |key: &str, number: u16| json!({ "key": key, "value": { "intValue": number } });
        let mut attributes = Vec::new();
        if let Some(Url { authority, path }) = url {
            let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
            attributes.push(text("http.request.method", name));
            // A query may have secrets.
            attributes.push(text("url.full", &format!("http://{authority}{}", path.path())));
            attributes.push(text("server.address", host));
            attributes.extend(port.parse().map(|port| number("server.port", port)));
        }
        attributes.extend(status.map(|status| number("http.response.status_code", status)));
        let failed = status.filter(|status| *status >= 400);
        attributes.extend(failed.map(|status| text("error.type", &status.to_string())));
        json!({ "resourceSpans": [{
            "resource": { "attributes": [text("service.name", "lab expect")] },
            "scopeSpans": [{ "scope": { "name": "lab expect" }, "spans": [{
                "traceId": sent.trace_id, "spanId": sent.parent_id, "name": name,
                "kind": if url.is_some() { CLIENT } else { INTERNAL },
                "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
                "attributes": attributes, "status": failed.map(|_| json!({ "code": ERROR })),
            }] }],
        }] })
    }
}

impl Source for RunningLab {
    type Error = client::Error;

    async fn arrived(&mut self, trace: TraceId) -> Result<Arrived, client::Error> {
        match self.lab.document(trace, "linked.json").await? {
            Some(json) => Ok(arrived(&json, trace)?),
            None => Ok(Arrived::default()),
        }
    }

    async fn changed(&mut self) {
        tokio::time::sleep(LAB_INTERVAL).await;
    }

    async fn logs(&mut self, trace: TraceId) -> Result<Vec<Arc<LogRecord>>, client::Error> {
        match self.lab.document(trace, "json").await? {
            Some(json) => Ok(read::read(&json)?.logs.into_iter().map(Arc::new).collect()),
            None => Ok(Vec::new()),
        }
    }

    async fn others(&mut self, trace: TraceId) -> Result<Vec<Vec<Arc<Span>>>, client::Error> {
        let linked = self.arrived(trace).await?.joined;
        let linked: HashSet<TraceId> =
            linked.iter().filter_map(|spans| Some(spans.first()?.trace_id)).collect();
        let all = self.lab.traces(&Fields::default()).await?;
        let ids = all.iter().map(|it| it.trace_id);
        let others =
            ids.filter(|id| *id != trace && !linked.contains(id) && !self.known.contains(id));
        let mut found = Vec::new();
        for id in others.take(OTHERS_LIMIT) {
            if let Some(json) = self.lab.document(id, "json").await? {
                found.extend(by_trace(&json)?.remove(&id));
            }
        }
        Ok(found)
    }

    async fn exchanges(&mut self, trace: TraceId) -> Result<Vec<Exchange>, client::Error> {
        let case = self.lab.case(Some(&trace.to_string())).await?;
        Ok(case.map(|(_, case)| case.wire).unwrap_or_default())
    }
}

/// A backend with Jaeger's query API as a source for one request.
pub struct Jaeger {
    /// `HOST:PORT`, and the path before those of the API.
    authority: String,
    base: String,
    /// The services that the file names: the search needs one.
    services: Vec<String>,
    /// Microseconds since 1970.
    start: u128,
    /// The other traces that the last search has found.
    others: Vec<Vec<Arc<Span>>>,
}

/// The reasons why a backend can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum JaegerError {
    #[error(
        "nothing answers at {authority} (--jaeger): is it the address of the query API, such as http://localhost:16686?"
    )]
    NoAnswer {
        authority: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{authority} (--jaeger) answers {status} to {path}: is it the address of Jaeger's query API?"
    )]
    Status { authority: String, status: StatusCode, path: String },
    #[error("the answer of {authority} (--jaeger) can't be read")]
    Unreadable {
        authority: String,
        #[source]
        source: Box<Unreadable>,
    },
}

impl Jaeger {
    /// Creates a source for a request that begins now.
    ///
    /// # Errors
    /// Another server than Jaeger's query API answers there.
    pub async fn new(url: Url, services: Vec<String>) -> Result<Self, JaegerError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The clock of another machine may be behind.
        let start = now.saturating_sub(Duration::from_secs(1)).as_micros();
        let base = url.path.path().trim_end_matches('/').to_owned();
        let authority = url.authority;
        let jaeger = Jaeger { authority, base, services, start, others: Vec::new() };
        match jaeger.get(SERVICES).await? {
            Some(_) => Ok(jaeger),
            None => Err(JaegerError::Status {
                authority: jaeger.authority,
                status: StatusCode::NOT_FOUND,
                path: SERVICES.to_owned(),
            }),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Answer>, JaegerError> {
        let Jaeger { authority, base, .. } = self;
        let path = format!("{base}{path}");
        let request = Request::get(&path).body(Body::empty());
        let answer = http::send(authority, request, TIMEOUT)
            .await
            .map_err(|source| JaegerError::NoAnswer { authority: authority.clone(), source })?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(answer)),
            status => Err(JaegerError::Status { authority: authority.clone(), status, path }),
        }
    }

    fn spans(&self, answer: &Answer) -> Result<BTreeMap<TraceId, Vec<Arc<Span>>>, JaegerError> {
        by_trace(&answer.body).map_err(|source| JaegerError::Unreadable {
            authority: self.authority.clone(),
            source: Box::new(source),
        })
    }
}

impl Source for Jaeger {
    type Error = JaegerError;

    async fn arrived(&mut self, trace: TraceId) -> Result<Arrived, JaegerError> {
        let own = match self.get(&format!("/api/traces/{trace}")).await? {
            Some(answer) => self.spans(&answer)?.remove(&trace).unwrap_or_default(),
            None => Vec::new(),
        };
        let mut found: BTreeMap<TraceId, Vec<Arc<Span>>> = BTreeMap::new();
        for service in &self.services {
            let query = serde_urlencoded::to_string([
                ("service", service.as_str()),
                ("start", &self.start.to_string()),
                ("limit", &SEARCH_LIMIT.to_string()),
            ]);
            let path = format!("/api/traces?{}", query.unwrap_or_default());
            if let Some(answer) = self.get(&path).await? {
                found.extend(self.spans(&answer)?);
            }
        }
        found.remove(&trace);
        let is_linked = |spans: &Vec<Arc<Span>>| {
            spans.iter().any(|span| span.links.iter().any(|(to, _)| *to == trace))
        };
        let (joined, others) = found.into_values().partition(is_linked);
        self.others = others;
        Ok(Arrived { trace: own, joined })
    }

    async fn changed(&mut self) {
        tokio::time::sleep(JAEGER_INTERVAL).await;
    }

    async fn others(&mut self, _: TraceId) -> Result<Vec<Vec<Arc<Span>>>, JaegerError> {
        Ok(self.others.clone())
    }
}

fn arrived(json: &[u8], trace: TraceId) -> Result<Arrived, Unreadable> {
    let mut traces = by_trace(json)?;
    let own = traces.remove(&trace).unwrap_or_default();
    Ok(Arrived { trace: own, joined: traces.into_values().collect() })
}

/// The spans of a document by their traces; none where it is empty.
fn by_trace(document: &[u8]) -> Result<BTreeMap<TraceId, Vec<Arc<Span>>>, Unreadable> {
    /// The answer of Jaeger's query API.
    #[derive(Deserialize)]
    struct Found {
        data: Vec<IgnoredAny>,
    }
    let mut traces: BTreeMap<TraceId, shared::Trace> = BTreeMap::new();
    if serde_json::from_slice::<Found>(document).is_ok_and(|found| found.data.is_empty()) {
        return Ok(BTreeMap::new());
    }
    match read::read(document) {
        Ok(contents) => {
            for span in contents.spans {
                traces.entry(span.trace_id).or_default().add(Arc::new(span));
            }
        }
        Err(Unreadable::Empty | Unreadable::NoSpans { .. }) => {}
        Err(unreadable) => return Err(unreadable),
    }
    Ok(traces.into_iter().map(|(id, trace)| (id, trace.spans())).collect())
}
