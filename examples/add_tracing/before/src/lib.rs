//! Errors, settings and the stop of the services.

use std::future::pending;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::signal::unix::{SignalKind, signal};

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sold out")]
    SoldOut,
    #[error("the stock can't be asked")]
    Stock(#[from] reqwest::Error),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self {
            Error::SoldOut => StatusCode::CONFLICT,
            Error::Stock(_) => StatusCode::BAD_GATEWAY,
        };
        (status, self.to_string()).into_response()
    }
}

/// The value of an environment variable, or `default`.
pub fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Ends when the process gets Ctrl-C or SIGTERM.
pub async fn stopped() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}
