//! Services that keep the contract and call other services in other ways than
//! user-service does.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use opentelemetry::trace::FutureExt as _;
use production::error::CallError;
use production::outgoing::Upstream;
use production::server;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(5);

/// Makes two calls in parallel.
pub fn two_calls(neighbor: Upstream) -> Router {
    let answer = async move || {
        let calls = tokio::join!(call(&neighbor), call(&neighbor));
        match calls {
            (Ok(_), Ok(_)) => "answered",
            _ => "the neighbor did not answer",
        }
    };
    traced(Router::new().route("/process", post(answer)))
}

/// Answers while the call is still under way in a task.
pub fn spawned(neighbor: Upstream) -> Router {
    let answer = async move || {
        let work = async move { call(&neighbor).await }.with_current_context();
        tokio::spawn(work);
        "accepted"
    };
    traced(Router::new().route("/process", post(answer)))
}

/// Calls nobody.
pub fn leaf() -> Router {
    traced(Router::new().route("/process", post(async || "answered")))
}

fn traced(routes: Router) -> Router {
    server::traced(routes, DEADLINE)
}

async fn call(neighbor: &Upstream) -> Result<Value, CallError> {
    neighbor.post("/work", &json!({})).await
}
