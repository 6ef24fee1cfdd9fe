//! api-gateway that puts queries into a queue: it answers 202 when the broker has
//! confirmed the message, and 503 when it has not.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use message_queues::query::Query;
use message_queues::queue::{QUERIES, Queue};
use message_queues::{kafka, nats, rabbitmq, spans};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use production::error::{ApiError, Failure};
use production::server::{self, BODY_LIMIT};
use production::{settings, telemetry};
use reqwest::Url;
use serde_json::json;

/// How long a broker may take to confirm, unless `QUEUE_TIMEOUT_MS` says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("api-gateway");
    let url: Url = settings::read("QUEUE_URL", "nats://127.0.0.1:4222")?;
    let served = match url.scheme() {
        "nats" => serve(nats::connect(&url, QUERIES).await?).await,
        "amqp" => serve(rabbitmq::connect(&url, QUERIES).await?).await,
        "kafka" => serve(kafka::connect(&url, QUERIES).await?).await,
        _ => Err(anyhow::anyhow!(
            "QUEUE_URL must start with nats://, amqp:// or kafka://"
        )),
    };
    telemetry.shutdown();
    Ok(served?)
}

async fn serve(queue: impl Queue) -> anyhow::Result<()> {
    let address = settings::read("API_GATEWAY_ADDR", "127.0.0.1:5000")?;
    let patience = settings::deadline("QUEUE_TIMEOUT_MS", PATIENCE)?;
    let routes = Router::new()
        .route("/api/query", post(enqueue))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::new((queue, patience)));
    server::serve("api-gateway", routes, address).await
}

async fn enqueue<Q: Queue>(
    State(state): State<Arc<(Q, Duration)>>,
    body: Result<Json<Query>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(query) = body?;
    let (queue, patience) = &*state;
    let id = RandomIdGenerator::default().new_trace_id().to_string();
    let payload = json!(query).to_string().into_bytes();
    let (status, body) = match spans::send(queue, &id, payload, *patience).await {
        Ok(()) => (StatusCode::ACCEPTED, json!({ "id": id })),
        Err(error) => {
            tracing::warn!(%error, "the query was not queued");
            let body = json!({ "error": "The query may not be queued: try again" });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    Ok((status, Json(body)).into_response())
}
