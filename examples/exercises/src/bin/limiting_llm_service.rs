//! llm-service: answers a prompt. As the last service of the chain it continues a
//! trace and calls no other service.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Json, Router};
use distributed_tracing::error::{ApiError, Failure};
use distributed_tracing::model::Model;
use distributed_tracing::{server, settings, telemetry};
use serde::{Deserialize, Serialize};

/// The longest prompt that is answered, in characters.
const LONGEST: usize = 2_000;

#[derive(Deserialize)]
struct Generate {
    prompt: Prompt,
}

/// A prompt that isn't too long. Only `try_from` makes one.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Prompt(String);

impl TryFrom<String> for Prompt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().count() {
            ..=LONGEST => Ok(Prompt(text)),
            length => Err(format!("{length} characters are more than {LONGEST}")),
        }
    }
}

#[derive(Serialize)]
struct Answer {
    response: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("llm-service");
    let address = settings::read("LLM_SERVICE_ADDR", "127.0.0.1:5002")?;
    let model = Model::from_env()?;
    let served = server::serve("llm-service", routes(model), address).await;
    telemetry.shutdown();
    Ok(served?)
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
    let response = model.chat(&request.prompt.0).await?;
    Ok(Json(Answer { response }))
}
