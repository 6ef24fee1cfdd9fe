//! user-service that retries its call for as long as its caller waits. It doesn't
//! check the user, to keep the example short.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::middleware::from_fn;
use axum::routing::post;
use axum::{Json, Router};
use production::error::{ApiError, Failure};
use production::{server, settings, telemetry};
use serde::{Deserialize, Serialize};
use timeouts_and_retries::budget::keep_budget;
use timeouts_and_retries::circuit::Circuit;
use timeouts_and_retries::retry::Retrying;

/// This many failed attempts in a row, over all requests, open the circuit.
const FAILURES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Process {
    user_id: String,
    query: String,
}

#[derive(Serialize)]
struct Generate {
    user_id: String,
    prompt: String,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    response: String,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("user-service");
    let address = settings::read("USER_SERVICE_ADDR", "127.0.0.1:5001")?;
    let url = settings::server_url("LLM_SERVICE_URL", "http://127.0.0.1:5002")?;
    let llm_service = Retrying::new(url, Circuit::new(FAILURES, PAUSE))?;
    let routes = Router::new()
        .route("/process", post(process))
        .with_state(Arc::new(llm_service))
        .layer(from_fn(keep_budget));
    let served = server::serve("user-service", routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}

async fn process(
    State(llm_service): State<Arc<Retrying>>,
    body: Result<Json<Process>, JsonRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Json(Process { user_id, query }) = body?;
    let prompt = Generate {
        user_id,
        prompt: query,
    };
    Ok(Json(llm_service.post("/generate", &prompt).await?))
}
