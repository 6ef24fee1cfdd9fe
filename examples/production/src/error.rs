//! The errors of a call to another server, of a request, and of the start.

use std::borrow::Cow;
use std::fmt;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a call to another server gave no answer. Holds no URL, so it is safe to put
/// on a span.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no answer before the deadline")]
    Timeout,
    #[error("the server cannot be reached")]
    Unreachable,
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the answer is not the JSON that was expected")]
    InvalidAnswer,
}

impl CallError {
    /// The value of `error.type`: the status code of an HTTP error, else a word of
    /// low cardinality.
    pub fn error_type(&self) -> Cow<'static, str> {
        match self {
            CallError::Timeout => "timeout".into(),
            CallError::Unreachable => "unreachable".into(),
            CallError::Status(status) => status.as_str().to_owned().into(),
            CallError::InvalidAnswer => "invalid_answer".into(),
        }
    }

    /// The description of a span's error status: empty where the status code says it
    /// all.
    pub fn description(&self) -> String {
        match self {
            CallError::Status(_) => String::new(),
            _ => self.to_string(),
        }
    }
}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            CallError::Timeout
        } else if error.is_decode() {
            CallError::InvalidAnswer
        } else {
            CallError::Unreachable
        }
    }
}

/// The answer to a request that fails. It leaves out the cause, which is on the
/// trace.
#[derive(Debug)]
pub enum ApiError {
    InvalidUser,
    InvalidRequest(JsonRejection),
    UpstreamFailed,
    UpstreamTimedOut,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            ApiError::InvalidUser => {
                (StatusCode::FORBIDDEN, "Invalid user".to_owned())
            }
            ApiError::InvalidRequest(rejection) => {
                (rejection.status(), rejection.body_text())
            }
            ApiError::UpstreamFailed => (
                StatusCode::BAD_GATEWAY,
                "A service behind this one failed".to_owned(),
            ),
            ApiError::UpstreamTimedOut => (
                StatusCode::GATEWAY_TIMEOUT,
                "A service behind this one did not answer in time".to_owned(),
            ),
        };
        (status, Json(json!({ "error": message }))).into_response()
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        ApiError::InvalidRequest(rejection)
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Status(StatusCode::GATEWAY_TIMEOUT) | CallError::Timeout => {
                ApiError::UpstreamTimedOut
            }
            _ => ApiError::UpstreamFailed,
        }
    }
}

/// The error that `main` returns: Rust prints it with `Debug`, which here is one
/// line with every cause.
pub struct Failure(anyhow::Error);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(error.into())
    }
}
