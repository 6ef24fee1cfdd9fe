//! Receives OTLP over gRPC. [`crate::http`] does the same over HTTP.
//!
//! Follows <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Response as HttpResponse;
use axum::routing::post;
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::server::Grpc;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use traces::otlp::{self, Batch};
use traces::proto::collector::{ExportTraceServiceRequest, ExportTraceServiceResponse};

use crate::http::{add, count, partial_success};
use crate::store::Store;

/// The largest message in bytes, uncompressed. The OpenTelemetry Collector has the same limit. tonic reads a message into
/// memory before decoding it.
pub const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// Serves the three services of OTLP. Adds spans to `store`; accepts and drops logs and metrics.
pub fn routes(store: Store) -> Router {
    Router::new()
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(traces))
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", post(accept_and_drop))
        .route(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            post(accept_and_drop),
        )
        .fallback(async || Status::unimplemented("").into_http::<Body>())
        .with_state(store)
}

async fn traces(State(store): State<Store>, request: Request) -> HttpResponse<Body> {
    let export = |request| export(store.clone(), request);
    grpc::<ExportTraceServiceRequest, ExportTraceServiceResponse>()
        .unary(service_fn(export), request)
        .await
}

async fn export(
    store: Store,
    request: tonic::Request<ExportTraceServiceRequest>,
) -> Result<Response<ExportTraceServiceResponse>, Status> {
    let refused = |error: otlp::Error| {
        store.refuse(&error);
        Status::invalid_argument(error.to_string())
    };
    let Batch { spans, rejected, .. } =
        otlp::from_request(request.into_inner()).map_err(refused)?;
    count(&store, rejected.as_ref());
    add(store, spans).await.map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(partial_success(rejected)))
}

/// Reads the whole request as a message without fields, which skips all of them. An empty response is success.
async fn accept_and_drop(request: Request) -> HttpResponse<Body> {
    grpc::<(), ()>().unary(service_fn(accept), request).await
}

async fn accept(_: tonic::Request<()>) -> Result<Response<()>, Status> {
    Ok(Response::new(()))
}

/// Decodes one request and encodes its response.
fn grpc<Asked, Answered>() -> Grpc<ProstCodec<Answered, Asked>>
where
    Asked: Message + Default + Send + 'static,
    Answered: Message + Send + 'static,
{
    Grpc::new(ProstCodec::default())
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .max_decoding_message_size(MESSAGE_LIMIT)
}
