//! llm-service: answers a prompt. It is the last service of the chain and calls no
//! other.

use axum::extract::rejection::JsonRejection;
// ANCHOR: layer_import
use axum::middleware::from_fn;
// ANCHOR_END: layer_import
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::error::ApiError;
// ANCHOR: incoming
use crate::incoming::continue_trace;
// ANCHOR_END: incoming
use crate::model;
// ANCHOR: spans
use crate::spans::{EventType, trace};
// ANCHOR_END: spans

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
        // ANCHOR: layer
        .route_layer(from_fn(continue_trace))
    // ANCHOR_END: layer
}

async fn generate(
    body: Result<Json<Prompt>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(Prompt { prompt }) = body?;
    info!("asking the model");
    let answer = model::chat(&prompt);
    // ANCHOR: model
    let answer = trace("chat offline", EventType::Model, answer);
    // ANCHOR_END: model
    let response = answer.await?;
    Ok(Json(Answer { response }))
}
