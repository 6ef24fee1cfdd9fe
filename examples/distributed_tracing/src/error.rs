//! The errors of a call to another service, of a request, and of the start.

use std::borrow::Cow;
use std::fmt;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error with a type that has few values, so that errors can be counted by it.
pub trait ErrorType: std::error::Error {
    fn error_type(&self) -> Cow<'static, str>;
}

/// Why a call to another service gave no answer. It holds no URL: it can be logged.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no answer before the deadline")]
    Timeout,
    #[error("the service cannot be reached")]
    Unreachable,
    #[error("the service answered {0}")]
    Status(StatusCode),
    #[error("the answer is not the JSON that was expected")]
    InvalidAnswer,
    #[error("the answer is too long")]
    AnswerTooLong,
}

impl ErrorType for CallError {
    fn error_type(&self) -> Cow<'static, str> {
        match self {
            CallError::Timeout => "timeout".into(),
            CallError::Unreachable => "unreachable".into(),
            CallError::Status(status) => status.as_str().to_owned().into(),
            CallError::InvalidAnswer => "invalid_answer".into(),
            CallError::AnswerTooLong => "answer_too_long".into(),
        }
    }
}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        match error.is_timeout() {
            true => CallError::Timeout,
            false => CallError::Unreachable,
        }
    }
}

/// The user id is not the id of a user.
#[derive(Debug, thiserror::Error)]
#[error("Invalid user")]
pub struct InvalidUser;

impl ErrorType for InvalidUser {
    fn error_type(&self) -> Cow<'static, str> {
        "invalid_user".into()
    }
}

/// The answer to a request that fails. It leaves out the cause.
#[derive(Debug)]
pub enum ApiError {
    InvalidUser,
    InvalidRequest(JsonRejection),
    CallFailed,
    CallTimedOut,
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
            ApiError::CallFailed => (
                StatusCode::BAD_GATEWAY,
                "A service behind this one failed".to_owned(),
            ),
            ApiError::CallTimedOut => (
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

impl From<InvalidUser> for ApiError {
    fn from(_: InvalidUser) -> Self {
        ApiError::InvalidUser
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Status(StatusCode::GATEWAY_TIMEOUT) | CallError::Timeout => {
                ApiError::CallTimedOut
            }
            _ => ApiError::CallFailed,
        }
    }
}

/// The error that `main` returns. Rust prints it with `Debug`: here, in one line
/// with every cause.
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
