//! The prices, which take their time.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use production::outgoing::Upstream;
use tokio::time::sleep;

const ATTEMPTS: u32 = 3;

pub fn routes() -> anyhow::Result<Router> {
    let deadline = Duration::from_secs(5);
    let supplier =
        Upstream::from_env("SUPPLIER", "http://127.0.0.1:7012", deadline)?;
    Ok(Router::new()
        .route("/price", post(async || after(10, 7).await))
        .route("/delivery", post(async || after(30, 4).await))
        .route("/discount", post(async || after(20, 1).await))
        .route("/advice", post(async || after(400, 0).await))
        .route("/prices", post(prices))
        .route("/supplied", post(supplied))
        .with_state(supplier))
}

/// Answers after this number of milliseconds, as a database would.
async fn after(milliseconds: u64, answer: u32) -> Json<u32> {
    sleep(Duration::from_millis(milliseconds)).await;
    Json(answer)
}

async fn prices(Json(items): Json<Vec<String>>) -> Json<Vec<u32>> {
    sleep(Duration::from_millis(15)).await;
    Json(items.iter().map(|_| 7).collect())
}

async fn supplied(
    State(supplier): State<Upstream>,
) -> Result<Json<u32>, StatusCode> {
    for _ in 0..ATTEMPTS {
        if let Ok(price) = supplier.post("/quote", &"tea").await {
            return Ok(Json(price));
        }
    }
    Err(StatusCode::BAD_GATEWAY)
}
