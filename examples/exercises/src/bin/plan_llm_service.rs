//! llm-service: answers a prompt. As the last service of the chain it continues a
//! trace and calls no other service.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Json, Router};
use distributed_tracing::error::{ApiError, Failure};
use distributed_tracing::model::Model;
use distributed_tracing::spans::enrich_span;
use distributed_tracing::{server, settings, telemetry};
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Generate {
    prompt: String,
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
    let plan = Context::map_current(|cx| cx.baggage().get("plan").cloned());
    enrich_span(plan.map(|plan| KeyValue::new("plan", plan)));
    let response = model.chat(&request.prompt).await?;
    Ok(Json(Answer { response }))
}
