//! The contract: for each kind of header that comes in, what must go out. The
//! service stands between a caller and a neighbor. The test is both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::{Json, Router};
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// How long a call or a span may take to come after the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The headers of a caller, and what they ask for.
struct Case {
    name: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// Whether the caller is sampled. `None` without a valid `traceparent`: the
    /// service then starts a trace.
    sampled: Option<bool>,
}

const CASES: [Case; 6] = [
    Case {
        name: "no header",
        headers: &[],
        sampled: None,
    },
    Case {
        name: "a sampled caller",
        headers: &[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )],
        sampled: Some(true),
    },
    Case {
        name: "a caller that is not sampled",
        headers: &[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        )],
        sampled: Some(false),
    },
    Case {
        name: "a flag of the future",
        headers: &[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
        )],
        sampled: Some(true),
    },
    Case {
        name: "a header that is cut off",
        headers: &[("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f0")],
        sampled: None,
    },
    Case {
        name: "tracestate and baggage",
        headers: &[
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("tracestate", "acme=1"),
            ("baggage", "tenant=acme"),
        ],
        sampled: Some(true),
    },
];

/// A list that can be waited on. It is emptied before each case.
type Received<T> = Arc<watch::Sender<Vec<T>>>;

/// Returns the list once `enough` is true of it, or as it is after [`PATIENCE`].
async fn when<T: Clone>(
    list: &Received<T>,
    enough: impl FnMut(&Vec<T>) -> bool,
) -> Vec<T> {
    let mut changes = list.subscribe();
    // If time runs out, the violations say what is missing.
    let _ = timeout(PATIENCE, changes.wait_for(enough)).await;
    list.borrow().clone()
}

/// The spans that have ended. Set it as the exporter of the service under test.
#[derive(Clone, Debug, Default)]
pub struct Spans(Received<SpanData>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.send_modify(|spans| spans.extend(batch));
        Ok(())
    }
}

/// The services that the service under test calls. It answers every request and
/// keeps the headers.
pub struct Neighbor {
    pub url: Url,
    calls: usize,
    received: Received<HeaderMap>,
}

impl Neighbor {
    /// Listens on a free port and gives `answer` to everything. `calls` is the
    /// number of calls that one request causes, with those that come after its
    /// answer. It is 0 for a leaf, which calls nobody.
    ///
    /// # Errors
    /// Fails when no port is free.
    pub async fn start(calls: usize, answer: Value) -> anyhow::Result<Neighbor> {
        let received = Received::default();
        let sender = Arc::clone(&received);
        let routes = Router::new().fallback(async move |headers: HeaderMap| {
            sender.send_modify(|all| all.push(headers));
            Json(answer)
        });
        let url = format!("http://{}", listen(routes).await?).parse()?;
        Ok(Neighbor {
            url,
            calls,
            received,
        })
    }
}

/// Serves `routes` on a free port.
///
/// # Errors
/// Fails when no port is free.
pub async fn listen(routes: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Sends `body` to the service at `url` once for each case. Returns the name of each
/// case and how the service violates the contract in it.
///
/// # Errors
/// Fails when the service doesn't answer, or answers with an error status.
pub async fn check(
    url: &Url,
    body: &Value,
    neighbor: &Neighbor,
    spans: &Spans,
) -> anyhow::Result<Vec<(&'static str, Vec<String>)>> {
    // Names as HTTP/1 clients in the field write them: `Traceparent`.
    let client = Client::builder().http1_title_case_headers().build()?;
    let mut results = Vec::new();
    for case in CASES {
        neighbor.received.send_replace(Vec::new());
        spans.0.send_replace(Vec::new());
        let mut request = client.post(url.clone()).json(body);
        for (name, value) in case.headers {
            request = request.header(*name, *value);
        }
        request.send().await?.error_for_status()?;
        let enough = |calls: &Vec<_>| calls.len() >= neighbor.calls;
        let calls = when(&neighbor.received, enough).await;
        let found = match neighbor.calls {
            0 => leaf_violations(&case, &calls, spans).await,
            _ => violations(&case, &calls, neighbor.calls, spans).await,
        };
        results.push((case.name, found));
    }
    Ok(results)
}

/// A valid `traceparent` that the service has sent.
struct Sent<'a> {
    trace: &'a str,
    parent: &'a str,
    flags: &'a str,
}

impl<'a> Sent<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Sent<'a>, String> {
        let values = headers.get_all("traceparent").iter();
        let values: Vec<&str> =
            values.filter_map(|value| value.to_str().ok()).collect();
        let [value] = values[..] else {
            return Err(format!("{} traceparent headers were sent", values.len()));
        };
        let parts: Vec<&str> = value.split('-').collect();
        let ["00", trace, parent, flags] = parts[..] else {
            return Err(format!("{value} is not a traceparent"));
        };
        Ok(Sent {
            trace,
            parent,
            flags,
        })
    }

    /// The lowest bit of the flags. Some SDKs don't pass on the others.
    fn sampled(&self) -> bool {
        u8::from_str_radix(self.flags, 16).is_ok_and(|flags| flags & 1 == 1)
    }

    fn is_from(&self, span: &SpanData) -> bool {
        span.span_context.span_id().to_string() == self.parent
    }
}

async fn violations(
    case: &Case,
    calls: &[HeaderMap],
    expected: usize,
    spans: &Spans,
) -> Vec<String> {
    let mut found = Vec::new();
    if calls.len() != expected {
        found.push(format!("{} calls were made, not {expected}", calls.len()));
    }
    let mut traces = Vec::new();
    for headers in calls {
        match Sent::read(headers) {
            Ok(sent) => {
                found.extend(call_violations(case, &sent, spans).await);
                traces.push(sent.trace);
            }
            Err(invalid) => found.push(invalid),
        }
        for name in ["tracestate", "baggage"] {
            let came = case.headers.iter().find(|(it, _)| *it == name);
            let value = headers.get(name).and_then(|it| it.to_str().ok());
            let value = value.filter(|it| !it.is_empty());
            if value != came.map(|(_, value)| *value) {
                found.push(format!("{name} is {value:?}, and not what came in"));
            }
        }
    }
    traces.dedup();
    if case.sampled.is_none() && traces.len() > 1 {
        found.push("the calls of one request are in several traces".to_owned());
    }
    found.dedup();
    found
}

async fn call_violations(
    case: &Case,
    sent: &Sent<'_>,
    spans: &Spans,
) -> Vec<String> {
    let mut found = Vec::new();
    match case.sampled {
        Some(_) if sent.trace != TRACE => {
            found.push("the trace is another".to_owned())
        }
        None if sent.trace == TRACE => {
            found.push("a broken header was believed".to_owned())
        }
        _ => {}
    }
    if sent.sampled() != case.sampled.unwrap_or(true) {
        found.push(format!("the flags are {}", sent.flags));
    }
    if sent.parent == CALLER {
        found.push("the parent is the caller, and not the service".to_owned());
    } else if sent.sampled() {
        // Each call has a CLIENT span of its own. It ends after its call, and in
        // spawned work after the answer.
        let ended = when(&spans.0, |spans| spans.iter().any(|it| sent.is_from(it)));
        let ended = ended.await;
        let call = ended.iter().find(|span| sent.is_from(span));
        if call.is_none_or(|span| span.span_kind != SpanKind::Client) {
            found.push("the parent is not the CLIENT span of the call".to_owned());
        }
    }
    found
}

/// Nothing goes out of a leaf, so its SERVER span has to show whose trace it is in.
async fn leaf_violations(
    case: &Case,
    calls: &[HeaderMap],
    spans: &Spans,
) -> Vec<String> {
    if !calls.is_empty() {
        return vec![format!("{} calls were made by a leaf", calls.len())];
    }
    if case.sampled == Some(false) {
        return Vec::new();
    }
    let is_server = |span: &SpanData| span.span_kind == SpanKind::Server;
    let ended = when(&spans.0, |spans| spans.iter().any(is_server)).await;
    let Some(server) = ended.iter().find(|span| is_server(span)) else {
        return vec!["no SERVER span has ended".to_owned()];
    };
    let trace = server.span_context.trace_id().to_string();
    let parent = server.parent_span_id.to_string();
    let violation = match case.sampled {
        Some(_) if trace != TRACE => "the trace is another",
        Some(_) if parent != CALLER => "the parent is not the caller",
        None if trace == TRACE => "a broken header was believed",
        _ => return Vec::new(),
    };
    vec![violation.to_owned()]
}

/// A request that the service of the tutorial accepts.
pub fn question() -> Value {
    json!({ "user_id": "user_1", "query": "What is a trace?" })
}
