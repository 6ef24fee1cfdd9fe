//! A piece of work inside a service, under a span of its own.

use production::error::ApiError;
use tracing::field::Empty;
use tracing::{Span, instrument};

/// Stands in for a database: a user is valid when the id starts with `user_`.
///
/// # Errors
/// When the user is not valid.
// `skip_all` leaves the arguments out: name the fields one by one.
#[instrument(skip_all, fields(
    honeyhive_event_type = "tool",
    honeyhive_metadata.user.valid = Empty,
    error.type = Empty,
    otel.status_code = Empty,
))]
pub async fn validate_user(user_id: &str) -> Result<(), ApiError> {
    let (valid, span) = (user_id.starts_with("user_"), Span::current());
    span.record("honeyhive_metadata.user.valid", valid);
    if valid {
        return Ok(());
    }
    span.record("error.type", "invalid_user");
    span.record("otel.status_code", "ERROR");
    Err(ApiError::InvalidUser)
}
