//! Why a model's answer did not come, or not whole.

use std::borrow::Cow;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{AppendHeaders, IntoResponse, Response};
use production::error::{ApiError, CallError, ErrorType as _, description};
use serde_json::json;

/// Holds no text of the model's server, which may repeat a prompt or a key: so it is
/// safe to put on a span.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No answer came, or it broke the protocol.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Too many requests. The number is the seconds to wait before the next one.
    #[error("the model refuses further requests for now")]
    Busy(Option<u32>),
    /// The server says in mid-answer that it cannot go on; its code for that.
    #[error("the model reported an error")]
    Reported(String),
    /// The connection ended, and the answer had not.
    #[error("the answer was cut off")]
    CutOff,
}

impl ModelError {
    /// The value of `error.type`.
    pub fn error_type(&self) -> Cow<'static, str> {
        match self {
            ModelError::Call(error) => error.error_type(),
            ModelError::Busy(_) => "429".into(),
            ModelError::Reported(code) => code.clone().into(),
            ModelError::CutOff => "cut_off".into(),
        }
    }

    /// The description of a span's error status, as [`description`].
    pub fn description(&self) -> String {
        match self {
            ModelError::Call(error) => description(error),
            ModelError::Busy(_) => String::new(),
            _ => self.to_string(),
        }
    }
}

/// The answer to the client if nothing has been sent yet.
impl IntoResponse for ModelError {
    fn into_response(self) -> Response {
        match self {
            ModelError::Call(error) => ApiError::from(error).into_response(),
            // We ask too often, not the client, so the status isn't 429.
            ModelError::Busy(seconds) => {
                let wait = seconds.map(|it| (RETRY_AFTER, it.to_string()));
                let why = Json(json!({ "error": "The model is busy" }));
                (StatusCode::SERVICE_UNAVAILABLE, AppendHeaders(wait), why)
                    .into_response()
            }
            ModelError::Reported(_) | ModelError::CutOff => {
                ApiError::CallFailed.into_response()
            }
        }
    }
}

impl From<sse_stream::Error> for ModelError {
    fn from(error: sse_stream::Error) -> Self {
        match error {
            // Of the body, which has errors of ours.
            sse_stream::Error::Body(error) => match error.downcast() {
                Ok(own) => *own,
                Err(_) => ModelError::CutOff,
            },
            _ => CallError::InvalidAnswer.into(),
        }
    }
}
