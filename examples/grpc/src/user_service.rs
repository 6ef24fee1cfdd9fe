//! user-service: called over HTTP, it asks llm-service over gRPC.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Json, Router};
use production::error::ApiError;
use serde::{Deserialize, Serialize};

use crate::streaming::process_stream;
use crate::upstream::{Upstream, api_error};

#[derive(Deserialize)]
pub struct Process {
    pub query: String,
}

#[derive(Serialize)]
struct Answer {
    response: String,
}

pub fn routes(upstream: Upstream) -> Router {
    Router::new()
        .route("/process", post(process))
        .route("/process/stream", post(process_stream))
        .with_state(upstream)
}

async fn process(
    State(mut upstream): State<Upstream>,
    body: Result<Json<Process>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(Process { query }) = body?;
    let request = upstream.request(query);
    let answer = upstream.llm.generate(request).await.map_err(api_error)?;
    let response = answer.into_inner().response;
    Ok(Json(Answer { response }))
}
