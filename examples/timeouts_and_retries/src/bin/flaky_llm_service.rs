//! llm-service that answers its first `LLM_FAILURES` requests with 503.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use production::error::Failure;
use production::model::Model;
use production::{llm_service, server, settings, telemetry};
use timeouts_and_retries::budget::keep_budget;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("llm-service");
    let address = settings::read("LLM_SERVICE_ADDR", "127.0.0.1:5002")?;
    let failures: u32 = settings::read("LLM_FAILURES", 2)?;
    let left = Arc::new(AtomicU32::new(failures));
    let routes = llm_service::routes(Model::offline())
        .layer(from_fn_with_state(left, fail))
        .layer(from_fn(keep_budget));
    let served = server::serve("llm-service", routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}

async fn fail(
    State(left): State<Arc<AtomicU32>>,
    request: Request,
    next: Next,
) -> Response {
    let one_less = |left: u32| left.checked_sub(1);
    match left.fetch_update(Relaxed, Relaxed, one_less) {
        Ok(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(_none) => next.run(request).await,
    }
}
