//! The content of a message, and the work on it, which asks user-service.

use std::borrow::Cow;

use production::error::{CallError, ErrorType as _};
use production::outgoing::Upstream;
use serde::{Deserialize, Serialize};
use timeouts_and_retries::retry::is_worth_a_retry;

use crate::queue::Delivery;
use crate::work::MAX_DELIVERIES;

/// The body of the client's request, and of the message.
#[derive(Deserialize, Serialize)]
pub struct Query {
    pub user_id: String,
    pub query: String,
}

/// Why the work on a message has failed. Names no address, and nothing that is in
/// the message.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error("the message is not a query")]
    InvalidMessage,
    #[error("the workers that had the message have not settled it")]
    TooManyDeliveries,
    #[error(transparent)]
    Call(#[from] CallError),
}

impl WorkError {
    /// The value of `error.type`.
    pub fn error_type(&self) -> Cow<'static, str> {
        match self {
            WorkError::InvalidMessage => "invalid_message".into(),
            WorkError::TooManyDeliveries => "too_many_deliveries".into(),
            WorkError::Call(error) => error.error_type(),
        }
    }

    /// Whether the same message may do better later.
    pub fn may_pass(&self) -> bool {
        matches!(self, WorkError::Call(error) if is_worth_a_retry(error))
    }
}

/// Asks user-service what is in the messages, one after the other. The answers are
/// dropped: in this example nobody waits for them.
pub async fn ask_all<H>(
    user_service: &Upstream,
    deliveries: &[Delivery<H>],
) -> Vec<Result<(), WorkError>> {
    let mut results = Vec::new();
    for delivery in deliveries {
        results.push(ask(user_service, delivery).await);
    }
    results
}

async fn ask<H>(
    user_service: &Upstream,
    delivery: &Delivery<H>,
) -> Result<(), WorkError> {
    // Every worker that took this message died, perhaps because of it.
    if delivery.count > MAX_DELIVERIES {
        return Err(WorkError::TooManyDeliveries);
    }
    let query: Query = serde_json::from_slice(&delivery.payload)
        .map_err(|_shows_it| WorkError::InvalidMessage)?;
    let _: serde_json::Value = user_service.post("/process", &query).await?;
    Ok(())
}
