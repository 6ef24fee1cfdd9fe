//! llm-service: answers a prompt. As the last service of the chain it continues a
//! trace and calls no other service.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::model::Model;
use crate::service::Service;
use crate::settings;

#[derive(Deserialize)]
struct Generate {
    prompt: String,
}

#[derive(Serialize)]
struct Answer {
    response: String,
}

/// The service as the environment sets it up.
///
/// # Errors
/// When a variable cannot be used.
pub fn from_env() -> anyhow::Result<Service> {
    Ok(Service {
        name: "llm-service",
        address: settings::read("LLM_SERVICE_ADDR", "127.0.0.1:5002")?,
        routes: routes(Model::from_env()?),
    })
}

pub fn routes(model: Model) -> Router {
    Router::new()
        .route("/generate", post(generate))
        .with_state(Arc::new(model))
}

async fn generate(
    State(model): State<Arc<Model>>,
    body: Result<Json<Generate>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(request) = body?;
    let response = model.chat(&request.prompt).await?;
    Ok(Json(Answer { response }))
}
