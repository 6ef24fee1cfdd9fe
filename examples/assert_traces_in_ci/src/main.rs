//! Two services for one test: `shop` takes an order and calls `payment`. The
//! argument says which of the two to run.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use production::error::{ApiError, Failure};
use production::outgoing::Upstream;
use production::{server, telemetry};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (name, routes) = match std::env::args().nth(1).as_deref() {
        Some("payment") => ("payment", payment()),
        _ => ("shop", shop()?),
    };
    let telemetry = telemetry::init(name);
    // The service prints which port it got.
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let served = server::serve(name, routes, any_port).await;
    telemetry.shutdown();
    Ok(served?)
}

fn shop() -> anyhow::Result<Router> {
    let payment = Upstream::from_env("PAYMENT", "http://127.0.0.1:5003", DEADLINE)?;
    Ok(Router::new()
        .route("/checkout", post(checkout))
        .with_state(payment))
}

async fn checkout(State(payment): State<Upstream>) -> Result<Json<Value>, ApiError> {
    Ok(Json(payment.post("/pay", &json!({ "cents": 1250 })).await?))
}

fn payment() -> Router {
    Router::new().route("/pay", post(async || Json(json!({ "paid": true }))))
}
