//! The supplier, which has a bad day.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;

pub fn routes() -> Router {
    Router::new().route("/quote", post(async || StatusCode::SERVICE_UNAVAILABLE))
}
