//! `tokio::spawn`: a new task starts without a context.

use std::convert::Infallible;

use opentelemetry::trace::FutureExt as _;
use production::spans::{EventType, trace};
use tokio::task::JoinError;

/// Reads the context here, where the task is spawned, not where it runs.
pub async fn kept() -> Result<(), JoinError> {
    tokio::spawn(fetch().with_current_context()).await
}

/// Wrong: `fetch` starts a trace of its own.
pub async fn lost() -> Result<(), JoinError> {
    tokio::spawn(fetch()).await
}

async fn fetch() {
    let work = async { Ok::<(), Infallible>(()) };
    let Ok(()) = trace("fetch", EventType::Tool, work).await;
}
