//! The three services. Their routes are the same whichever way spans are made.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use axum::{Json, Router};
use production::error::{ApiError, CallError};
use production::model::Model;
use production::server::{self, BODY_LIMIT};
use production::settings;
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};

use crate::validate::validate_user;
use crate::{by_hand, ready_made, telemetry};

/// How the spans of requests are made.
#[derive(Clone, Copy)]
pub enum Spans {
    ByHand,
    ReadyMade,
}

/// A service that another one calls.
#[derive(Clone)]
enum Upstream {
    ByHand(by_hand::Upstream),
    ReadyMade(ready_made::Upstream),
}

#[derive(Deserialize, Serialize)]
struct Query {
    user_id: String,
    query: String,
}

#[derive(Deserialize, Serialize)]
struct Prompt {
    user_id: String,
    prompt: String,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    response: String,
}

/// Serves the service that the first argument names, until Ctrl-C or SIGTERM.
///
/// # Errors
/// When there is no such service, or an address, URL or setting of the model cannot
/// be used.
pub async fn serve(spans: Spans) -> anyhow::Result<()> {
    let (name, variable, port, next) = match std::env::args().nth(1).as_deref() {
        Some("api-gateway") => (
            "api-gateway",
            "API_GATEWAY_ADDR",
            5000,
            Some(("USER_SERVICE_URL", 5001)),
        ),
        Some("user-service") => (
            "user-service",
            "USER_SERVICE_ADDR",
            5001,
            Some(("LLM_SERVICE_URL", 5002)),
        ),
        Some("llm-service") => ("llm-service", "LLM_SERVICE_ADDR", 5002, None),
        _ => bail!("say which service: api-gateway, user-service or llm-service"),
    };
    let telemetry = telemetry::init(name);
    let address = settings::read(variable, format!("127.0.0.1:{port}"))?;
    let upstream = match next {
        Some((variable, port)) => Some(upstream(spans, variable, port)?),
        None => None,
    };
    let routes = routes(name, upstream)?;
    let routes = match spans {
        Spans::ByHand => routes.layer(from_fn(by_hand::continue_trace)),
        Spans::ReadyMade => ready_made::traced(routes),
    };
    let routes = routes.route("/health", get(async || "ok"));
    let served = server::listen(name, routes, address).await;
    telemetry.shutdown();
    served
}

fn upstream(spans: Spans, variable: &str, port: u16) -> anyhow::Result<Upstream> {
    let base = settings::server_url(variable, &format!("http://127.0.0.1:{port}"))?;
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(9))
        .redirect(Policy::none())
        .build()?;
    Ok(match spans {
        Spans::ByHand => Upstream::ByHand(by_hand::Upstream { client, base }),
        Spans::ReadyMade => {
            Upstream::ReadyMade(ready_made::Upstream::new(client, base))
        }
    })
}

fn routes(name: &str, upstream: Option<Upstream>) -> anyhow::Result<Router> {
    Ok(match (name, upstream) {
        ("api-gateway", Some(next)) => Router::new()
            .route("/api/query", post(query))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(next),
        (_, Some(next)) => Router::new()
            .route("/process", post(process))
            .with_state(next),
        (_, None) => Router::new()
            .route("/generate", post(generate))
            .with_state(Arc::new(Model::from_env()?)),
    })
}

impl Upstream {
    async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, CallError> {
        match self {
            Upstream::ByHand(upstream) => upstream.post(path, body).await,
            Upstream::ReadyMade(upstream) => upstream.post(path, body).await,
        }
    }
}

async fn query(
    State(next): State<Upstream>,
    body: Result<Json<Query>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(query) = body?;
    match next.post("/process", &query).await {
        Ok(answer) => Ok(Json(answer)),
        Err(CallError::Status(StatusCode::FORBIDDEN)) => Err(ApiError::InvalidUser),
        Err(error) => Err(error.into()),
    }
}

async fn process(
    State(next): State<Upstream>,
    body: Result<Json<Query>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(Query { user_id, query }) = body?;
    validate_user(&user_id).await?;
    let prompt = Prompt {
        user_id,
        prompt: query,
    };
    Ok(Json(next.post("/generate", &prompt).await?))
}

/// The model makes its span with OpenTelemetry's own API, below that of `tracing`.
async fn generate(
    State(model): State<Arc<Model>>,
    body: Result<Json<Prompt>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(prompt) = body?;
    let response = model.chat(&prompt.prompt).await?;
    Ok(Json(Answer { response }))
}
