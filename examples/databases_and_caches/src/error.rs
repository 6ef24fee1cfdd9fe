//! The errors of a request.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::codes::ErrorCode;

/// Why a request to the shop fails.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    #[error("there is no such product, or none is left")]
    SoldOut,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// For the span around a transaction. The code is on the span of the statement.
impl ErrorCode for ShopError {
    fn status_code(&self) -> Option<String> {
        None
    }

    fn word(&self) -> &'static str {
        match self {
            ShopError::SoldOut => "sold_out",
            ShopError::Database(_) => "database",
        }
    }
}

/// The client learns nothing about the database.
impl IntoResponse for ShopError {
    fn into_response(self) -> Response {
        let (status, message) = match &self {
            ShopError::SoldOut => (StatusCode::NOT_FOUND, "There is none left"),
            ShopError::Database(sqlx::Error::PoolTimedOut) => {
                (StatusCode::SERVICE_UNAVAILABLE, "The shop is busy")
            }
            ShopError::Database(error) => match error.as_database_error() {
                Some(error) if error.is_unique_violation() => {
                    (StatusCode::CONFLICT, "The order exists")
                }
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "The shop has a problem"),
            },
        };
        (status, Json(json!({ "error": message }))).into_response()
    }
}
