//! Receives OTLP over gRPC. [`crate::http`] does the same over HTTP.
//!
//! Follows <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>. Reads the frames of gRPC itself, so that a message is unpacked and
//! decoded within the limits of [`intake`] and not by the threads that answer other requests.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::{Code, Status};

use crate::forward::METRICS;
use crate::http::{count, partial_success};
use crate::intake::{self, Encoding, Packed, Packing, Received, Refusal};
use crate::store::Store;
use traces::otlp::{Rejected, Signal};

/// The largest message in bytes, both compressed and uncompressed. The OpenTelemetry Collector has the same limit.
pub const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// The length of what precedes a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Serves the three services of OTLP. Adds spans and log records to `store`; accepts metrics and keeps none.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(traces))
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", post(logs))
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", post(metrics))
        .fallback(async || refused(Status::unimplemented("")))
        .with_state(store)
}

async fn traces(State(store): State<Store>, headers: HeaderMap, body: Body) -> Response {
    receive(&store, &headers, Signal::Traces, body).await
}

async fn logs(State(store): State<Store>, headers: HeaderMap, body: Body) -> Response {
    receive(&store, &headers, Signal::Logs, body).await
}

async fn receive(store: &Store, headers: &HeaderMap, signal: Signal, body: Body) -> Response {
    let result = export(store, headers, signal, body).await;
    count(store, signal, &result);
    match result {
        Ok(rejected) => answer(&partial_success(rejected)),
        Err(refusal) => refused(status(&refusal)),
    }
}

async fn export(
    store: &Store,
    headers: &HeaderMap,
    signal: Signal,
    body: Body,
) -> Result<Option<Rejected>, Refusal> {
    let (received, packing) = message(store, headers, body).await?;
    let body = Packed { received, packing, encoding: Encoding::Protobuf, signal };
    intake::take(store, body, MESSAGE_LIMIT).await
}

/// Receives one message.
async fn message(
    store: &Store,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Received, Option<Packing>), Refusal> {
    let mut received = store.intake().receive(body, PREFIX + MESSAGE_LIMIT).await?;
    let unreadable = |reason: &str| Refusal::Unreadable(reason.to_owned());
    let prefix = received.bytes.split_at_checked(PREFIX).map(|(prefix, _)| prefix);
    let Some([compressed, length @ ..]) = prefix.and_then(|it| <[u8; PREFIX]>::try_from(it).ok())
    else {
        return Err(unreadable("there is no message in the request"));
    };
    received.bytes = received.bytes.slice(PREFIX..);
    if received.bytes.len() != u32::from_be_bytes(length) as usize {
        return Err(unreadable("the request isn't one message of the length that it says"));
    }
    let packing = match compressed {
        0 => None,
        _ => Some(packing(headers)?),
    };
    Ok((received, packing))
}

fn packing(headers: &HeaderMap) -> Result<Packing, Refusal> {
    let name = headers.get("grpc-encoding").and_then(|name| name.to_str().ok());
    let name = name.unwrap_or_default();
    Packing::named(name).ok_or_else(|| {
        Refusal::Unsupported(format!(
            "grpc-encoding {name:?} is not supported: use gzip, deflate, zstd or none"
        ))
    })
}

/// Reads the whole request. An empty response is success.
async fn metrics(State(store): State<Store>, headers: HeaderMap, body: Body) -> Response {
    let read = match store.forward() {
        Some(queue) => message(&store, &headers, body).await.map(|(received, packing)| {
            queue.push(METRICS, Encoding::Protobuf, packing, &received.bytes);
        }),
        None => store.intake().drop_body(body, PREFIX + MESSAGE_LIMIT).await,
    };
    match read {
        Ok(()) => answer(&()),
        Err(refusal) => refused(status(&refusal)),
    }
}

/// Returns the status of an error, as [OTLP](https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response) defines it. Clients send a
/// request again after `UNAVAILABLE` only.
fn status(refusal: &Refusal) -> Status {
    Status::new(refusal.code(), refusal.to_string())
}

impl Refusal {
    /// The code of gRPC, which is also in the body of an error over HTTP.
    pub(crate) fn code(&self) -> Code {
        match self {
            Refusal::Unreadable(_) | Refusal::BrokenOff(_) => Code::InvalidArgument,
            Refusal::Unsupported(_) => Code::Unimplemented,
            Refusal::TooLarge(_) | Refusal::UnpacksTooLarge(_) => Code::ResourceExhausted,
            Refusal::Busy | Refusal::Late(_) => Code::Unavailable,
            Refusal::Failed(_) => Code::Internal,
        }
    }
}

fn refused(status: Status) -> Response {
    let mut response = status.into_http::<tonic::body::Body>();
    let accepted = HeaderValue::from_static("gzip,deflate,zstd,identity");
    response.headers_mut().insert("grpc-accept-encoding", accepted);
    response.map(Body::new)
}

/// Writes the response with one message and its trailers.
fn answer(message: &impl Message) -> Response {
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(message.encode_to_vec());
    let ok = HeaderMap::from_iter([(
        axum::http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(Bytes::from(frame)).with_trailers(async { Some(Ok(ok)) });
    ([(CONTENT_TYPE, "application/grpc")], Body::new(body)).into_response()
}
