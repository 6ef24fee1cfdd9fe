//! llm-service: answers a prompt. It is the last service of the chain and calls no
//! other.

use axum::extract::rejection::JsonRejection;
// <added>
use axum::middleware::from_fn;
// </added>
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::error::ApiError;
// <added>
use crate::incoming::continue_trace;
// </added>
use crate::model;
// <added>
use crate::spans::{EventType, trace};
// </added>

pub const NAME: &str = "llm-service";

#[derive(Deserialize)]
struct Prompt {
    prompt: String,
}

#[derive(Serialize)]
struct Answer {
    response: String,
}

pub fn routes() -> Router {
    Router::new()
        .route("/generate", post(generate))
        // <added>
        .route_layer(from_fn(continue_trace))
    // </added>
}

async fn generate(
    body: Result<Json<Prompt>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(Prompt { prompt }) = body?;
    info!("asking the model");
    let answer = model::chat(&prompt);
    // <added>
    let answer = trace("chat offline", EventType::Model, answer);
    // </added>
    let response = answer.await?;
    Ok(Json(Answer { response }))
}
