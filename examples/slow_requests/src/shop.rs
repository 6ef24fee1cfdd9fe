//! The shop: each pair of routes is one request, slow and repaired.

use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use production::error::{ApiError, CallError};
use production::outgoing::Upstream;

use crate::{critical_path, empty_pool, in_turn, many_calls, retry_storm};

type Prices = State<Upstream>;

pub fn routes() -> anyhow::Result<Router> {
    let deadline = Duration::from_secs(5);
    let prices = Upstream::from_env("PRICES", "http://127.0.0.1:7011", deadline)?;
    let many_calls = Router::new()
        .route(
            "/many-calls/slow",
            post(async |State(it): Prices| answer(many_calls::slow(&it).await)),
        )
        .route(
            "/many-calls/repaired",
            post(async |State(it): Prices| answer(many_calls::repaired(&it).await)),
        );
    let in_turn = Router::new()
        .route(
            "/in-turn/slow",
            post(async |State(it): Prices| answer(in_turn::slow(&it).await)),
        )
        .route(
            "/in-turn/repaired",
            post(async |State(it): Prices| answer(in_turn::repaired(&it).await)),
        );
    let critical_path = Router::new()
        .route(
            "/critical-path/slow",
            post(async |State(it): Prices| answer(critical_path::slow(&it).await)),
        )
        .route(
            "/critical-path/repaired",
            post(async |State(it): Prices| {
                answer(critical_path::repaired(&it).await)
            }),
        );
    let empty_pool = Router::new()
        .route(
            "/empty-pool/slow",
            post(async |State(it): Prices| answer(empty_pool::slow(&it).await)),
        )
        .route(
            "/empty-pool/repaired",
            post(async |State(it): Prices| answer(empty_pool::repaired(&it).await)),
        );
    let retry_storm = Router::new()
        .route(
            "/retry-storm/slow",
            post(async |State(it): Prices| answer(retry_storm::slow(&it).await)),
        )
        .route(
            "/retry-storm/repaired",
            post(async |State(it): Prices| answer(retry_storm::repaired(&it).await)),
        );
    Ok(many_calls
        .merge(in_turn)
        .merge(critical_path)
        .merge(empty_pool)
        .merge(retry_storm)
        .with_state(prices))
}

fn answer(result: Result<u32, CallError>) -> Result<Json<u32>, ApiError> {
    Ok(Json(result?))
}
