//! user-service: checks the user, then passes the question on to llm-service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, CallError};
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
        .with_state(Answers {
            llm_service,
            known: Arc::default(),
        })
}

/// The answer to each query, and the span that asked for it. A real cache evicts.
type Known = HashMap<String, (String, SpanContext)>;

#[derive(Clone)]
struct Answers {
    llm_service: Upstream,
    known: Arc<Mutex<Known>>,
}

impl Answers {
    async fn answer(&self, request: &Process) -> Result<Answer, CallError> {
        let cx = Context::current();
        let known = self.known().get(&request.query).cloned();
        enrich_span([KeyValue::new("cache.hit", known.is_some())]);
        if let Some((response, asked_by)) = known {
            cx.span().add_link(asked_by, Vec::new());
            return Ok(Answer { response });
        }
        let prompt = Generate {
            user_id: &request.user_id,
            prompt: &request.query,
        };
        let answer: Answer = self.llm_service.post("/generate", &prompt).await?;
        let asked_by = cx.span().span_context().clone();
        let entry = (answer.response.clone(), asked_by);
        self.known().insert(request.query.clone(), entry);
        Ok(answer)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn process(
    State(answers): State<Answers>,
    body: Result<Json<Process>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(request) = body?;
    let check = validate_user(&request.user_id);
    trace("validate_user", EventType::Tool, check)
        .await
        .map_err(|InvalidUser| ApiError::InvalidUser)?;
    Ok(Json(answers.answer(&request).await?))
}

/// Stands in for a database: a user is valid when the id starts with `user_`.
async fn validate_user(user_id: &str) -> Result<(), InvalidUser> {
    let valid = user_id.starts_with("user_");
    enrich_span([KeyValue::new("user.valid", valid)]);
    if valid { Ok(()) } else { Err(InvalidUser) }
}
