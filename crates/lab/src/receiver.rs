//! OTLP over HTTP: `POST /v1/traces` in protobuf or JSON, plain, gzip or zstd. Logs and metrics are taken and not kept.
//!
//! The rules are those of <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use std::fmt::Display;
use std::io::Read;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flate2::read::MultiGzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use serde_json::json;

use crate::guard;
use crate::otlp;
use crate::span::Span;
use crate::store::Store;

/// The largest body that is read, in bytes, as it comes over the wire.
pub const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// The largest body after decompression, in bytes.
pub const UNPACKED_LIMIT: usize = 64 * 1024 * 1024;

/// The routes of the receiver, which adds what it reads to `store`.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/v1/traces", post(traces))
        // A service sends all three to one address: an error for these would fill its log.
        .route("/v1/logs", post(not_kept))
        .route("/v1/metrics", post(not_kept))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(guard::cors())
        .with_state(store)
}

/// Reads the request to its end, as an exporter expects, and says that all is well.
async fn not_kept(headers: HeaderMap, _body: Bytes) -> Response {
    match Encoding::of(&headers) {
        Some(encoding) => encoding.success(),
        None => unknown_encoding(),
    }
}

fn unknown_encoding() -> Response {
    let message = "Content-Type must be application/x-protobuf or application/json";
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response()
}

async fn traces(
    State(store): State<Store>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let Some(encoding) = Encoding::of(&headers) else {
        return unknown_encoding();
    };
    let spans = match body {
        Ok(body) => read(&headers, encoding, &body),
        Err(rejection) => Err(Refusal(rejection.status(), rejection.body_text())),
    };
    match spans {
        Ok(spans) => {
            store.add(spans);
            encoding.success()
        }
        Err(refusal) => encoding.failure(refusal),
    }
}

/// A status of 4xx, and the reason in one sentence.
struct Refusal(StatusCode, String);

fn read(headers: &HeaderMap, encoding: Encoding, body: &[u8]) -> Result<Vec<Span>, Refusal> {
    let unpacked;
    let body = match text(headers, CONTENT_ENCODING) {
        "" | "identity" => body,
        "gzip" => {
            unpacked = unpack("gzip", MultiGzDecoder::new(body))?;
            &unpacked
        }
        "zstd" => {
            let decoder = zstd::Decoder::new(body);
            let decoder = decoder.map_err(|error| not("zstd", error))?;
            unpacked = unpack("zstd", decoder)?;
            &unpacked
        }
        other => {
            let message =
                format!("Content-Encoding {other:?} is not supported: use gzip, zstd or none");
            return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let spans = match encoding {
        Encoding::Protobuf => otlp::from_protobuf(body),
        Encoding::Json => otlp::from_json(body),
    };
    spans.map_err(|reason| Refusal(StatusCode::BAD_REQUEST, reason))
}

fn not(encoding: &str, error: impl Display) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, format!("not {encoding}: {error}"))
}

fn unpack(encoding: &str, packed: impl Read) -> Result<Vec<u8>, Refusal> {
    let mut unpacked = Vec::new();
    packed
        .take(UNPACKED_LIMIT as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| not(encoding, error))?;
    if unpacked.len() > UNPACKED_LIMIT {
        let message = format!("the body unpacks to more than {UNPACKED_LIMIT} bytes");
        return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(unpacked)
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// How the request is written, and so the answer.
#[derive(Clone, Copy)]
enum Encoding {
    Protobuf,
    Json,
}

/// The error message of the OTLP specification, `google.rpc.Status`, without its details.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let media_type = text(headers, CONTENT_TYPE)
            .split(';')
            .next()
            .unwrap_or_default();
        match media_type.trim().to_ascii_lowercase().as_str() {
            "application/x-protobuf" => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    fn success(self) -> Response {
        match self {
            Encoding::Protobuf => {
                self.answer(ExportTraceServiceResponse::default().encode_to_vec())
            }
            Encoding::Json => self.answer("{}".into()),
        }
    }

    fn failure(self, Refusal(status, message): Refusal) -> Response {
        let body = match self {
            Encoding::Protobuf => Status {
                code: INVALID_ARGUMENT,
                message,
            }
            .encode_to_vec(),
            Encoding::Json => json!({ "code": INVALID_ARGUMENT, "message": message })
                .to_string()
                .into(),
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
