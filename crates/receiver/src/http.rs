//! Receives OTLP over HTTP: `POST /v1/traces` in protobuf or JSON, uncompressed or with gzip, deflate or zstd. Accepts and
//! drops logs and metrics. When a span exceeds a limit, only that span is rejected. The answer has the number of rejected
//! spans and the reason.
//!
//! Follows <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use std::fmt::Display;
use std::io::Read;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use prost::Message;
use serde_json::json;
use tokio::task::JoinError;

use crate::guard;
use crate::store::Store;
use traces::otlp::{self, Batch, Rejected};
use traces::proto::collector::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use traces::span::Span;

/// The largest body in bytes, both compressed and uncompressed.
pub const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// Serves the receiver, which adds spans to `store`.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/v1/traces", post(traces))
        // SDKs send all three signals to one address. Errors for these two would fill their logs.
        .route("/v1/logs", post(accept_and_drop))
        .route("/v1/metrics", post(accept_and_drop))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(guard::cors())
        .with_state(store)
}

/// Reads the whole request, as an exporter expects. Returns success.
async fn accept_and_drop(headers: HeaderMap, _body: Bytes) -> Response {
    match Encoding::of(&headers) {
        Some(encoding) => encoding.success(None),
        None => unknown_encoding(),
    }
}

const UNKNOWN_ENCODING: &str = "Content-Type must be application/x-protobuf or application/json";

fn unknown_encoding() -> Response {
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, UNKNOWN_ENCODING).into_response()
}

/// Counts a request that was taken without some of its spans.
pub(crate) fn count(store: &Store, rejected: Option<&Rejected>) {
    // Otherwise only values are left out.
    if let Some(rejected) = rejected.filter(|it| it.spans > 0) {
        store.refuse(&rejected.first);
    }
}

async fn traces(
    State(store): State<Store>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let Some(encoding) = Encoding::of(&headers) else {
        store.refuse(UNKNOWN_ENCODING);
        return unknown_encoding();
    };
    let outcome = match body {
        Ok(body) => decode_and_add(store.clone(), headers, encoding, body).await,
        Err(rejection) => {
            let (status, reason) = (rejection.status(), rejection.body_text());
            let limit = format!("{reason}: a body has at most {BODY_LIMIT} bytes");
            let too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
            Err(Refusal(status, if too_large { limit } else { reason }))
        }
    };
    match outcome {
        Ok(rejected) => {
            count(&store, rejected.as_ref());
            encoding.success(rejected)
        }
        Err(refusal) => {
            store.refuse(&refusal.1);
            encoding.failure(refusal)
        }
    }
}

/// Adds spans to the store. If the store writes a `--save` file, does this on the blocking pool, because the disk may be slow.
///
/// # Errors
/// Fails when the blocking task panics or is cancelled.
pub(crate) async fn add(store: Store, spans: Vec<Span>) -> Result<(), JoinError> {
    if store.is_recorded() {
        return tokio::task::spawn_blocking(move || store.add(spans)).await;
    }
    store.add(spans);
    Ok(())
}

/// The largest body, in bytes, that is decoded without the blocking pool.
const INLINE_LIMIT: usize = 256 * 1024;

/// Decodes a body and adds its spans to the store. Returns the spans that were rejected. Large or compressed bodies are
/// decoded on the blocking pool so that they don't delay other requests.
async fn decode_and_add(
    store: Store,
    headers: HeaderMap,
    encoding: Encoding,
    body: Bytes,
) -> Result<Option<Rejected>, Refusal> {
    let compressed = headers.contains_key(CONTENT_ENCODING);
    let slow = compressed || body.len() > INLINE_LIMIT || store.is_recorded();
    let work = move || {
        let batch = read(&headers, encoding, body)?;
        store.add(batch.spans);
        Ok(batch.rejected)
    };
    if !slow {
        return work();
    }
    let cut_short =
        |error: JoinError| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    tokio::task::spawn_blocking(work).await.map_err(cut_short)?
}

/// The status of an error and its reason in one sentence.
struct Refusal(StatusCode, String);

fn read(headers: &HeaderMap, encoding: Encoding, body: Bytes) -> Result<Batch, Refusal> {
    let body = match text(headers, CONTENT_ENCODING) {
        "" | "identity" => body,
        "gzip" => unpack("gzip", MultiGzDecoder::new(&body[..]))?,
        "deflate" => unpack("deflate", ZlibDecoder::new(&body[..]))?,
        "zstd" => {
            let decoder = zstd::Decoder::new(&body[..]);
            unpack("zstd", decoder.map_err(|error| not("zstd", error))?)?
        }
        other => {
            let message = format!(
                "Content-Encoding {other:?} is not supported: use gzip, deflate, zstd or none"
            );
            return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let batch = match encoding {
        Encoding::Protobuf => otlp::from_protobuf(body),
        Encoding::Json => otlp::from_json(&body),
    };
    batch.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

fn not(encoding: &str, error: impl Display) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, format!("not {encoding}: {error}"))
}

fn unpack(encoding: &str, packed: impl Read) -> Result<Bytes, Refusal> {
    let mut unpacked = Vec::new();
    packed
        .take(BODY_LIMIT as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| not(encoding, error))?;
    if unpacked.len() > BODY_LIMIT {
        let message = format!("the body unpacks to more than {BODY_LIMIT} bytes");
        return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(unpacked.into())
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The answer to a request that could be read: empty when every span was taken.
pub fn partial_success(rejected: Option<Rejected>) -> ExportTraceServiceResponse {
    let partial = rejected.map(|rejected| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected.spans).unwrap_or(i64::MAX),
        error_message: rejected.first.to_string(),
    });
    ExportTraceServiceResponse { partial_success: partial }
}

/// The encoding of a request and of its answer.
#[derive(Clone, Copy)]
enum Encoding {
    Protobuf,
    Json,
}

/// The body of an error in protobuf: `google.rpc.Status` without its details, as the OTLP specification requires.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The code `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let media_type = text(headers, CONTENT_TYPE).split(';').next().unwrap_or_default();
        match media_type.trim().to_ascii_lowercase().as_str() {
            "application/x-protobuf" => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    fn success(self, rejected: Option<Rejected>) -> Response {
        match self {
            Encoding::Protobuf => self.answer(partial_success(rejected).encode_to_vec()),
            Encoding::Json => {
                let partial = rejected.map(|rejected| {
                    let (spans, reason) = (rejected.spans.to_string(), rejected.first.to_string());
                    json!({ "partialSuccess": { "rejectedSpans": spans, "errorMessage": reason } })
                });
                self.answer(partial.unwrap_or(json!({})).to_string().into())
            }
        }
    }

    fn failure(self, Refusal(status, message): Refusal) -> Response {
        let body = match self {
            Encoding::Protobuf => RpcStatus { code: INVALID_ARGUMENT, message }.encode_to_vec(),
            Encoding::Json => {
                json!({ "code": INVALID_ARGUMENT, "message": message }).to_string().into()
            }
        };
        (status, self.answer(body)).into_response()
    }

    fn answer(self, body: Vec<u8>) -> Response {
        let media_type = match self {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        ([(CONTENT_TYPE, media_type)], body).into_response()
    }
}
