//! api-gateway: the entrance. A request without a `traceparent` starts a trace here.

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::FutureExt as _;
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, CallError};
use crate::outgoing::Upstream;
use crate::server::BODY_LIMIT;
use crate::service::Service;
use crate::settings;

#[derive(Deserialize, Serialize)]
struct Query {
    user_id: String,
    query: String,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    response: String,
}

/// The service as the environment sets it up.
///
/// # Errors
/// When a variable cannot be used.
pub fn from_env() -> anyhow::Result<Service> {
    let user_service = Upstream::from_env(
        "USER_SERVICE",
        "http://127.0.0.1:5001",
        Duration::from_secs(10),
    )?;
    Ok(Service {
        name: "api-gateway",
        address: settings::read("API_GATEWAY_ADDR", "127.0.0.1:5000")?,
        routes: routes(user_service),
    })
}

pub fn routes(user_service: Upstream) -> Router {
    Router::new()
        .route("/api/query", post(query))
        .with_state(user_service)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn query(
    State(user_service): State<Upstream>,
    body: Result<Json<Query>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(query) = body?;
    let plan = KeyValue::new("plan", plan_of(&query.user_id));
    // Replaces all baggage that came in.
    let cx = Context::current_with_baggage([plan]);
    match user_service.post("/process", &query).with_context(cx).await {
        Ok(answer) => Ok(Json(answer)),
        // Only user-service checks users: from any other service, 403 is a failure.
        Err(CallError::Status(StatusCode::FORBIDDEN)) => Err(ApiError::InvalidUser),
        Err(error) => Err(error.into()),
    }
}

/// Stands in for a database. A plan says nothing about a person; a user id would.
fn plan_of(user_id: &str) -> &'static str {
    if user_id.ends_with("_pro") {
        "pro"
    } else {
        "free"
    }
}
