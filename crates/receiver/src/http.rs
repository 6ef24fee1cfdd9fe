//! Receives OTLP over HTTP: `POST /v1/traces` and `/v1/logs` in protobuf or JSON, uncompressed or with gzip, deflate or zstd.
//! Accepts metrics and keeps none. When a span or a log record exceeds a limit, only that one is rejected. The answer has the number
//! of those and the reason.
//!
//! Follows <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message;
use serde_json::json;

use crate::forward::{self, METRICS};
use crate::guard;
use crate::intake::{self, Encoding, Packed, Packing, Received, Refusal};
use crate::store::Store;
use traces::otlp::{Rejected, Signal};
use traces::proto::collector::{ExportTracePartialSuccess, ExportTraceServiceResponse};

/// The largest body in bytes, both compressed and uncompressed.
pub const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// Serves the receiver, which adds spans to `store`.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route(forward::path(Signal::Traces), post(traces))
        .route(forward::path(Signal::Logs), post(logs))
        // SDKs send all three signals to one address. Errors for metrics would fill their logs.
        .route(METRICS, post(metrics))
        .layer(guard::cors())
        .with_state(store)
}

/// Reads the whole request, as an exporter expects. Returns success.
async fn metrics(State(store): State<Store>, headers: HeaderMap, body: Body) -> Response {
    let encoding = Encoding::of(&headers);
    let read = match (encoding, store.forward()) {
        (Some(encoding), Some(queue)) => {
            let received = store.intake().receive(body, BODY_LIMIT).await;
            let packed = received.and_then(|received| Ok((received, packing(&headers)?)));
            packed.map(|(Received { bytes, .. }, packing)| {
                queue.push(METRICS, encoding, packing, &bytes);
            })
        }
        _ => store.intake().drop_body(body, BODY_LIMIT).await,
    };
    match (encoding, read) {
        // An empty answer is that of every signal.
        (Some(encoding), Ok(())) => encoding.success(Signal::Traces, None),
        (Some(encoding), Err(refusal)) => encoding.failure(&refusal),
        (None, _) => unknown_encoding(),
    }
}

const UNKNOWN_ENCODING: &str = "Content-Type must be application/x-protobuf or application/json";

fn unknown_encoding() -> Response {
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, UNKNOWN_ENCODING).into_response()
}

/// Counts a request of traces that was refused, or taken without some of its spans.
pub(crate) fn count(store: &Store, signal: Signal, result: &Result<Option<Rejected>, Refusal>) {
    match result {
        _ if signal != Signal::Traces => {}
        Err(refusal) => store.refuse(refusal),
        Ok(Some(rejected)) if rejected.items > 0 => store.refuse(&rejected.first),
        // Only values are left out.
        Ok(_) => {}
    }
}

async fn traces(State(store): State<Store>, headers: HeaderMap, body: Body) -> Response {
    receive(&store, &headers, Signal::Traces, body).await
}

async fn logs(State(store): State<Store>, headers: HeaderMap, body: Body) -> Response {
    receive(&store, &headers, Signal::Logs, body).await
}

async fn receive(store: &Store, headers: &HeaderMap, signal: Signal, body: Body) -> Response {
    let Some(encoding) = Encoding::of(headers) else {
        if signal == Signal::Traces {
            store.refuse(UNKNOWN_ENCODING);
        }
        // The exporter reads the answer when it has sent the body.
        let _ = store.intake().drop_body(body, BODY_LIMIT).await;
        return unknown_encoding();
    };
    let result = export(store, headers, encoding, signal, body).await;
    count(store, signal, &result);
    match result {
        Ok(rejected) => encoding.success(signal, rejected),
        Err(refusal) => encoding.failure(&refusal),
    }
}

async fn export(
    store: &Store,
    headers: &HeaderMap,
    encoding: Encoding,
    signal: Signal,
    body: Body,
) -> Result<Option<Rejected>, Refusal> {
    let received = store.intake().receive(body, BODY_LIMIT).await?;
    let packing = packing(headers)?;
    intake::take(store, Packed { received, packing, encoding, signal }, BODY_LIMIT).await
}

fn packing(headers: &HeaderMap) -> Result<Option<Packing>, Refusal> {
    Ok(match text(headers, CONTENT_ENCODING) {
        "" | "identity" => None,
        name => Some(Packing::named(name).ok_or_else(|| {
            Refusal::Unsupported(format!(
                "Content-Encoding {name:?} is not supported: use gzip, deflate, zstd or none"
            ))
        })?),
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The answer to a request that could be read: empty when everything was taken. That to a request of logs has the same fields.
pub fn partial_success(rejected: Option<Rejected>) -> ExportTraceServiceResponse {
    let partial = rejected.map(|rejected| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected.items).unwrap_or(i64::MAX),
        error_message: rejected.first.to_string(),
    });
    ExportTraceServiceResponse { partial_success: partial }
}

/// The body of an error in protobuf: `google.rpc.Status` without its details, as the OTLP specification requires.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// When to send a request again that couldn't be taken, in seconds.
const RETRY: &str = "1";

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Unreadable(_) | Refusal::BrokenOff(_) => StatusCode::BAD_REQUEST,
            Refusal::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::TooLarge(_) | Refusal::UnpacksTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Late(_) => StatusCode::REQUEST_TIMEOUT,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let media_type = text(headers, CONTENT_TYPE).split(';').next().unwrap_or_default();
        match media_type.trim().to_ascii_lowercase().as_str() {
            "application/x-protobuf" => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    fn success(self, signal: Signal, rejected: Option<Rejected>) -> Response {
        match self {
            Encoding::Protobuf => self.answer(partial_success(rejected).encode_to_vec()),
            Encoding::Json => {
                let name = match signal {
                    Signal::Traces => "rejectedSpans",
                    Signal::Logs => "rejectedLogRecords",
                };
                let partial = rejected.map(|rejected| {
                    let (items, reason) = (rejected.items.to_string(), rejected.first.to_string());
                    json!({ "partialSuccess": { name: items, "errorMessage": reason } })
                });
                self.answer(partial.unwrap_or(json!({})).to_string().into())
            }
        }
    }

    fn failure(self, refusal: &Refusal) -> Response {
        let (code, message) = (i32::from(refusal.code()), refusal.to_string());
        let body = match self {
            Encoding::Protobuf => RpcStatus { code, message }.encode_to_vec(),
            Encoding::Json => json!({ "code": code, "message": message }).to_string().into(),
        };
        let mut answer = (refusal.status(), self.answer(body)).into_response();
        if matches!(refusal, Refusal::Busy) {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY));
        }
        answer
    }

    fn answer(self, body: Vec<u8>) -> Response {
        ([(CONTENT_TYPE, self.media_type())], body).into_response()
    }
}
