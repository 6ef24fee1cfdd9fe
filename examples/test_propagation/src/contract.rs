//! The contract: for each kind of header that comes in, what must go out. The
//! service stands between a caller and a neighbor, which are both the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::http::HeaderMap;
use axum::{Json, Router};
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a caller sends.
struct Case {
    name: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// Whether a valid `traceparent` says that the caller is sampled; nothing where
    /// there is none, and the service has to begin a trace.
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

/// Whom the service calls: answers all requests, and remembers their headers.
pub struct Neighbor {
    pub url: Url,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Neighbor {
    /// Listens on a free port; `answer` is what it says to everything.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(answer: Value) -> anyhow::Result<Neighbor> {
        let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let remember = Arc::clone(&seen);
        let routes = Router::new().fallback(async move |headers: HeaderMap| {
            let mut all = remember.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(headers);
            Json(answer)
        });
        let url = format!("http://{}", listen(routes).await?).parse()?;
        Ok(Neighbor { url, seen })
    }
}

/// Serves `routes` on a free port.
///
/// # Errors
/// When there is none.
pub async fn listen(routes: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Asks the service at `url` once for each case, and returns the name of the case
/// with what is wrong in what `neighbor` was sent: nothing, where the contract is
/// kept. `spans` is where the service's spans go, at their end.
///
/// # Errors
/// When the service does not answer, or does not call `neighbor`.
pub async fn check(
    url: &Url,
    body: &Value,
    neighbor: &Neighbor,
    spans: &InMemorySpanExporter,
) -> anyhow::Result<Vec<(&'static str, Vec<String>)>> {
    // Names as HTTP/1 clients in the field write them: `Traceparent`.
    let client = Client::builder().http1_title_case_headers().build()?;
    let mut results = Vec::new();
    for case in CASES {
        spans.reset();
        let mut request = client.post(url.clone()).json(body);
        for (name, value) in case.headers {
            request = request.header(*name, *value);
        }
        request.send().await?.error_for_status()?;
        let mut seen = neighbor.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = seen.pop().context("the service has called nobody")?;
        let recorded = spans.get_finished_spans()?;
        results.push((case.name, violations(&case, &sent, &recorded)));
    }
    Ok(results)
}

fn violations(case: &Case, sent: &HeaderMap, spans: &[SpanData]) -> Vec<String> {
    let values: Vec<&str> = sent
        .get_all("traceparent")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let [value] = values[..] else {
        return vec![format!("{} traceparent headers were sent", values.len())];
    };
    let parts: Vec<&str> = value.split('-').collect();
    let ["00", trace, parent, flags] = parts[..] else {
        return vec![format!("{value} is no traceparent")];
    };
    let mut found = Vec::new();
    match case.sampled {
        Some(_) if trace != TRACE => found.push("the trace is another".to_owned()),
        None if trace == TRACE => {
            found.push("a broken header was believed".to_owned())
        }
        _ => {}
    }
    if parent == CALLER {
        found.push("the parent is the caller, and not the service".to_owned());
    }
    // The lowest bit. Of the others, some SDKs pass on none.
    let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    if sampled != case.sampled.unwrap_or(true) {
        found.push(format!("the flags are {flags}"));
    }
    let call = spans.iter().find(|span| span.span_kind == SpanKind::Client);
    match call {
        Some(call) if call.span_context.span_id().to_string() != parent => {
            found.push("the parent is not the CLIENT span of the call".to_owned());
        }
        None if sampled => found.push("the call has no CLIENT span".to_owned()),
        _ => {}
    }
    for name in ["tracestate", "baggage"] {
        let came = case.headers.iter().find(|(it, _)| *it == name);
        let value = sent.get(name).and_then(|it| it.to_str().ok());
        let value = value.filter(|it| !it.is_empty());
        if value != came.map(|(_, value)| *value) {
            found.push(format!("{name} is {value:?}, and not what came in"));
        }
    }
    found
}

/// A request that the service of the tutorial takes.
pub fn question() -> Value {
    json!({ "user_id": "user_1", "query": "What is a trace?" })
}
