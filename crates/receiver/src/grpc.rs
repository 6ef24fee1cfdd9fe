//! Receives OTLP over gRPC. [`crate::http`] does the same over HTTP.
//!
//! Follows <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>.

use axum::Router;
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1 as trace;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic::{Request, Response, Status, async_trait};

use crate::http::{self, partial_success};
use crate::store::Store;
use traces::otlp::{self, Batch};

/// The largest message in bytes, uncompressed. The OpenTelemetry Collector has the same limit. tonic reads a message into
/// memory before decoding it.
pub const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// Serves the three services of OTLP. Adds spans to `store`; accepts and drops logs and metrics.
pub fn routes(store: Store) -> Router {
    let traces = trace::trace_service_server::TraceServiceServer::new(GrpcReceiver(store.clone()))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .max_decoding_message_size(MESSAGE_LIMIT);
    let logs = logs::logs_service_server::LogsServiceServer::new(GrpcReceiver(store.clone()))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd);
    let metrics = metrics::metrics_service_server::MetricsServiceServer::new(GrpcReceiver(store))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd);
    Routes::new(traces).add_service(logs).add_service(metrics).into_axum_router()
}

struct GrpcReceiver(Store);

#[async_trait]
impl trace::trace_service_server::TraceService for GrpcReceiver {
    async fn export(
        &self,
        request: Request<trace::ExportTraceServiceRequest>,
    ) -> Result<Response<trace::ExportTraceServiceResponse>, Status> {
        let Batch { spans, rejected, .. } = otlp::from_request(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        http::add(self.0.clone(), spans)
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(partial_success(rejected)))
    }
}

#[async_trait]
impl logs::logs_service_server::LogsService for GrpcReceiver {
    async fn export(
        &self,
        _: Request<logs::ExportLogsServiceRequest>,
    ) -> Result<Response<logs::ExportLogsServiceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[async_trait]
impl metrics::metrics_service_server::MetricsService for GrpcReceiver {
    async fn export(
        &self,
        _: Request<metrics::ExportMetricsServiceRequest>,
    ) -> Result<Response<metrics::ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}
