//! user-service: checks the user, then passes the question on to llm-service.

use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
// <added>
use axum::middleware::from_fn;
// </added>
use axum::routing::post;
use axum::{Json, Router};
// <added>
use opentelemetry::KeyValue;
// </added>
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::info;

use crate::client::Upstream;
use crate::error::{ApiError, InvalidUser};
// <added>
use crate::incoming::continue_trace;
// </added>
// <added>
use crate::spans::{EventType, enrich_span, trace};
// </added>

pub const NAME: &str = "user-service";

#[derive(Deserialize)]
struct Query {
    user_id: String,
    query: String,
}

#[derive(Serialize)]
struct Prompt<'a> {
    user_id: &'a str,
    prompt: &'a str,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    response: String,
}

pub fn routes(llm_service: Upstream) -> Router {
    Router::new()
        .route("/process", post(process))
        // <added>
        .route_layer(from_fn(continue_trace))
        // </added>
        .with_state(llm_service)
}

async fn process(
    State(llm_service): State<Upstream>,
    body: Result<Json<Query>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(Query { user_id, query }) = body?;
    info!("checking the user");
    let check = validate_user(&user_id);
    // <added>
    let check = trace("validate_user", EventType::Tool, check);
    // </added>
    check.await?;
    let prompt = Prompt {
        user_id: &user_id,
        prompt: &query,
    };
    Ok(Json(llm_service.post("/generate", &prompt).await?))
}

/// Stands in for a database: a user is valid when the id starts with `user_`.
async fn validate_user(user_id: &str) -> Result<(), InvalidUser> {
    let archived = user_id.starts_with("user_old_");
    // <added>
    enrich_span([KeyValue::new("user.archived", archived)]);
    // </added>
    if archived {
        sleep(Duration::from_secs(1)).await;
    }
    match user_id.starts_with("user_") {
        true => Ok(()),
        false => Err(InvalidUser),
    }
}
