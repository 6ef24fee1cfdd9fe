//! api-gateway: the entrance. It passes a query on to user-service.

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
// <added>
use axum::middleware::from_fn;
// </added>
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::client::Upstream;
use crate::error::{ApiError, CallError};
// <added>
use crate::incoming::continue_trace;
// </added>
use crate::server::BODY_LIMIT;

pub const NAME: &str = "api-gateway";

#[derive(Deserialize, Serialize)]
struct Query {
    user_id: String,
    query: String,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    response: String,
}

pub fn routes(user_service: Upstream) -> Router {
    Router::new()
        .route("/api/query", post(query))
        // <added>
        .route_layer(from_fn(continue_trace))
        // </added>
        .with_state(user_service)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn query(
    State(user_service): State<Upstream>,
    body: Result<Json<Query>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(query) = body?;
    info!("a query has come");
    match user_service.post("/process", &query).await {
        Ok(answer) => Ok(Json(answer)),
        // Only user-service checks users. From another service, 403 is a failure.
        Err(CallError::Status(StatusCode::FORBIDDEN)) => Err(ApiError::InvalidUser),
        Err(error) => Err(error.into()),
    }
}
