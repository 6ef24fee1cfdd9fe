//! user-service: checks the user, then passes the question on to llm-service.

use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::outgoing::Upstream;
use crate::service::Service;
use crate::settings;
use crate::spans::{EventType, enrich_span, trace};

#[derive(Deserialize)]
struct Process {
    user_id: String,
    query: String,
}

#[derive(Serialize)]
struct Generate<'a> {
    user_id: &'a str,
    prompt: &'a str,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    response: String,
}

#[derive(Debug, thiserror::Error)]
#[error("Invalid user")]
struct InvalidUser;

/// The service as the environment sets it up.
///
/// # Errors
/// When a variable cannot be used.
pub fn from_env() -> anyhow::Result<Service> {
    let llm_service = Upstream::from_env(
        "LLM_SERVICE",
        "http://127.0.0.1:5002",
        Duration::from_secs(9),
    )?;
    Ok(Service {
        name: "user-service",
        address: settings::read("USER_SERVICE_ADDR", "127.0.0.1:5001")?,
        routes: routes(llm_service),
    })
}

pub fn routes(llm_service: Upstream) -> Router {
    Router::new()
        .route("/process", post(process))
        .with_state(llm_service)
}

async fn process(
    State(llm_service): State<Upstream>,
    body: Result<Json<Process>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(request) = body?;
    let check = validate_user(&request.user_id);
    trace("validate_user", EventType::Tool, check)
        .await
        .map_err(|InvalidUser| ApiError::InvalidUser)?;
    let prompt = Generate {
        user_id: &request.user_id,
        prompt: &request.query,
    };
    Ok(Json(llm_service.post("/generate", &prompt).await?))
}

/// Stands in for a database: a user is valid when the id starts with `user_`.
async fn validate_user(user_id: &str) -> Result<(), InvalidUser> {
    let valid = user_id.starts_with("user_");
    enrich_span([KeyValue::new("user.valid", valid)]);
    if valid { Ok(()) } else { Err(InvalidUser) }
}
