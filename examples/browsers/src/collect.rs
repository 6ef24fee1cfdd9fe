//! Takes spans from browsers and forwards them: a few, small, and as one service.

// ANCHOR: code
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use reqwest::Client;
use serde_json::{Value, json};

/// The longest export, in bytes. It bounds the number and the length of all values.
const BODY_LIMIT: usize = 64 * 1024;

/// The most spans in one export.
const SPAN_LIMIT: usize = 64;

/// The most exports in a second, from all browsers together.
const RATE_LIMIT: u32 = 50;

/// The service that every span from a browser belongs to.
const SERVICE: &str = "web-page";

const TIMEOUT: Duration = Duration::from_secs(2);

struct Collect {
    client: Client,
    /// The URL that spans are posted to.
    receiver: String,
    window: Mutex<Window>,
}

/// The exports of the current second.
struct Window {
    start: Instant,
    exports: u32,
}

/// Takes OTLP as JSON at `/v1/traces` and forwards it to `receiver`, an OTLP/HTTP
/// endpoint such as `http://localhost:4318`.
pub fn routes(receiver: &str) -> Router {
    let collect = Collect {
        client: Client::new(),
        receiver: format!("{receiver}/v1/traces"),
        window: Mutex::new(Window {
            start: Instant::now(),
            exports: 0,
        }),
    };
    Router::new()
        .route("/v1/traces", post(export))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::new(collect))
}

async fn export(
    State(collect): State<Arc<Collect>>,
    Json(request): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    if !collect.window().admit(Instant::now()) {
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    let accepted = accept(request).ok_or(StatusCode::BAD_REQUEST)?;
    let sent = collect
        .client
        .post(&collect.receiver)
        .timeout(TIMEOUT)
        .json(&accepted)
        .send()
        .await;
    match sent {
        Ok(answer) if answer.status().is_success() => Ok(Json(json!({}))),
        _ => Err(StatusCode::BAD_GATEWAY),
    }
}

/// Takes the spans out of a request and puts them below our own resource, so that
/// no browser can pretend to be another service. Returns `None` without spans, or
/// with more than [`SPAN_LIMIT`].
fn accept(request: Value) -> Option<Value> {
    let resources = array(request, "resourceSpans");
    let scopes = resources.flat_map(|resource| array(resource, "scopeSpans"));
    let spans: Vec<Value> = scopes.flat_map(|scope| array(scope, "spans")).collect();
    if !(1..=SPAN_LIMIT).contains(&spans.len()) {
        return None;
    }
    let name = json!({ "key": "service.name", "value": { "stringValue": SERVICE } });
    Some(json!({ "resourceSpans": [{
        "resource": { "attributes": [name] },
        "scopeSpans": [{ "spans": spans }],
    }] }))
}

/// The values in the array `key`; none if there is no such array.
fn array(mut value: Value, key: &str) -> impl Iterator<Item = Value> + use<> {
    let array = match value.get_mut(key).map(Value::take) {
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    };
    array.into_iter()
}

impl Collect {
    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Counts an export. Returns false if there were too many in this second.
    fn admit(&mut self, now: Instant) -> bool {
        if now.duration_since(self.start) >= Duration::from_secs(1) {
            *self = Window {
                start: now,
                exports: 0,
            };
        }
        self.exports += 1;
        self.exports <= RATE_LIMIT
    }
}
// ANCHOR_END: code

#[test]
fn a_second_admits_no_more_than_the_limit() {
    let start = Instant::now();
    let mut window = Window { start, exports: 0 };
    let admitted = (0..2 * RATE_LIMIT).filter(|_| window.admit(start)).count();
    assert_eq!(admitted, RATE_LIMIT as usize);
    assert!(window.admit(start + Duration::from_secs(1)));
}

#[test]
fn a_browser_exports_as_one_service_and_a_few_spans() {
    let request = |key: &str, spans: usize| {
        let name =
            json!({ "key": "service.name", "value": { "stringValue": "bank" } });
        json!({ key: [{
            "resource": { "attributes": [name] },
            "scopeSpans": [{ "spans": vec![json!({}); spans] }],
        }] })
    };
    let few = accept(request("resourceSpans", SPAN_LIMIT)).expect("it is accepted");
    assert!(!few.to_string().contains("bank") && few.to_string().contains(SERVICE));
    let odd = [
        json!(null),
        json!([]),
        json!({}),
        json!({ "resourceSpans": [1] }),
    ];
    let other = request("resource_spans", 1);
    let many = request("resourceSpans", SPAN_LIMIT + 1);
    for request in odd.into_iter().chain([other, many]) {
        assert!(accept(request.clone()).is_none(), "{request}");
    }
}
